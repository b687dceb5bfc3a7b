"""The 2024-11-05 transport with real peers: the official SDK's client in front, its server behind, and both at once."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from interop.plans import REVISION, Era, Fixture, Scenario, keyed
from interop.processes import running
from journeys.sse_peers import LISTENING

pytestmark = pytest.mark.interop
HERE = Path(__file__).parent
PEERS = HERE / "sse_peers.py"
PYTHON_SDK = HERE.parent / "interop" / "clients" / "python_sdk.py"
GATEWAY_LISTENING = "gatewright: listening on "
RUN_S = 55.0
ANNOUNCED = {"subscribe", "list_changed"}
"""The fixture tells what changed to the session that called its tool. A modern client's calls and its subscription are
two sessions of such a server, so it is told nothing, with or without a gateway."""
Run = Callable[[list[str | Path], dict[str, Any]], dict[str, str]]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway before an old server that is called so, the same with only its address, and servers of each era."""
    official = str(HERE.parent / "interop" / "servers" / "official.py")
    file = tmp_path_factory.mktemp("gateway") / "gatewright.yaml"
    with running([sys.executable, PEERS, "server", "old"], name="old server") as old:
        url = old.wait_line(LISTENING)
        backends = {
            "old": {"url": url, "type": "sse"},
            "unsaid": {"url": url},
            "handshake": {
                "command": sys.executable,
                "args": [official, "stdio", "--label", "handshake", "--era", "handshake"],
            },
            "modern": {"command": sys.executable, "args": [official, "stdio", "--label", "modern", "--era", "both"]},
        }
        file.write_text(yaml.safe_dump({"listen": "127.0.0.1:0", "admin": None, "backends": backends}))
        argv: list[str | Path] = [Path(sys.executable).parent / "gatewright", "serve", file]
        with running(argv, name="gatewright") as gateway:
            yield gateway.wait_line(GATEWAY_LISTENING)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a client script over one target; what failed, by scenario."""

    def started(script: list[str | Path], target: dict[str, Any]) -> dict[str, str]:
        plan = tmp_path / "plan.json"
        plan.write_text(json.dumps({"targets": [target]}))
        with running([sys.executable, *script, plan], name="client", ring_lines=1_000) as process:
            assert process.wait(timeout_s=RUN_S) == 0, process.report()
            outcomes = [json.loads(line) for line in process.lines if line.startswith("{")]
        assert len(outcomes) > len(target["scenarios"]), process.report()
        return {one["scenario"]: one["detail"] for one in outcomes if not one["ok"]}

    return started


def target(url: str, era: Era, scenarios: list[Scenario]) -> dict[str, Any]:
    """What a client is told to do, over one connection."""
    return {"name": "it", "url": url, "era": era, "revision": REVISION[era], "scenarios": scenarios}


@pytest.mark.parametrize("backend", ["old", "unsaid"])
@pytest.mark.parametrize("era", ["handshake", "modern"])
def test_real_clients_reach_an_old_server(address: str, run: Run, backend: str, era: Era) -> None:
    """The SDK's client of either era, everything from calls to questions; `type: sse` said, or found out."""
    scenarios = keyed(Fixture("old").full("", era), f"{backend}_{era}")
    if era == "modern":
        scenarios = [scenario for scenario in scenarios if scenario["name"] not in ANNOUNCED]
    assert run([PYTHON_SDK], target(f"{address}/mcp/{backend}", era, scenarios)) == {}


@pytest.mark.parametrize("backend", ["old", "handshake", "modern"])
def test_a_real_old_client_reaches_servers(address: str, run: Run, backend: str) -> None:
    """The SDK's client of the old transport before an old server, and servers of each era over stdio."""
    scenarios = keyed(Fixture(backend).full("", "handshake"), f"sse_{backend}")
    assert run([PEERS, "client"], target(f"{address}/sse/{backend}", "handshake", scenarios)) == {}


def test_a_real_old_client_reaches_all_servers_at_once(address: str, run: Run) -> None:
    """`/sse`: one stream for all of them, names with their prefix."""
    scenarios = [
        *keyed(Fixture("old").full("old.", "handshake"), "sse_all_old"),
        *keyed(Fixture("modern").full("modern.", "handshake"), "sse_all_modern"),
    ]
    assert run([PEERS, "client"], target(f"{address}/sse", "handshake", scenarios)) == {}
