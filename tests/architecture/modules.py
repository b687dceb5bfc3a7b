"""The source as data: every module parsed once, its imports told apart. Imports nothing of the package itself."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
PACKAGE = "gatewright"


@dataclass(frozen=True)
class Import:
    """One first-party or foreign module that an import statement names."""

    target: str
    """The dotted module; for `from package import module`, the module."""
    line: int
    is_for_typing: bool
    is_in_function: bool


@dataclass(frozen=True)
class Module:
    """One Python file."""

    name: str
    """Dotted, below the package: `backend.http`; empty for the package's own `__init__`."""
    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed file; every node knows its parent as `parent`."""
        tree = ast.parse(self.text, str(self.path))
        for node in ast.walk(tree):
            for child in ast.iter_child_nodes(node):
                child.parent = node  # type: ignore[attr-defined]
        return tree

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """Every import in the file."""
        return tuple(_imports(self.tree))

    @property
    def folder(self) -> str:
        """The first part of the name: `backend` for `backend.http`, `app` for `app`."""
        return self.name.partition(".")[0]

    def at(self, line: int, what: str) -> str:
        """A finding, as `path:line: what`."""
        where = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        return f"{where}:{line}: {what}"


def parse(name: str, text: str) -> Module:
    """A module that is not a file, for tests of the rules."""
    return Module(name, Path(f"{name.replace('.', '/')}.py"), text)


def read(folder: Path, package: str = "") -> list[Module]:
    """Every module below a folder, in order of path."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        if "node_modules" in path.parts:
            continue
        parts = path.relative_to(folder / package).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(name, path, path.read_text(encoding="utf-8")))
    return found


def ancestors(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes around a node, from the inside."""
    while (parent := getattr(node, "parent", None)) is not None:
        yield parent
        node = parent


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def code_lines(text: str) -> frozenset[int]:
    """The lines that hold code: not blank, not only a comment."""
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in silent:
            lines.update(range(token.start[0], token.end[0] + 1))
    return frozenset(lines)


def _imports(tree: ast.Module) -> Iterator[Import]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        around = list(ancestors(node))
        is_in_function = any(isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) for one in around)
        is_for_typing = any(isinstance(one, ast.If) and "TYPE_CHECKING" in ast.unparse(one.test) for one in around)
        for target in _targets(node):
            yield Import(target, node.lineno, is_for_typing, is_in_function)


def _targets(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    origin = "." * node.level + (node.module or "")
    folder = SOURCE.joinpath(*origin.split("."))
    if origin.split(".")[0] == PACKAGE and folder.is_dir():
        yield from (f"{origin}.{alias.name}" for alias in node.names)
    else:
        yield origin
