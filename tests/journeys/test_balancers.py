"""Replicas restarted one after the other behind real balancers, under load: no request fails.

The long run is `scripts/bench drain`; this is one round of it, with the files of `deploy/`.
"""

from __future__ import annotations

import pytest
import yaml

from gatewright.config import parse
from journeys import measured

pytestmark = pytest.mark.anyio
ROUND_S = 110.0
"""Three replicas are started, stopped and started again: 30 to 60 s."""
SESSIONS = "40" if measured.HAS_REDIS else "0"
"""Handshake sessions need a store that the replicas share."""


@pytest.mark.timeout(ROUND_S + 20)
@pytest.mark.parametrize(("balancer", "workers"), [("nginx", 1), ("haproxy", 1), ("nginx", 2)])
async def test_a_rolling_restart_fails_no_request(balancer: str, workers: int) -> None:
    """Every replica, of one process or two, gets SIGTERM in turn, keep-alive on both sides and slow calls under way:
    calls of both eras are answered rightly, streams end as their era has it, no session is opened anew, each process
    ends with 0."""
    await measured.holds(
        *("bench.drain", "--balancer", balancer, "--rounds", "1", "--rate", "60", "--streams", "20"),
        *("--sessions", SESSIONS, "--workers", str(workers)),
        within_s=ROUND_S,
    )


def test_the_recipe_for_kubernetes_adds_up() -> None:
    """Its configuration is one, its probes ask ports that exist, and nobody is killed while it drains."""
    documents = {
        one["kind"]: one for one in yaml.safe_load_all((measured.ROOT / "deploy" / "kubernetes.yaml").read_text())
    }
    text = documents["ConfigMap"]["data"]["gatewright.yaml"]
    config = parse(text, file="gatewright.yaml", environ={}, folder=measured.ROOT).config
    pod = documents["Deployment"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > config.drain_delay_s + config.drain_s + 5
    assert config.drain_s > config.drain_idle_s + 2
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert config.admin is not None
    assert ports == {"mcp": config.listen.port, "admin": config.admin.port}
    assert {container[probe]["httpGet"]["port"] for probe in ("readinessProbe", "livenessProbe")} == set(ports)
    assert documents["Service"]["spec"]["ports"][0]["targetPort"] == "mcp"
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
