"""Reading YAML and JSON text into a tree that knows its places.

Contract: `read` returns a tree or raises `SourceError`, nothing else, for any text; it never runs constructors, never
opens anything, and its cost is bounded (size, depth, and nodes after aliases are followed). Keys given twice are
refused in both formats: two readers of one file must not see two configurations.

YAML is read from libyaml's *events*: its own tree builder recurses in C and dies on deep nesting. Plain words follow
the YAML 1.2 core schema (`no` and `on` are words, `010` is ten, there are no dates), because `no` as a country or a
tool name must not become false. Anchors, aliases and `<<` work. JSON gets its own reader since YAML is not quite a
superset of it (surrogate escapes, long keys, tabs); comments and trailing commas are allowed, as in VS Code's files.
"""

import json
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import NoReturn

import yaml

from gatewright.config_tree import START, Entry, Mapping, Mark, Node, Problem, Scalar, Sequence

MAX_DEPTH = 64
"""Levels of nesting; a configuration needs six."""
MAX_NODES = 50_000
"""Values after aliases are followed: a few thousand backends, and no "billion laughs"."""

_INT = re.compile(r"[-+]?[0-9]{1,30}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]{1,30}|[0-9]{1,30}(?:\.[0-9]{0,30})?)(?:[eE][-+]?[0-9]{1,3})?")
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | {
    word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")
}
_CORE_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")}
_STRING_TAG = "tag:yaml.org,2002:str"


class SourceError(Exception):
    """The text cannot be read. Carries every `Problem` found up to where reading stopped."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def read(text: str, file: str) -> Node:
    """The tree of `text`; `file` is its name for messages, and a name in .json or a text that opens with `{` is JSON.

    Raises `SourceError`.
    """
    is_yaml = file.endswith((".yaml", ".yml"))
    is_json = not is_yaml and (file.endswith((".json", ".jsonc")) or text.lstrip()[:1] == "{")
    return _JsonReader(text, file).read() if is_json else _YamlReader(file).read(text)


def _mapping(file: str, mark: Mark, entries: list[Entry], merged: list[Entry], problems: list[Problem]) -> Mapping:
    """A mapping without doubles: doubles among `entries` are problems, `merged` ones only fill what is absent."""
    kept: dict[str, Entry] = {}
    for entry in entries:
        if entry.key in kept:
            line = kept[entry.key].mark.line
            problems.append(Problem(file, entry.mark, (), f'the key "{entry.key}" stands twice (first in line {line})'))
        kept.setdefault(entry.key, entry)
    for entry in merged:
        kept.setdefault(entry.key, entry)
    return Mapping(mark, tuple(kept.values()))


# --- YAML


@dataclass(slots=True)
class _Frame:
    """A list or mapping that is being read."""

    mark: Mark
    anchor: str | None
    is_mapping: bool
    items: list[Node] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    merged: list[Entry] = field(default_factory=list)
    key: tuple[str, Mark] | None = None
    size: "_Size" = field(default_factory=lambda: _Size(1, 0))


@dataclass(frozen=True, slots=True)
class _Size:
    """Of a node with its aliases followed: how many values, and how many levels below it."""

    values: int
    levels: int


class _YamlReader:
    """Builds the tree from events with a stack of its own."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.stack: list[_Frame] = []
        self.anchors: dict[str, tuple[Node, _Size]] = {}
        self.problems: list[Problem] = []
        self.top: Node | None = None

    def read(self, text: str) -> Node:
        try:
            for event in yaml.parse(text, Loader=yaml.CSafeLoader):
                self._take(event)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = Mark(mark.line + 1, mark.column + 1) if mark else START
            self._fail(place, f"this is not YAML: {error.problem or error.context}{_yaml_hint(text, place)}")
        except yaml.YAMLError as error:
            self._fail(START, f"this is not YAML: {str(error).splitlines()[0]}")
        if self.problems:
            raise SourceError(tuple(self.problems))
        return self.top if self.top is not None else Mapping(START, ())

    def _fail(self, mark: Mark, message: str) -> NoReturn:
        raise SourceError((*self.problems, Problem(self.file, mark, (), message)))

    def _take(self, event: yaml.Event) -> None:
        mark = Mark(event.start_mark.line + 1, event.start_mark.column + 1) if event.start_mark else START
        match event:
            case yaml.DocumentStartEvent() if self.top is not None:
                self._fail(mark, "a second document begins here; one file holds one configuration")
            case yaml.ScalarEvent():
                self._check_tag(mark, event.tag)
                self._add(_scalar(mark, event), _Size(1, 0), event.anchor)
            case yaml.AliasEvent():
                if (known := self.anchors.get(event.anchor or "")) is None:
                    self._fail(mark, f"*{event.anchor} refers to nothing that stands complete above it")
                self._add(*known, None, at=mark)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._check_tag(mark, event.tag)
                if len(self.stack) >= MAX_DEPTH:
                    self._fail(mark, f"nested deeper than {MAX_DEPTH} levels")
                self.stack.append(_Frame(mark, event.anchor, isinstance(event, yaml.MappingStartEvent)))
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._close()

    def _check_tag(self, mark: Mark, tag: str | None) -> None:
        if tag is not None and tag != "!" and tag not in _CORE_TAGS:
            self._fail(mark, f"the tag {tag} has no meaning in a configuration")

    def _close(self) -> None:
        frame = self.stack.pop()
        node: Node
        if frame.is_mapping:
            node = _mapping(self.file, frame.mark, frame.entries, frame.merged, self.problems)
        else:
            node = Sequence(frame.mark, tuple(frame.items))
        self._add(node, frame.size, frame.anchor)

    def _add(self, node: Node, size: _Size, anchor: str | None, at: Mark | None = None) -> None:
        """Put a finished node where it belongs; `at` is where an alias to it stands."""
        mark = at or node.mark
        if anchor is not None:
            self.anchors[anchor] = (node, size)
        if not self.stack:
            self.top = node
            return
        frame = self.stack[-1]
        frame.size = _Size(frame.size.values + size.values, max(frame.size.levels, size.levels + 1))
        if frame.size.values > MAX_NODES or len(self.stack) + size.levels > MAX_DEPTH:
            self._fail(mark, f"more than {MAX_NODES} values, or nested deeper than {MAX_DEPTH} levels")
        if not frame.is_mapping:
            frame.items.append(node)
        elif frame.key is None:
            if not isinstance(node, Scalar):
                self._fail(mark, "a key must be a single word or text")
            frame.key = (node.text, mark)
        else:
            (key, key_mark), frame.key = frame.key, None
            if key == "<<":
                frame.merged += self._merged(mark, node)
            else:
                frame.entries.append(Entry(key, key_mark, node))

    def _merged(self, mark: Mark, node: Node) -> list[Entry]:
        sources = node.items if isinstance(node, Sequence) else (node,)
        entries: list[Entry] = []
        for source in sources:
            if not isinstance(source, Mapping):
                self._fail(mark, "<< takes a mapping, or a list of mappings, to merge in")
            entries += source.entries
        return entries


