"""Reading YAML and JSON: values, places, doubles, bounds, and nothing but SourceError for any text."""

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.config_source import MAX_DEPTH, SourceError, read
from gatewright.config_tree import Mark, locate, locate_key, plain


def problem(text: str, file: str = "f.yaml") -> str:
    """The first thing wrong with that text."""
    with pytest.raises(SourceError) as caught:
        read(text, file)
    return str(caught.value.problems[0])


class TestYaml:
    def test_words_mean_what_the_core_schema_says(self) -> None:
        """`no` and `on` are words, dates stay text, quotes make text."""
        text = "a: no\nb: true\nc: 010\nd: 1.5e3\ne: '7'\nf: ~\ng: 2026-01-02\nh:\ni: !!str 5\nj: 12:30\n"
        expected = {"a": "no", "b": True, "c": 10, "d": 1500.0, "e": "7", "f": None, "g": "2026-01-02"}
        assert plain(read(text, "f.yaml")) == expected | {"h": None, "i": "5", "j": "12:30"}

    def test_every_value_and_key_knows_its_place(self) -> None:
        """Lines and columns count from one, in characters."""
        tree = read("a:\n  ü: [1, {b: 2}]\n", "f.yaml")
        assert locate(tree, ("a", "ü", 1, "b")) == Mark(2, 14)
        assert locate_key(tree, ("a", "ü")) == Mark(2, 3)
        assert locate(tree, ("a", "nothing", "there")) == Mark(1, 1)

    def test_a_key_given_twice_is_refused_at_the_second(self) -> None:
        """Two readers must not see two configurations."""
        assert problem("a: 1\nb: 2\na: 3\n") == 'f.yaml:3:1: the key "a" stands twice (first in line 1)'

    def test_aliases_and_merge_keys_work(self) -> None:
        """Own keys win over merged ones."""
        text = "base: &b {x: 1, y: 2}\none:\n  <<: *b\n  y: 3\ntwo: *b\nthree: {<<: [*b, {z: 9}]}\n"
        tree = plain(read(text, "f.yaml"))
        assert isinstance(tree, dict)
        assert tree["one"] == {"y": 3, "x": 1}
        assert tree["two"] == {"x": 1, "y": 2}
        assert tree["three"] == {"x": 1, "y": 2, "z": 9}

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("a: *b\n", "f.yaml:1:4: *b refers to nothing"),
            ("a: &b [*b]\n", "f.yaml:1:8: *b refers to nothing"),
            ("a: {<<: 3}\n", "f.yaml:1:9: << takes a mapping"),
            ("a: !python/object:os.system x\n", "the tag !python/object:os.system has no meaning"),
            ("a: 1\n---\nb: 2\n", "f.yaml:2:1: a second document"),
            ("? [a]\n: 1\n", "f.yaml:1:3: a key must be a single word"),
            ("a:\n\tb: 1\n", "indent with spaces, not tabs"),
            ("listen: [::1]:80\n", "put the value in quotes"),
            (
                "a: b: c\n",
                "f.yaml:1:5: this is not YAML: mapping values are not allowed in this context; put the value",
            ),
            ("a: \x01\n", "f.yaml:1:1: this is not YAML"),
            ("[" * 100_000, f"nested deeper than {MAX_DEPTH} levels"),
        ],
    )
    def test_what_cannot_be_read_is_told_with_its_place(self, text: str, told: str) -> None:
        """Each message has the place and says what to do."""
        assert told in problem(text)

    def test_a_billion_laughs_is_refused(self) -> None:
        """Aliases count as what they stand for, in number and in depth."""
        lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 9)]
        assert "more than 50000 values" in problem("\n".join(lines))
        deep = ["l0: &l0 " + "[" * 40 + "]" * 40, "l1: " + "[" * 40 + "*l0" + "]" * 40]
        assert "nested deeper" in problem("\n".join(deep))

    def test_an_empty_file_is_an_empty_mapping(self) -> None:
        """Nothing, or comments only."""
        assert plain(read("", "f.yaml")) == plain(read("# nothing\n", "f.yaml")) == {}


class TestJson:
    def test_comments_trailing_commas_tabs_and_surrogates_are_read(self) -> None:
        """VS Code writes JSON with comments, and JSON escapes are not YAML's."""
        text = '{\n\t// first\n\t"a": [1, 2.5, -3e2, true, null,], /* more */ "b": "\\ud83d\\ude00\\/",\n}\n'
        assert plain(read(text, "f.json")) == {"a": [1, 2.5, -300.0, True, None], "b": "😀/"}

    def test_places_count_from_one(self) -> None:
        """Tabs are one character."""
        tree = read('{\n\t"a": {"b": 1}\n}', "f.json")
        assert locate(tree, ("a", "b")) == Mark(2, 13)
        assert locate_key(tree, ("a", "b")) == Mark(2, 8)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ('{"a": 1, "a": 2}', 'f.json:1:10: the key "a" stands twice'),
            ('{"a": }', "f.json:1:7: this is not JSON: a value is missing here"),
            ('{"a" 1}', '":" is missing here'),
            ('{"a": 1 "b": 2}', '"," or "}" is missing here'),
            ("{a: 1}", "a key in double quotes"),
            ('{"a": 01}', "this is not a value"),
            ('{"a": truely}', "this is not a value"),
            ('{"a": "x\ny"}', "no closing quote in its line"),
            ('{"a": "\\ud83d"}', "half of a surrogate pair"),
            ('{"a": 1} 2', "more text after the end"),
            ('{"a": NaN}', "this is not a value"),
            ("[" * 100_000, "nested deeper"),
            ("{", 'a key in double quotes, or "}", is missing here'),
        ],
    )
    def test_what_cannot_be_read_is_told_with_its_place(self, text: str, told: str) -> None:
        """Each message has the place and says what is missing."""
        assert told in problem(text, "f.json")

    def test_a_text_that_opens_with_a_brace_is_json(self) -> None:
        """For files without a telling name; a YAML name wins."""
        assert plain(read('{"a": "\\/"}', "claude")) == {"a": "/"}
        assert plain(read("{a: 1}", "f.yml")) == {"a": 1}

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
            max_leaves=12,
        ),
        st.booleans(),
    )
    def test_whatever_json_writes_is_read_back(self, value: object, is_ascii: bool) -> None:
        """Round trip through the standard library's writer."""
        text = json.dumps(value, ensure_ascii=is_ascii)
        assert plain(read(text, "f.json")) == value


@settings(max_examples=300)
@given(
    st.text(alphabet=st.sampled_from("ab01.-:{}[],\"'&*!|>%@`#?\n\t \\/~<é\x00$")),
    st.sampled_from(["f.yaml", "f.json"]),
)
def test_any_text_is_read_or_refused_with_source_error(text: str, file: str) -> None:
    """Nothing else ever comes out."""
    with suppress(SourceError):
        plain(read(text, file))
