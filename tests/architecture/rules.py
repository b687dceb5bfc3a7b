"""The rules that hold the shape of the code, each a function from a module to what breaks it there.

A finding is `path:line: what`. `test_architecture.py` applies them to the repository; `test_rules.py` shows that each
sees what it is for.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from architecture.modules import PACKAGE, Module, ancestors, code_lines, functions

LAYERS: tuple[tuple[str, ...], ...] = (
    ("call", "errors", "secret", "background", "outbox", "pieces", "telemetry"),  # the vocabulary of all
    ("protocol", "settings"),  # settings: backend.settings, inbound.settings and so on, of which config is composed
    ("stores",),
    ("backend", "audit", "identity"),
    ("routing",),
    ("policy",),
    ("inbound", "admin"),
    ("config",),  # config.py and config_*.py
    ("app",),
    ("cli",),
)
"""From the bottom up: a module imports from its own part and from layers below it, and from nowhere else."""
APART = frozenset({"demo_servers"})
"""Programs of their own that the package carries: they import nothing of it, and it reaches them by name only."""

MAX_CODE_LINES = 50
NOT_SANS_IO = frozenset(
    [
        "asyncio",
        "anyio",
        "concurrent",
        "contextvars",
        "datetime",
        "http",
        "io",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "queue",
        "random",
        "requests",
        "secrets",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "ssl",
        "structlog",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "urllib.request",
        "uvicorn",
        "uvloop",
    ]
)
ERA_WORDS = frozenset({"modern", "handshake"})
ERA_SETS = frozenset({"MODERN", "HANDSHAKE"})
REVISION = re.compile(r"20\d\d-\d\d-\d\d")
CONTAINERS = frozenset(
    [
        "list",
        "dict",
        "set",
        "bytearray",
        "deque",
        "defaultdict",
        "OrderedDict",
        "Counter",
        "ChainMap",
        "WeakKeyDictionary",
        "WeakValueDictionary",
        "WeakSet",
        "count",
        "cycle",
    ]
)
MUTATORS = frozenset(
    [
        "append",
        "add",
        "update",
        "extend",
        "insert",
        "remove",
        "discard",
        "pop",
        "popitem",
        "clear",
        "setdefault",
        "appendleft",
        "popleft",
        "sort",
        "reverse",
    ]
)


def part_of(name: str) -> str:
    """The part a module belongs to in `LAYERS`."""
    folder, _, rest = name.partition(".")
    if rest == "settings":
        return "settings"
    return "config" if folder.startswith("config_") else folder


def import_direction(module: Module) -> Iterator[str]:
    """Imports point one way. Only `call` may name types of `protocol`, for annotations."""
    own = part_of(module.name)
    levels = {part: level for level, parts in enumerate(LAYERS) for part in parts}
    if own not in levels and own not in APART and module.name:
        yield module.at(1, f"{own} has no place in LAYERS")
        return
    for one in module.imports:
        package, _, target = one.target.partition(".")
        if package != PACKAGE or part_of(target) == own != "settings":
            continue
        part = part_of(target)
        if module.name == "call" and one.is_for_typing and part == "protocol":
            continue
        if own in APART or part in APART or part not in levels or levels[part] >= levels[own]:
            yield module.at(one.line, f"{module.name} imports {target}: {own} may not import {part}")


def function_size(module: Module) -> Iterator[str]:
    """A function has at most 50 lines of code: without its docstring, comments and empty lines."""
    code = code_lines(module.text)
    for node in functions(module.tree):
        docstring = node.body[0] if ast.get_docstring(node, clean=False) is not None else None
        silent = range(docstring.lineno, (docstring.end_lineno or 0) + 1) if docstring is not None else range(0)
        size = sum(line in code and line not in silent for line in range(node.lineno, (node.end_lineno or 0) + 1))
        if size > MAX_CODE_LINES:
            yield module.at(node.lineno, f"{node.name} has {size} lines of code")


def sans_io(module: Module) -> Iterator[str]:
    """Protocol code does no I/O, reads no clock, logs nothing and never waits."""
    for one in module.imports:
        if one.target in NOT_SANS_IO or one.target.partition(".")[0] in NOT_SANS_IO:
            yield module.at(one.line, f"imports {one.target}")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield module.at(node.lineno, "is async")
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("open", "print", "input")
        ):
            yield module.at(node.lineno, f"calls {node.func.id}")


def module_state(module: Module) -> Iterator[str]:
    """Nothing at module level changes: no `global`, containers are constants, and constants are left alone.

    A pure function of `protocol` may remember a bounded number of its results: nobody can tell.
    """
    constants: set[str | None] = set()
    for node in module.tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not _is_container(node.value):
            continue
        is_final = isinstance(node, ast.AnnAssign) and "Final" in ast.unparse(node.annotation)
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            name = ast.unparse(target)
            constants.add(name)
            if not is_final and name.strip("_") != name.strip("_").upper() and name != "__all__":
                yield module.at(node.lineno, f"{name} is a container, neither Final nor in upper case")
    for inner in ast.walk(module.tree):
        if isinstance(inner, ast.Global):
            yield module.at(inner.lineno, f"global {', '.join(inner.names)}")
        elif (changed := _mutated(inner)) in constants:
            yield module.at(inner.lineno, f"changes {changed}")  # type: ignore[attr-defined]
        elif isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in inner.decorator_list:
                said = ast.unparse(decorator)
                is_bounded_memo = module.folder == "protocol" and re.search(r"lru_cache\(maxsize=(?!None)\w+\)", said)
                if re.search(r"\b(lru_cache|cache)\b", said) and not is_bounded_memo:
                    yield module.at(inner.lineno, f"{inner.name} keeps a cache for the whole process")


def class_state(module: Module) -> Iterator[str]:
    """A class body holds no container that all instances would share, unless it says that it is a constant."""
    for owner in (node for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)):
        for node in owner.body:
            if not isinstance(node, ast.Assign | ast.AnnAssign) or not _is_container(node.value):
                continue
            if (
                any("Struct" in ast.unparse(base) for base in owner.bases)
                and ast.unparse(node.value or owner) in "[]{}"
            ):
                continue  # msgspec copies an empty default for every instance
            marked = isinstance(node, ast.AnnAssign) and re.search(
                r"\b(ClassVar|Final)\b", ast.unparse(node.annotation)
            )
            names = [ast.unparse(one) for one in (node.targets if isinstance(node, ast.Assign) else [node.target])]
            if not marked and not all(name == "__slots__" or name == name.upper() for name in names):
                yield module.at(node.lineno, f"{', '.join(names)} is shared by all instances")


def late_imports(module: Module) -> Iterator[str]:
    """First-party imports stand at the top, so that what a module needs can be read there."""
    for one in module.imports:
        if one.is_in_function and one.target.partition(".")[0] == PACKAGE:
            yield module.at(one.line, f"imports {one.target} in a function")


def loose_tasks(module: Module) -> Iterator[str]:
    """Tasks belong to a task group: nothing is started that nobody waits for."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.module == "asyncio":
            for alias in node.names:
                if alias.name in ("create_task", "ensure_future"):
                    yield module.at(node.lineno, f"imports asyncio.{alias.name}")
        if isinstance(node, ast.Attribute) and node.attr in ("create_task", "ensure_future"):
            owner = ast.unparse(node.value)
            if owner == "asyncio" or "loop" in owner.lower():
                yield module.at(node.lineno, f"{owner}.{node.attr}")


