"""Each rule sees what it is for, and lets pass what it should."""

from __future__ import annotations

import pytest

from architecture import rules
from architecture.modules import parse
from architecture.rules import part_of
from test_architecture import Rule

LONG = "def f():\n" + "    x = 1\n" * 50
LONG_BY_WORDS = 'def f():\n    """' + "words\n" * 60 + '    """\n' + "    # why\n\n" * 60

BROKEN: list[tuple[Rule, str, str]] = [
    (rules.import_direction, "backend.http", "from gatewright.routing.catalog import split"),
    (rules.import_direction, "backend.http", "from gatewright.routing import catalog"),
    (rules.import_direction, "protocol.sse", "import gatewright.call, gatewright.backend.base"),
    (rules.import_direction, "errors", "from gatewright.call import Call"),
    (rules.import_direction, "call", "from gatewright.protocol.methods import Method"),
    (rules.import_direction, "call", "if TYPE_CHECKING:\n    from gatewright.backend.base import Link"),
    (rules.import_direction, "backend.base", "if TYPE_CHECKING:\n    from gatewright.config import Config"),
    (rules.import_direction, "backend.settings", "from gatewright.protocol import jsonrpc"),
    (rules.import_direction, "backend.settings", "from gatewright.inbound.settings import Limits"),
    (rules.import_direction, "inbound.http", "from gatewright.admin.pages import page"),
    (rules.import_direction, "stores.redis", "from gatewright.audit.record import Record"),
    (rules.import_direction, "config_expand", "from gatewright.app import Gateway"),
    (rules.import_direction, "demo_servers.clock", "from gatewright.errors import ProtocolError"),
    (rules.import_direction, "cli.demo", "from gatewright.demo_servers import clock"),
    (rules.import_direction, "helpers", ""),
    (rules.function_size, "app", LONG),
    (rules.function_size, "app", "class A:\n    async " + LONG.replace("\n", "\n    ")),
    (rules.sans_io, "protocol.sse", "import asyncio"),
    (rules.sans_io, "protocol.sse", "from time import monotonic"),
    (rules.sans_io, "protocol.sse", "def f():\n    from urllib.request import urlopen"),
    (rules.sans_io, "protocol.sse", "async def f(): ..."),
    (rules.sans_io, "protocol.sse", "def f():\n    print(1)"),
    (rules.module_state, "app", "cache = {}"),
    (rules.module_state, "app", "cache: dict[str, int] = dict()"),
    (rules.module_state, "app", "ids = itertools.count(1)"),
    (rules.module_state, "app", "count = 0\ndef f():\n    global count"),
    (rules.module_state, "app", "CACHE = {}\ndef f():\n    CACHE['a'] = 1"),
    (rules.module_state, "app", "SEEN: Final = set()\ndef f():\n    SEEN.add(1)"),
    (rules.module_state, "app", "SEEN: Final = {}\ndef f():\n    del SEEN[1]"),
    (rules.module_state, "app", "@functools.lru_cache(maxsize=9)\ndef f(x): ..."),
    (rules.module_state, "protocol.sse", "@functools.cache\ndef f(x): ..."),
    (rules.module_state, "protocol.sse", "@lru_cache(maxsize=None)\ndef f(x): ..."),
    (rules.class_state, "app", "class A:\n    seen = []"),
    (rules.class_state, "app", "class A:\n    seen: dict[str, int] = {}"),
    (rules.late_imports, "app", "def f():\n    from gatewright.errors import GatewayError"),
    (rules.late_imports, "app", "async def f():\n    import gatewright.errors"),
    (rules.loose_tasks, "app", "asyncio.create_task(f())"),
    (rules.loose_tasks, "app", "start = asyncio.ensure_future"),
    (rules.loose_tasks, "app", "from asyncio import create_task"),
    (rules.loose_tasks, "app", "self._loop.create_task(f())"),
    (rules.loose_tasks, "app", "asyncio.get_running_loop().create_task(f())"),
    (rules.broad_excepts, "app", "try: f()\nexcept Exception: pass"),
    (rules.broad_excepts, "app", "try: f()\nexcept: pass"),
    (rules.broad_excepts, "app", "try: f()\nexcept (OSError, BaseException) as error: log(error)"),
    (rules.opens_with_contract, "app", "import os"),
    (rules.era_branches, "routing.router", "if era == 'modern': pass"),
    (rules.era_branches, "routing.router", "x = 1 if client.revision.era != other else 2"),
    (rules.era_branches, "routing.router", "if version >= '2025-06-18': pass"),
    (rules.era_branches, "routing.router", "if version in MODERN: pass"),
    (rules.era_branches, "routing.router", "match era:\n    case 'handshake': pass"),
]

