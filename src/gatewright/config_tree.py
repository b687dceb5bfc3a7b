"""The tree of a configuration file: values with the place they were written at.

Contract: immutable nodes, pure functions over them, no I/O. Lines and columns count from 1, columns in characters.
A path is a tuple of keys and list indexes from the top of the file.
"""

import re
from dataclasses import dataclass
from typing import TypeAlias

from typing_extensions import override

Path: TypeAlias = tuple[str | int, ...]
Plain: TypeAlias = bool | int | float | str | list["Plain"] | dict[str, "Plain"] | None

_SIMPLE_KEY = re.compile(r"[A-Za-z0-9_$-]+")


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the file."""

    line: int
    column: int


START = Mark(1, 1)


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value. `text` is what stands in the file (without quotes), `value` what it means."""

    mark: Mark
    value: bool | int | float | str | None
    text: str


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    mark: Mark
    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a mapping; `mark` is the place of the key, the value has its own."""

    key: str
    mark: Mark
    value: "Node"


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys with values, in the order of the file; no key twice (the readers see to it)."""

    mark: Mark
    entries: tuple[Entry, ...]

    def find(self, key: str) -> Entry | None:
        """The entry of that key, or None."""
        return next((entry for entry in self.entries if entry.key == key), None)


Node: TypeAlias = Scalar | Sequence | Mapping


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong (or, as a warning, worth knowing) in a file, with what to do about it."""

    file: str
    mark: Mark
    path: Path
    message: str

    @override
    def __str__(self) -> str:
        where = f"{self.file}:{self.mark.line}:{self.mark.column}"
        return f"{where}: {dotted(self.path)}: {self.message}" if self.path else f"{where}: {self.message}"


def dotted(path: Path) -> str:
    """A path for people: `backends.files.args[1]`; keys with other characters are quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _SIMPLE_KEY.fullmatch(part) else f'"{part}"')
    return text


def plain(node: Node) -> Plain:
    """The values alone, as dicts, lists and scalars."""
    match node:
        case Scalar():
            return node.value
        case Sequence():
            return [plain(item) for item in node.items]
        case Mapping():
            return {entry.key: plain(entry.value) for entry in node.entries}


def locate(node: Node, path: Path) -> Mark:
    """The place of the value at `path`, of its key when the value is a mapping or a list; if there is no such
    value, the place of the nearest thing around it."""
    mark = node.mark
    for part in path:
        if isinstance(node, Mapping):
            entry = node.find(str(part))
            if entry is None:
                return mark
            node = entry.value
            mark = node.mark if isinstance(node, Scalar) else entry.mark
        elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
            mark = node.mark
        else:
            return mark
    return mark


def locate_key(tree: Node, path: Path) -> Mark:
    """The place of the key that `path` ends in, or of the nearest thing around it."""
    node = tree
    entry: Entry | None = None
    for part in path:
        entry = node.find(str(part)) if isinstance(node, Mapping) else None
        if entry is None:
            return locate(tree, path)
        node = entry.value
    return entry.mark if entry else tree.mark
