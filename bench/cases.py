"""The table of cases: which era, which backend, which body, through which targets each can be measured.

A case that nginx cannot carry (stdio, in-process, a bridge between eras) has no floor to compare with; its `direct`
figure is missing as well, except in-process, where the official SDK serves the same object itself.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bench.calls import Call, big, echo, list_tools

SMALL_BODY_BYTES = 400
LARGE_BODY_BYTES = 100_000


@dataclass(frozen=True)
class Case:
    """`backend` is a name in the configuration of `targets`; `build(era, session)` makes the call that is repeated."""

    name: str
    title: str
    era: str
    backend: str
    build: Callable[[str, str], Call]
    has_floor: bool = True

    def call(self, session: str) -> Call:
        return self.build(self.era, session)


def _echo(tool: str, body_bytes: int) -> Callable[[str, str], Call]:
    return lambda era, session: echo(era, session, tool, body_bytes)


def _big(tool: str) -> Callable[[str, str], Call]:
    return lambda era, session: big(era, session, tool)


_JSON = _echo("echo_json", SMALL_BODY_BYTES)
_SSE = _echo("echo_sse", SMALL_BODY_BYTES)
_JSON_LARGE = _echo("echo_json", LARGE_BODY_BYTES)
_SSE_LARGE = _echo("echo_sse", LARGE_BODY_BYTES)

# The first is the one that the bars are about.
CASES = (
    Case("modern-json", "modern, JSON, 400 B", "modern", "modern", _JSON),
    Case("modern-sse", "modern, SSE, 400 B", "modern", "modern", _SSE),
    Case("handshake-json", "handshake, JSON, 400 B", "handshake", "handshake", _JSON),
    Case("handshake-sse", "handshake, SSE, 400 B", "handshake", "handshake", _SSE),
    Case("modern-json-100k", "modern, JSON, 100 KB both ways", "modern", "modern", _JSON_LARGE),
    Case("modern-sse-100k", "modern, SSE, 100 KB both ways", "modern", "modern", _SSE_LARGE),
    Case("handshake-json-100k", "handshake, JSON, 100 KB both ways", "handshake", "handshake", _JSON_LARGE),
    Case("handshake-sse-100k", "handshake, SSE, 100 KB both ways", "handshake", "handshake", _SSE_LARGE),
    Case("modern-big", "modern, JSON, 100 KB answer", "modern", "modern", _big("big_json")),
    Case("modern-many", "modern, JSON, 400 B, 500 tools", "modern", "modern-500", _JSON),
    Case("modern-list", "modern, tools/list of 500", "modern", "modern-500", list_tools),
    Case("handshake-list", "handshake, tools/list of 500", "handshake", "handshake-500", list_tools),
    Case("bridge-up", "handshake client, modern backend", "handshake", "modern", _JSON, has_floor=False),
    Case("bridge-down", "modern client, handshake backend", "modern", "handshake", _JSON, has_floor=False),
    Case("stdio-modern", "stdio backend, modern, 400 B", "modern", "stdio", _JSON, has_floor=False),
    Case("stdio-handshake", "stdio backend, handshake, 400 B", "handshake", "stdio", _JSON, has_floor=False),
    Case("inprocess-modern", "in-process backend, modern, 400 B", "modern", "inprocess", _JSON, has_floor=False),
    Case(
        "inprocess-handshake", "in-process backend, handshake, 400 B", "handshake", "inprocess", _JSON, has_floor=False
    ),
)
