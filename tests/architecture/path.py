"""The request path as docs/architecture.md tells it: a table of steps, each with its place in the source.

A row has a number, one or more places (`module:qualname`; after the first, what stands there in the other era or over
another transport; a module alone is one that the step runs through), one or more calls by which they hand over, and
what is done there.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from architecture.modules import Module, functions

ROW = re.compile(r"^\| (\d+) \| (.*?) \| (.*?) \| .* \|$")
HELPER = re.compile(r"`([\w.]+)`")
CALL = re.compile(r"`([\w.]+)\(")
PLACE = re.compile(r"`([\w.]+):([\w.]+)`")


@dataclass(frozen=True)
class Place:
    """A class or function of the source: `backend.http` and `HttpLink.exchange`."""

    module: str
    qualname: str

    def verbs(self, modules: list[Module]) -> set[str]:
        """The names that a call of it may end in: its own, or those of the methods of a class."""
        node = self.node(modules)
        if isinstance(node, ast.ClassDef):
            return {one.name for one in functions(node)}
        return {self.qualname.rpartition(".")[2]}

    def node(self, modules: list[Module]) -> ast.AST | None:
        """Its definition; None when there is none."""
        found: ast.AST | None = next((module.tree for module in modules if module.name == self.module), None)
        for name in self.qualname.split("."):
            kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
            body = getattr(found, "body", [])
            found = next((node for node in body if isinstance(node, kinds) and node.name == name), None)
        return found

    @override
    def __str__(self) -> str:
        return f"{self.module}:{self.qualname}"


@dataclass(frozen=True)
class Step:
    """One row of the table."""

    number: int
    places: tuple[Place, ...]
    helpers: tuple[str, ...]
    """Other modules that the step runs through."""
    calls: frozenset[str]
    """What is called to hand over, as the source writes it, without the arguments."""


def documented(path: Path) -> list[Step]:
    """The steps in a document, in its order."""
    steps = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = ROW.match(line)
        places = tuple(Place(*found) for found in PLACE.findall(row[2])) if row is not None else ()
        if row is not None and places:
            steps.append(Step(int(row[1]), places, tuple(HELPER.findall(row[2])), frozenset(CALL.findall(row[3]))))
    return steps
