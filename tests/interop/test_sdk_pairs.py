"""Real clients and real servers: first with each other, then with a gateway between them.

A scenario that fails without the gateway is recorded in `cells.DIRECT_GAPS` with its reason, and is not held against
the gateway; what the specification forbids between two eras is in `cells.FORBIDDEN` with the clause. Everything else
must work through `/mcp/NAME` and through `/mcp`, whatever the eras.
"""

from __future__ import annotations

import pytest

from interop.cells import DIRECT_GAPS, FORBIDDEN, ClientCell, ServerCell
from interop.runs import Runs, describe

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]


def gaps(client: ClientCell, server: ServerCell) -> set[str]:
    """The scenarios of this pair that are known not to work directly."""
    return {scenario for who, where, scenario in DIRECT_GAPS if (who, where) == (client.name, server.name)}


def forbidden(client: ClientCell, server: ServerCell) -> set[str]:
    """The scenarios of this pair that no gateway can carry."""
    return {scenario for era, where, scenario in FORBIDDEN if (era, where) == (client.era, server.name)}


def test_direct_pair_works_without_a_gateway(runs: Runs, client_cell: ClientCell, server_cell: ServerCell) -> None:
    """Client and server get on with each other, apart from the recorded gaps."""
    outcomes = runs.direct(client_cell)[server_cell.name]
    known = gaps(client_cell, server_cell)
    assert outcomes, "no scenario ran"
    failed = [outcome for outcome in outcomes if not outcome.ok and outcome.scenario not in known]
    assert not failed, describe(failed)
    closed = [outcome.scenario for outcome in outcomes if outcome.ok and outcome.scenario in known]
    assert not closed, f"recorded as gaps, but they work: {closed}"


def test_named_endpoint_carries_what_works_directly(
    runs: Runs, client_cell: ClientCell, server_cell: ServerCell
) -> None:
    """At `/mcp/NAME` one server is served with its names as they are."""
    known = gaps(client_cell, server_cell) | forbidden(client_cell, server_cell)
    outcomes = runs.named(client_cell)[server_cell.name]
    failed = [it for it in outcomes if not it.ok and it.scenario not in known]
    assert not failed, describe(failed)
    crossed = [it.scenario for it in outcomes if it.ok and it.scenario in forbidden(client_cell, server_cell)]
    assert not crossed, f"recorded as forbidden, but they work: {crossed}"


def test_merged_endpoint_carries_what_works_directly(
    runs: Runs, client_cell: ClientCell, server_cell: ServerCell
) -> None:
    """At `/mcp` all servers are served over one connection, their names prefixed."""
    known = gaps(client_cell, server_cell) | forbidden(client_cell, server_cell)
    failed = [it for it in runs.merged(client_cell)[server_cell.name] if not it.ok and it.scenario not in known]
    assert not failed, describe(failed)
