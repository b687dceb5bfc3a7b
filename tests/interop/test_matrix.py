"""The matrix of `matrix.py`, cell by cell, through a gateway between real SDK clients and real servers.

`docs/eras.md` shows it. A cell passes, or the specification forbids it and the clause is named.
"""

from __future__ import annotations

import pytest

from interop.cells import SERVERS
from interop.matrix import Cell, cells
from interop.plans import REVISION
from interop.runs import Runs, describe

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

STARTED = {server.name for server in SERVERS}


@pytest.mark.parametrize("cell", list(cells()), ids=lambda cell: cell.id)
def test_cell(runs: Runs, cell: Cell) -> None:
    """Every scenario of the cell passes; a forbidden cell has none, because no client and server could do it."""
    if cell.backend.name not in STARTED:
        pytest.skip("not among INTEROP_SERVERS")
    planned = {scenario["name"] for scenario in cell.backend.through(cell.client.era, "", "")}
    if cell.forbidden:
        assert not planned & set(cell.scenarios), "it is planned, so it cannot be forbidden"
        return
    assert planned >= set(cell.scenarios)
    outcomes = {one.scenario: one for one in runs.named(cell.client)[cell.backend.name]}
    connected = outcomes["connect"]
    assert connected.ok, describe([connected])
    assert connected.detail == REVISION[cell.client.era]
    failed = [outcomes[name] for name in cell.scenarios if not outcomes[name].ok]
    if cell.open:
        assert failed, f"recorded as open, but it passes: {cell.open}"
        return
    assert not failed, describe(failed)
