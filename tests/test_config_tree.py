"""The tree: paths for people, places, plain values."""

import pytest

from gatewright.config_source import read
from gatewright.config_tree import Mark, Problem, dotted, locate, locate_key, plain


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ((), ""),
        (("backends", "files", "args", 1), "backends.files.args[1]"),
        (("servers", "my files"), 'servers."my files"'),
        (("$schema",), "$schema"),
    ],
)
def test_a_path_is_dotted_for_people(path: tuple[str | int, ...], shown: str) -> None:
    """Indexes in brackets, odd keys in quotes."""
    assert dotted(path) == shown


def test_a_problem_reads_like_a_compiler_message() -> None:
    """file:line:column, path if there is one, message."""
    assert str(Problem("f", Mark(2, 3), ("a", "b"), "no")) == "f:2:3: a.b: no"
    assert str(Problem("f", Mark(2, 3), (), "no")) == "f:2:3: no"


def test_the_place_of_a_mapping_is_its_key_and_of_a_scalar_the_value() -> None:
    """What is wrong with a whole mapping is shown at its name."""
    tree = read("a:\n  b:\n    c: 1\n", "f.yaml")
    assert locate(tree, ("a", "b")) == Mark(2, 3)
    assert locate(tree, ("a", "b", "c")) == Mark(3, 8)
    assert locate_key(tree, ("a", "b", "c")) == Mark(3, 5)
    assert locate_key(tree, ("a", "x", "y")) == Mark(1, 1)


def test_plain_forgets_the_places() -> None:
    """Dicts, lists and scalars are left."""
    assert plain(read("a: [1, {b: null}]", "f.yaml")) == {"a": [1, {"b": None}]}
