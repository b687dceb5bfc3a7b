"""The cells of the matrix in which a server asks its client, and streams are resumed, through three replicas.

Real SDK clients and servers, a real Redis, and between clients and gateways a turnstile: every request comes to another
replica than the one before, so an answer, a retry or a resume never comes to where the request came that it belongs
to. In a second walk each stream of a handshake client is ended after its first event as well: what is asked is asked on
a resumed stream.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import pytest

from balanced.replicas import NUMBER, replicas
from balanced.turnstile import ANSWER, RESUME, RETRY, Turnstile, turnstile
from interop.cells import CLIENTS, SERVERS, ClientCell
from interop.matrix import BACKEND_TITLES, CLIENT_TITLES, FEATURES, Cell, cells
from interop.plans import REVISION
from interop.runs import Node, Outcomes, Run, backend, describe, named_targets

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

ASKS = ("elicitation, form", "elicitation, URL", "sampling", "roots")
RESUMED = (*ASKS, "progress")
AT_ONCE = 2
"""Clients on their way: each new one has servers started for it, which takes a core a second."""
RETRY_S = 0.2
"""How long clients wait before they resume. A question waits ten times as long for them."""
WALKING = tuple(client for client in CLIENTS if client.name in CLIENT_TITLES)
RESUMING = tuple(client for client in WALKING if client.era == "handshake" and not client.is_sse)
BEHIND = tuple(server for server in SERVERS if server.name in BACKEND_TITLES)


@dataclass(frozen=True)
class Walk:
    """One client's way through all the cells of its own."""

    way: Turnstile
    outcomes: Outcomes


@pytest.fixture(scope="module")
def ports(node: Node, urls: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[int]]:
    """Three gateways with the matrix' servers behind each."""
    backends = {server.name: backend(server, node, urls) for server in BEHIND}
    with replicas(backends, tmp_path_factory.mktemp("replicas"), sessions={"retry_s": RETRY_S}) as found:
        yield found


def walk(clients: tuple[ClientCell, ...], features: tuple[str, ...], ports: list[int], run: Run) -> dict[str, Walk]:
    """Let the clients through."""
    only = {scenario for feature in features for scenario in FEATURES[feature]}
    with contextlib.ExitStack() as stack:
        ways = [stack.enter_context(turnstile(ports, is_breaking=features is RESUMED)) for _ in clients]
        targets = [
            named_targets(client, way.url, BEHIND, f"{client.name}_far".replace("-", "_"), only)
            for client, way in zip(clients, ways, strict=True)
        ]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            outcomes = list(pool.map(run, clients, targets))
    return {client.name: Walk(*one) for client, one in zip(clients, zip(ways, outcomes, strict=True), strict=True)}


@pytest.fixture(scope="module")
def asked(ports: list[int], run_client: Run) -> dict[str, Walk]:
    """Every client, where servers ask."""
    return walk(WALKING, ASKS, ports, run_client)


@pytest.fixture(scope="module")
def resumed(ports: list[int], run_client: Run) -> dict[str, Walk]:
    """The clients that can resume, with their streams ended."""
    return walk(RESUMING, RESUMED, ports, run_client)


def some_cells(clients: tuple[ClientCell, ...], features: tuple[str, ...]) -> list[Cell]:
    """Those of the matrix that are not forbidden."""
    return [
        cell
        for cell in cells()
        if cell.client in clients and cell.feature in features and cell.backend in BEHIND and not cell.forbidden
    ]


def check(cell: Cell, walks: dict[str, Walk]) -> None:
    """Every scenario of the cell passes."""
    outcomes = {one.scenario: one for one in walks[cell.client.name].outcomes[cell.backend.name]}
    assert outcomes["connect"].detail == REVISION[cell.client.era], describe([outcomes["connect"]])
    failed = [outcomes[name] for name in cell.scenarios if not outcomes[name].ok]
    assert not failed, describe(failed)


@pytest.mark.parametrize("cell", some_cells(WALKING, ASKS), ids=lambda cell: cell.id)
def test_what_is_asked_is_answered_through_another_replica(asked: dict[str, Walk], cell: Cell) -> None:
    """In every era and over every transport."""
    check(cell, asked)


@pytest.mark.parametrize("cell", some_cells(RESUMING, RESUMED), ids=lambda cell: cell.id)
def test_what_comes_on_a_stream_comes_when_it_is_resumed_elsewhere(resumed: dict[str, Walk], cell: Cell) -> None:
    """Progress, questions and answers, each once."""
    check(cell, resumed)


@pytest.mark.parametrize("client", WALKING, ids=lambda client: client.name)
def test_every_request_came_to_another_replica(asked: dict[str, Walk], client: ClientCell) -> None:
    """And among them were answers of a handshake client, or retries of a modern one."""
    check_way(asked[client.name].way, RETRY if client.era == "modern" else ANSWER)


@pytest.mark.parametrize("client", RESUMING, ids=lambda client: client.name)
def test_every_stream_was_resumed_on_another_replica(resumed: dict[str, Walk], client: ClientCell) -> None:
    """As often as one was ended."""
    way = resumed[client.name].way
    check_way(way, ANSWER)
    resumes = sum(one.kind == RESUME for one in way.passed)
    asking = sum(len(cell.scenarios) for cell in some_cells((client,), RESUMED))
    assert resumes >= asking, (resumes, asking)
    assert way.broken >= asking, (way.broken, asking)


def check_way(way: Turnstile, kind: str) -> None:
    """No request came to the replica of the one before; all replicas had their share of what belongs to an earlier
    request."""
    assert all(one.replica != other.replica for one, other in pairwise(way.passed))
    shares = Counter(one.replica for one in way.passed if one.kind == kind)
    assert len(shares) == NUMBER, shares