def _scalar(mark: Mark, event: yaml.ScalarEvent) -> Scalar:
    text = event.value
    is_plain = event.implicit[0] and event.tag != _STRING_TAG
    return Scalar(mark, _meaning(text) if is_plain else text, text)


def _meaning(text: str) -> bool | int | float | str | None:
    """What an unquoted word means, by the YAML 1.2 core schema without octal and hexadecimal."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _yaml_hint(text: str, mark: Mark) -> str:
    """What most often causes a syntax error, read off the line it is in."""
    lines = text.splitlines()
    line = lines[mark.line - 1] if mark.line <= len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "; indent with spaces, not tabs"
    if re.search(r":\s+[\[{@`*&!%]", line) or re.search(r":\s.*:\s", line):
        return '; put the value in quotes, "like this"'
    return ""


# --- JSON, with comments and trailing commas

_SPACE = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*(?s:.*?)\*/)*")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*"')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,30})(?:\.[0-9]{1,30})?(?:[eE][-+]?[0-9]{1,3})?(?![0-9A-Za-z.])")
_LITERAL = re.compile(r"(?:true|false|null)(?![0-9A-Za-z_])")


class _JsonReader:
    """Recursive descent, at most `MAX_DEPTH` deep."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.at = 0
        self.nodes = 0
        self.problems: list[Problem] = []
        self.line_starts = [0, *(found.end() for found in re.finditer("\n", text))]

    def read(self) -> Node:
        self._skip()
        if self.at == len(self.text):
            return Mapping(START, ())
        node = self._value(0)
        self._skip()
        if self.at < len(self.text):
            self._fail("there is more text after the end of the JSON value")
        if self.problems:
            raise SourceError(tuple(self.problems))
        return node

    def _mark(self, at: int) -> Mark:
        line = bisect_right(self.line_starts, at)
        return Mark(line, at - self.line_starts[line - 1] + 1)

    def _fail(self, message: str) -> NoReturn:
        found = Problem(self.file, self._mark(self.at), (), f"this is not JSON: {message}")
        raise SourceError((*self.problems, found))

    def _skip(self) -> None:
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def _next(self) -> str:
        self._skip()
        return self.text[self.at : self.at + 1]

    def _value(self, depth: int) -> Node:
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            self._fail(f"nested deeper than {MAX_DEPTH} levels or more than {MAX_NODES} values")
        first = self._next()
        mark = self._mark(self.at)
        if first == "{":
            return self._object(mark, depth)
        if first == "[":
            return self._array(mark, depth)
        if first == '"':
            text = self._string()
            return Scalar(mark, text, text)
        found = _NUMBER.match(self.text, self.at) or _LITERAL.match(self.text, self.at)
        if found is None:
            self._fail("a value is missing here" if first in ("", ",", "]", "}") else "this is not a value")
        self.at = found.end()
        return Scalar(mark, json.loads(found[0]), found[0])

    def _string(self) -> str:
        found = _STRING.match(self.text, self.at)
        if found is None:
            self._fail("this text has no closing quote in its line, or a wrong escape")
        text = json.loads(found[0])
        if not isinstance(text, str) or any("\ud800" <= char <= "\udfff" for char in text):
            self._fail("this text has half of a surrogate pair")
        self.at = found.end()
        return text

    def _object(self, mark: Mark, depth: int) -> Mapping:
        entries: list[Entry] = []
        self.at += 1
        while (first := self._next()) != "}":
            if first != '"':
                self._fail('a key in double quotes, or "}", is missing here')
            key_mark = self._mark(self.at)
            key = self._string()
            if self._next() != ":":
                self._fail('":" is missing here')
            self.at += 1
            entries.append(Entry(key, key_mark, self._value(depth + 1)))
            self._separate("}")
        self.at += 1
        return _mapping(self.file, mark, entries, [], self.problems)

    def _array(self, mark: Mark, depth: int) -> Sequence:
        items: list[Node] = []
        self.at += 1
        while self._next() != "]":
            items.append(self._value(depth + 1))
            self._separate("]")
        self.at += 1
        return Sequence(mark, tuple(items))

    def _separate(self, end: str) -> None:
        found = self._next()
        if found == ",":
            self.at += 1
        elif found != end:
            self._fail(f'"," or "{end}" is missing here')
