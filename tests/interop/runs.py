"""How client scripts are pointed at servers and gateways, and what comes back.

`Runs` turns the tables of `cells` into plans, runs a client script at most once per route and keeps the outcomes. It
starts nothing by itself: the function that runs a script is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interop.cells import SERVERS, ClientCell, ServerCell
from interop.plans import REVISION

DETAIL_CHARS = 5_000


@dataclass(frozen=True)
class Node:
    """A Node of at least 22 and the folder where the npm packages are installed."""

    program: Path
    cache: Path

    def fill(self, part: str) -> str:
        """Put the program and the folder into a command part of `cells`."""
        return part.format(node=self.program, cache=self.cache) if part.startswith(("{node}", "{cache}")) else part


@dataclass(frozen=True)
class Outcome:
    """How one scenario ended."""

    scenario: str
    ok: bool
    detail: str
    ms: int


Outcomes = dict[str, list[Outcome]]  # by target


Run = Callable[[ClientCell, list[dict[str, Any]]], Outcomes]


def backend(server: ServerCell, node: Node, urls: dict[str, str]) -> dict[str, Any]:
    """The gateway's configuration of one server."""
    if server.python:
        return {"python": server.python}
    if server.stdio:
        command, *arguments = [node.fill(part) for part in server.stdio]
        return {"command": command, "args": arguments}
    return {"url": urls[server.name], **({"type": "sse"} if server.is_sse else {})}


def direct_target(server: ServerCell, client: ClientCell, node: Node, urls: dict[str, str]) -> dict[str, Any]:
    """One server as a target without a gateway."""
    place: dict[str, Any] = {"url": urls.get(server.name)}
    if server.stdio and not server.command:
        command, *arguments = [node.fill(part) for part in server.stdio]
        place = {"stdio": {"command": command, "args": arguments}}
        if client.script == "fastmcp_client.py":
            place["stdio"]["keep_alive"] = False
    scenarios = server.direct(client.era, f"{client.name}_direct".replace("-", "_"))
    revision = {"revision": "2024-11-05"} if server.is_sse else {}
    return {"name": server.name, **place, **of_era(client), **revision, "scenarios": scenarios}


def of_era(client: ClientCell) -> dict[str, str]:
    """The era of a target, the revision that must come out of the negotiation, and an old transport."""
    transport = {"transport": "sse"} if client.is_sse else {}
    return {"era": client.era, "revision": REVISION[client.era], **transport}


def endpoint(client: ClientCell) -> str:
    """The gateway's path for clients of that transport."""
    return "sse" if client.is_sse else "mcp"


def named_targets(
    client: ClientCell, address: str, servers: Iterable[ServerCell], key: str, only: Container[str] | None = None
) -> list[dict[str, Any]]:
    """These servers as targets through the gateway at `/mcp/NAME`, with all their scenarios or `only` some."""
    return [
        {
            "name": server.name,
            "url": f"{address}/{endpoint(client)}/{server.name}",
            **of_era(client),
            "scenarios": [it for it in server.through(client.era, key, "") if only is None or it["name"] in only],
        }
        for server in servers
    ]


class Runs:
    """The client runs of a session, made when first asked for."""

    def __init__(self, run: Run, node: Node, urls: dict[str, str], address: Callable[[], str]) -> None:
        self._run = run
        self._node = node
        self._urls = urls
        self._address = address
        self._done: dict[tuple[str, str], Outcomes] = {}

    def direct(self, client: ClientCell) -> Outcomes:
        """Without a gateway, one target per server that knows the client's era."""
        fitting = [server for server in SERVERS if client.can_reach(server)]
        return self._once(client, "direct", [direct_target(it, client, self._node, self._urls) for it in fitting])

    def named(self, client: ClientCell) -> Outcomes:
        """Through the gateway at `/mcp/NAME`, one target per server."""
        targets = named_targets(client, self._address(), SERVERS, f"{client.name}_named".replace("-", "_"))
        return self._once(client, "named", targets)

    def merged(self, client: ClientCell) -> Outcomes:
        """Through the gateway at `/mcp`, all servers over one connection; outcomes are split by server again."""
        key = f"{client.name}_merged".replace("-", "_")
        scenarios = [
            {**scenario, "name": f"{server.name}/{scenario['name']}"}
            for server in SERVERS
            for scenario in server.through(client.era, key, f"{server.name}.")
        ]
        url = f"{self._address()}/{endpoint(client)}"
        target = {"name": "all", "url": url, **of_era(client), "scenarios": scenarios}
        outcomes = self._once(client, "merged", [target])["all"]
        shared = [outcome for outcome in outcomes if "/" not in outcome.scenario]
        split: Outcomes = {server.name: list(shared) for server in SERVERS}
        for outcome in outcomes:
            name, slash, scenario = outcome.scenario.partition("/")
            if slash:
                split[name].append(replace(outcome, scenario=scenario))
        return split

    def _once(self, client: ClientCell, route: str, targets: list[dict[str, Any]]) -> Outcomes:
        if (client.name, route) not in self._done:
            self._done[client.name, route] = self._run(client, targets)
        return self._done[client.name, route]


def describe(failed: list[Outcome]) -> str:
    """Failures with their evidence, for an assertion message."""
    return "\n\n".join(f"--- {outcome.scenario}\n{outcome.detail[:DETAIL_CHARS]}" for outcome in failed)
