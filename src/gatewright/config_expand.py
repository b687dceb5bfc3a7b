"""`${...}` in the values of a configuration.

Contract: expands every text value of a tree, never a key; what it produces is not expanded again. `${NAME}` is the
environment variable and must be set, `${NAME:-text}` falls back when it is unset or empty (both as in a shell and in
Claude Code), `${env:NAME}` is the same (as in VS Code and Cursor), `${file:PATH}` is a file's text without its last
line end. `$${` is a literal `${`; a `$` that no `{` follows is itself, so `pa$$word` needs no care. Values that came
from an expansion never appear in a message.
"""

import re
from collections.abc import Mapping as Environ
from dataclasses import dataclass
from pathlib import Path as FilePath

from gatewright.config_tree import Entry, Mapping, Node, Path, Problem, Scalar, Sequence

MAX_FILE_BYTES = 64 * 1024
"""A `${file:...}`: room for a certificate chain; a secret is far smaller."""

# One or more dollars before a brace: each pair is one literal dollar, an odd last one begins a variable.
_DOLLARS = re.compile(r"(\$+)\{")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EDITOR_ONLY = frozenset(
    ["cwd", "pathSeparator", "userHome", "workspaceFolder", "workspaceFolderBasename", "workspaceRoot", "/"]
)


class UnresolvedError(Exception):
    """One `${...}` that has no value; the text is for the person who wrote it."""


@dataclass(frozen=True, slots=True)
class Expanded:
    """The tree after expansion, `templates` (path to the text as written) of what changed, and what failed."""

    tree: Node
    templates: dict[Path, str]
    problems: tuple[Problem, ...]


def expand(tree: Node, *, file: str, environ: Environ[str, str], folder: FilePath) -> Expanded:
    """Expand every text in the tree. Relative `${file:...}` paths start at `folder`. Failed texts stay as they are."""
    templates: dict[Path, str] = {}
    problems: list[Problem] = []

    def walk(node: Node, path: Path) -> Node:
        match node:
            case Sequence():
                return Sequence(node.mark, tuple(walk(item, (*path, n)) for n, item in enumerate(node.items)))
            case Mapping():
                entries = (Entry(old.key, old.mark, walk(old.value, (*path, old.key))) for old in node.entries)
                return Mapping(node.mark, tuple(entries))
            case Scalar(value=str(text)) if "${" in text:
                try:
                    value = expand_text(text, environ, folder)
                except UnresolvedError as error:
                    problems.append(Problem(file, node.mark, path, str(error)))
                    return node
                templates[path] = text
                return Scalar(node.mark, value, value)
            case Scalar():
                return node

    return Expanded(walk(tree, ()), templates, tuple(problems))


def expand_text(text: str, environ: Environ[str, str], folder: FilePath) -> str:
    """One text, expanded. Raises `UnresolvedError` when something in it has no value."""
    parts: list[str] = []
    at = 0
    while found := _DOLLARS.search(text, at):
        dollars = len(found[1])
        parts.append(text[at : found.start()] + "$" * (dollars // 2))
        if dollars % 2 == 0:
            parts.append("{")
            at = found.end()
            continue
        end = text.find("}", found.end())
        if end < 0:
            raise UnresolvedError('"${" has no "}"; write $${ if you mean the characters themselves')
        parts.append(_resolve(text[found.end() : end], environ, folder))
        at = end + 1
    return "".join([*parts, text[at:]])


def _resolve(inner: str, environ: Environ[str, str], folder: FilePath) -> str:
    if inner.startswith("file:"):
        return _file_text(inner.removeprefix("file:"), folder)
    if inner.startswith("input:"):
        name = re.sub(r"\W+", "_", inner.removeprefix("input:")).upper()
        raise UnresolvedError(
            f"VS Code asks a person for ${{{inner}}}; a gateway cannot: write ${{{name}}} and set {name}"
        )
    name, has_default, default = inner.removeprefix("env:").partition(":-")
    if name in _EDITOR_ONLY or name.startswith(("workspaceFolder:", "config:", "command:")):
        raise UnresolvedError(f"${{{inner}}} is known to an editor only; write the path or value itself")
    if not _NAME.fullmatch(name):
        raise UnresolvedError(
            f"${{{inner}}} is not understood: write ${{NAME}}, ${{NAME:-default}} or ${{file:PATH}},"
            " or $${ for the characters themselves"
        )
    value = environ.get(name)
    if has_default:
        return value or default
    if value is None:
        raise UnresolvedError(f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}")
    return value


def _file_text(name: str, folder: FilePath) -> str:
    if not name:
        raise UnresolvedError("${file:} names no file")
    path = folder / name
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
        text = data.decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not UTF-8 text"
        raise UnresolvedError(f"the file {path} cannot be read: {reason}") from None
    if len(data) > MAX_FILE_BYTES:
        raise UnresolvedError(f"the file {path} is larger than {MAX_FILE_BYTES} bytes")
    return text.removesuffix("\n").removesuffix("\r")
