"""The table of clauses holds both ways: every clause has a test or a reason, every test names a clause that exists."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from spec.clauses import CLAUSES, ELSEWHERE, GAPS, TESTS, holders, named

HELD = holders()
HERE = Path(__file__).parent


@pytest.mark.parametrize("clause", CLAUSES)
def test_a_clause_is_held_by_a_test_or_says_why_not(clause: str) -> None:
    """Neither leaves a hole, both together would hide one."""
    assert (clause in HELD) != (clause in GAPS), HELD.get(clause, "no test names it")


def test_every_id_that_a_test_names_is_a_clause() -> None:
    """A mistyped id would count for nothing."""
    assert set(HELD) <= set(CLAUSES)
    assert set(GAPS) <= set(CLAUSES)


@pytest.mark.parametrize("path", sorted(HERE.glob("test_*.py")), ids=lambda path: path.stem)
def test_every_test_here_names_its_clause(path: Path) -> None:
    """This folder is for the specification alone."""
    if path == Path(__file__):
        return
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
            assert named(ast.get_docstring(node) or ""), f"{path.name}::{node.name}"


@pytest.mark.parametrize("test", sorted({test for tests in ELSEWHERE.values() for test in tests}))
def test_a_test_elsewhere_is_there(test: str) -> None:
    """A test that was renamed holds nothing any more."""
    path, _, name = test.partition("::")
    assert f"def {name}(" in (TESTS.parent / path).read_text()


def test_ids_are_read_singly_and_in_ranges() -> None:
    """As docstrings write them."""
    assert named("S-05: one. And S-10 to S-12, not RS-1 or S-x.") == ["S-05", "S-10", "S-11", "S-12"]
