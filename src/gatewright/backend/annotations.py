"""Which tools of a backend mirror arguments in headers (`x-mcp-header`), learnt from its tool lists.

A tool whose annotation breaks the rules, or cannot be read, is left out of the list, as the clause says; arguments are
decoded only for tools that have annotations, and what was judged is what is forwarded. Lists differ from caller to
caller and come in pages, so a list says something of the tools in it and nothing of the others. Sources:
basic/transports/streamable-http "Custom Headers from Tool Parameters", server/tools of 2026-07-28.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, final

import msgspec
import structlog
from msgspec import Raw

from gatewright.call import Json
from gatewright.errors import BackendGarbage, HeaderMismatch, InvalidParams, ProtocolError
from gatewright.protocol import headers, jsonrpc
from gatewright.protocol.depth import decode_unique

if TYPE_CHECKING:
    from gatewright.call import Params
    from gatewright.protocol.headers import ParamHeaders

MAX_TOOLS: Final = 10_000
"""Annotated tools remembered of one backend, the oldest out first: a list that never ends must not fill the memory."""
log = structlog.get_logger("gatewright.backend")


@final
class _Tool(msgspec.Struct, gc=False):
    """What is read of one tool."""

    name: str
    inputSchema: Raw = jsonrpc.EMPTY


@final
class _Named(msgspec.Struct, gc=False):
    """What is read of a tool without annotations."""

    name: object = None


_decode_tools: Final = msgspec.json.Decoder(list[Raw]).decode
_decode_tool: Final = msgspec.json.Decoder(_Tool).decode
_decode_named: Final = msgspec.json.Decoder(_Named).decode


MAX_REMEMBERED_BYTES: Final = 1 << 20
"""A longer list is looked through each time."""


@final
class Annotations:
    """The annotated tools of one backend. Empty until a list was seen."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self.by_tool: dict[str, ParamHeaders] = {}
        """The annotated tools: while there are none, only arguments that came with headers need a look."""
        self._is_stale = False
        self._unannotated = b""
        """The last list without annotations: the same list again, as it is most often, needs no second look."""
        self.is_known = False

    def forget(self) -> None:
        """The tools changed: the next call learns them anew."""
        self._is_stale = True
        self.is_known = False

    def learn(self, listed: Json, *, is_first_page: bool) -> bytes:
        """Read a tools/list result. Returns it without the tools whose annotations are invalid. Raises BackendGarbage
        when it is none, and then nothing was learnt."""
        body = bytes(listed)
        if self.is_known and body == self._unannotated:
            return body
        result: dict[str, Raw] = {}
        tools: list[Raw] = []
        if self.by_tool or headers.mentions_param_headers(body):
            try:
                result = jsonrpc.members(body)
                tools = _decode_tools(result.get("tools", Raw(b"[]")))
            except (ProtocolError, *jsonrpc.UNREADABLE) as error:
                raise BackendGarbage(f"{self._backend}: tools/list has no list of tools") from error
        if is_first_page and self._is_stale:
            self.by_tool = {}
            self._is_stale = False
        self.is_known = True
        if not tools and len(body) <= MAX_REMEMBERED_BYTES:
            self._unannotated = body
        kept = [tool for tool in tools if self._learn_tool(tool)]
        if len(kept) == len(tools):
            return body
        result["tools"] = jsonrpc.raw(kept)
        return jsonrpc.encode(result)

    def checked(self, tool: str, params: Params, given: Mapping[bytes, bytes] | None) -> tuple[Params, bytes]:
        """The parameters to forward and the header lines that mirror them.

        `given` are the client's `Mcp-Param-*` headers, None on a transport without any. Raises HeaderMismatch when
        they disagree with the arguments, InvalidParams when the arguments cannot be judged: a member named twice, a
        number beyond all range.
        """
        compiled = self.by_tool.get(tool)
        if compiled is None:
            if not given:
                return params, b""
            return params, _lines(given.items())
        try:
            arguments = decode_unique(params.get("arguments", jsonrpc.EMPTY))
        except ProtocolError as error:
            raise InvalidParams(f"params.arguments: {error}") from error
        lines = _lines(compiled.fields(arguments))
        if given is not None:
            problem = compiled.check(arguments, given)
            if problem is not None:
                raise HeaderMismatch(f"Header mismatch: {problem}")
            known = {param.key for param in compiled.params}
            lines += _lines((name, value) for name, value in given.items() if name not in known)
        return {**params, "arguments": jsonrpc.raw(arguments)}, lines

    def _learn_tool(self, tool: Raw) -> bool:
        """Whether the tool may be offered."""
        if not headers.mentions_param_headers(bytes(tool)):
            if self.by_tool:
                self._set(_name_of(tool), None)
            return True
        try:
            read = _decode_tool(tool)
            compiled = headers.compile_params(decode_unique(read.inputSchema))
        except (ProtocolError, *jsonrpc.UNREADABLE) as error:
            # Also one that only may be annotated: offering it would mean calling it without its headers.
            name = _name_of(tool)
            self._set(name, None)
            log.warning("tool left out", backend=self._backend, tool=(name or "")[:128], reason=str(error))
            return False
        self._set(read.name, compiled if compiled.params else None)
        return True

    def _set(self, tool: str | None, compiled: ParamHeaders | None) -> None:
        if tool is None:
            return
        self.by_tool.pop(tool, None)
        if compiled is not None:
            self.by_tool[tool] = compiled
            if len(self.by_tool) > MAX_TOOLS:
                del self.by_tool[next(iter(self.by_tool))]


def _name_of(tool: Raw) -> str | None:
    try:
        name = _decode_named(tool).name
    except jsonrpc.UNREADABLE:
        return None
    return name if isinstance(name, str) else None


def _lines(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Header lines. Headers that nobody here recognises are among them: an intermediary MUST forward those."""
    return b"".join(b"%b: %b\r\n" % field for field in fields)