def broad_excepts(module: Module) -> Iterator[str]:
    """Whoever catches everything either raises it on or stands at the outer edge, where a bug ends one request."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = "everything" if node.type is None else ast.unparse(node.type)
        is_broad = node.type is None or re.search(r"\b(Base)?Exception\b", caught) is not None
        if is_broad and not _raises_on(node):
            yield module.at(node.lineno, f"catches {caught} and does not raise it on")


def bare_package(module: Module) -> Iterator[str]:
    """An `__init__` is one docstring: things are imported from where they are defined."""
    if module.path.name != "__init__.py":
        return
    if ast.get_docstring(module.tree) is None or len(module.tree.body) != 1:
        yield module.at(1, "must be one docstring and nothing else")


def opens_with_contract(module: Module) -> Iterator[str]:
    """Every module says first what it is for."""
    if not ast.get_docstring(module.tree):
        yield module.at(1, "has no docstring")


def era_branches(module: Module) -> Iterator[str]:
    """Which era a message belongs to is decided in `protocol`: elsewhere nothing branches on an era or a revision."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            is_presence = all(isinstance(op, ast.Is | ast.IsNot) for op in node.ops)
            if not is_presence and any(_is_era(side) for side in sides):
                yield module.at(node.lineno, f"branches on an era: {ast.unparse(node)}")
        elif isinstance(node, ast.MatchValue) and _is_era(node.value):
            yield module.at(node.lineno, f"branches on an era: {ast.unparse(node)}")


def _is_era(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value in ERA_WORDS or REVISION.fullmatch(node.value) is not None
    if isinstance(node, ast.Attribute):
        return node.attr in {"era", *ERA_SETS}
    return isinstance(node, ast.Name) and (
        node.id in {"era", *ERA_SETS} or node.id.startswith(("MODERN_2", "HANDSHAKE_2"))
    )


def _is_container(node: ast.expr | None) -> bool:
    if isinstance(node, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp):
        return True
    return isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in CONTAINERS


def _mutated(node: ast.AST) -> str | None:
    """The plain name that a node changes in place, inside a function."""
    if not any(isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) for one in ancestors(node)):
        return None
    if (
        isinstance(node, ast.Subscript)
        and isinstance(node.ctx, ast.Store | ast.Del)
        and isinstance(node.value, ast.Name)
    ):
        return node.value.id
    is_method = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS
    if is_method and isinstance(node.func.value, ast.Name):  # type: ignore[attr-defined]
        return str(node.func.value.id)  # type: ignore[attr-defined]
    return None


def _raises_on(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    while isinstance(last, ast.With | ast.AsyncWith):
        last = last.body[-1]
    return isinstance(last, ast.Raise)
