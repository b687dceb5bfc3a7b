"""`${...}`: variables, defaults, files, the escape, and what is said when there is no value."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.config_expand import MAX_FILE_BYTES, UnresolvedError, expand, expand_text
from gatewright.config_source import read
from gatewright.config_tree import plain

HERE = Path(__file__).parent
ENVIRON = {"NAME": "value", "EMPTY": "", "NESTED": "${NAME}"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("${NAME}", "value"),
        ("a ${NAME} b ${NAME}", "a value b value"),
        ("${NAME:-other}", "value"),
        ("${MISSING:-other}", "other"),
        ("${MISSING:-}", ""),
        ("${EMPTY}", ""),
        ("${EMPTY:-other}", "other"),
        ("${env:NAME}", "value"),
        ("${NESTED}", "${NAME}"),
        ("$${NAME}", "${NAME}"),
        ("$$${NAME}", "$value"),
        ("$$$${NAME}", "$${NAME}"),
        ("pa$$word$", "pa$$word$"),
        ("$NAME", "$NAME"),
        ("${MISSING:-http://x:8080/a-b}", "http://x:8080/a-b"),
    ],
)
def test_variables_expand_as_documented(text: str, expanded: str) -> None:
    """As in a shell and in Claude Code; a dollar is special only before a brace."""
    assert expand_text(text, ENVIRON, HERE) == expanded


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("${MISSING}", "the environment variable MISSING is not set"),
        ("${NAME", 'has no "}"'),
        ("${}", "is not understood"),
        ("${a b}", "is not understood"),
        ("${input:api-key}", "write ${API_KEY} and set API_KEY"),
        ("${workspaceFolder}/x", "known to an editor only"),
        ("${file:}", "names no file"),
        ("${file:/does/not/exist}", "the file /does/not/exist cannot be read: No such file or directory"),
    ],
)
def test_what_has_no_value_is_refused_with_advice(text: str, told: str) -> None:
    """The message names the variable and says what to write."""
    with pytest.raises(UnresolvedError) as caught:
        expand_text(text, ENVIRON, HERE)
    assert told in str(caught.value)


def test_a_file_is_read_without_its_last_line_end(tmp_path: Path) -> None:
    """Relative to the configuration; exactly one line end is taken off."""
    (tmp_path / "secret").write_bytes(b"s3cret\r\n")
    (tmp_path / "two").write_bytes(b"x\n\n")
    assert expand_text("Bearer ${file:secret}", {}, tmp_path) == "Bearer s3cret"
    assert expand_text(f"${{file:{tmp_path / 'two'}}}", {}, Path("/")) == "x\n"


def test_a_file_too_large_or_not_text_is_refused(tmp_path: Path) -> None:
    """Bounded, and never guessed at."""
    (tmp_path / "large").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UnresolvedError, match="is larger than"):
        expand_text("${file:large}", {}, tmp_path)
    with pytest.raises(UnresolvedError, match="is not UTF-8 text"):
        expand_text("${file:binary}", {}, tmp_path)


def test_every_text_of_a_tree_is_expanded_and_all_failures_are_told() -> None:
    """Keys stay; templates are kept by path; each failure has its place."""
    tree = read('a: "${NAME}"\n"${NAME}": [1, "${NO}", {b: "x${NO2}"}]\n', "f.yaml")
    done = expand(tree, file="f.yaml", environ=ENVIRON, folder=HERE)
    assert plain(done.tree) == {"a": "value", "${NAME}": [1, "${NO}", {"b": "x${NO2}"}]}
    assert done.templates == {("a",): "${NAME}"}
    assert [(one.mark.line, one.mark.column, one.path) for one in done.problems] == [
        (2, 16, ("${NAME}", 1)),
        (2, 29, ("${NAME}", 2, "b")),
    ]


@given(st.text(alphabet=st.sampled_from("${}:-aN ")))
def test_any_text_expands_or_is_refused(text: str) -> None:
    """Nothing but UnresolvedError; a text without `${` is itself."""
    try:
        expanded = expand_text(text, {"a": "1", "N": "2"}, HERE)
    except UnresolvedError:
        return
    if "${" not in text:
        assert expanded == text
