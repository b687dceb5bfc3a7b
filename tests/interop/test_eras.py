"""`docs/eras.md` says what the data say, and names tests that exist."""

from __future__ import annotations

import ast

from interop.eras import DOCUMENT, ROOT, TRANSPORTS, rendered
from interop.matrix import BACKEND_TITLES, CLIENT_TITLES, FEATURES, FORBIDDEN, OPEN, cells


def test_the_document_is_up_to_date() -> None:
    """If not: `cd tests && python -m interop.eras`."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == rendered(text)


def test_every_test_that_is_shown_exists() -> None:
    """The file, and the function in it."""
    for test in {test for row in TRANSPORTS.values() for one in row for test in one}:
        path, _, name = test.partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_pair_of_transports_is_shown() -> None:
    """Four transports of clients, and five places of backends."""
    assert {len(row) for row in TRANSPORTS.values()} == {5}
    assert all(one for row in TRANSPORTS.values() for one in row)


def test_the_matrix_is_whole() -> None:
    """Every client with every backend and every feature, each under an id of its own; reasons belong to cells."""
    found = list(cells())
    assert len({cell.id for cell in found}) == len(CLIENT_TITLES) * len(BACKEND_TITLES) * len(FEATURES)
    assert {(cell.backend.name, cell.feature) for cell in found} >= FORBIDDEN.keys()
    assert {(cell.client.era, cell.backend.name, cell.feature) for cell in found} >= OPEN.keys()
    assert not any(cell.forbidden and cell.open for cell in found)