KEPT: list[tuple[Rule, str, str]] = [
    (rules.import_direction, "call", "if TYPE_CHECKING:\n    from gatewright.protocol.methods import Method"),
    (rules.import_direction, "routing.router", "from gatewright.backend.backend import McpBackend"),
    (rules.import_direction, "config", "from gatewright.inbound.settings import Limits"),
    (rules.import_direction, "config", "from gatewright.config_tree import Node"),
    (rules.import_direction, "cli.demo", "import asyncio\nfrom gatewright.app import Gateway"),
    (rules.import_direction, "demo_servers.clock", "from gatewright.demo_servers.server import Server"),
    (rules.function_size, "app", LONG.replace("    x = 1\n", "", 1)),
    (rules.function_size, "app", LONG_BY_WORDS),
    (rules.sans_io, "protocol.sse", "import msgspec\nfrom urllib.parse import quote"),
    (
        rules.module_state,
        "app",
        "TABLE = {1: 2}\nKINDS: Final = [1]\n__all__ = []\ndef f():\n    seen = []\n    seen.append(1)",
    ),
    (
        rules.class_state,
        "app",
        "class A:\n    __slots__ = ['a']\n    TABLE: ClassVar = {}\n    def f(self):\n        x = []",
    ),
    (rules.module_state, "protocol.sse", "@lru_cache(maxsize=9)\ndef f(x): ..."),
    (rules.class_state, "app", "class A(msgspec.Struct):\n    members: dict[str, int] = {}"),
    (rules.late_imports, "app", "def f():\n    import json"),
    (rules.loose_tasks, "app", "async with asyncio.TaskGroup() as tasks:\n    tasks.create_task(f())"),
    (rules.broad_excepts, "app", "try: f()\nexcept BaseException:\n    close()\n    raise"),
    (rules.broad_excepts, "app", "try: f()\nexcept BaseException:\n    with process:\n        raise"),
    (rules.broad_excepts, "app", "try: f()\nexcept OSError: pass"),
    (rules.opens_with_contract, "app", '"""The app."""'),
    (rules.era_branches, "routing.router", "if era is None: pass"),
    (rules.era_branches, "routing.router", "if name == 'all': pass\nera = 'modern'"),
]


@pytest.mark.parametrize(("rule", "name", "text"), BROKEN)
def test_a_rule_sees_what_breaks_it(rule: Rule, name: str, text: str) -> None:
    """One finding at least, with its line."""
    assert list(rule(parse(name, text)))


@pytest.mark.parametrize(("rule", "name", "text"), KEPT)
def test_a_rule_lets_pass_what_keeps_it(rule: Rule, name: str, text: str) -> None:
    """No finding."""
    assert not list(rule(parse(name, text)))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("app", "app"),
        ("config_tree", "config"),
        ("backend.settings", "settings"),
        ("backend.http", "backend"),
        ("", ""),
    ],
)
def test_every_module_belongs_to_a_part(name: str, part: str) -> None:
    """Settings are a part of their own: the configuration is composed of them."""
    assert part_of(name) == part
