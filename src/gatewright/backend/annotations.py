"""Which tools of a backend mirror arguments in headers (`x-mcp-header`), learnt from its tool lists.

A tool whose annotation breaks the rules is left out of the list, as the clause says; arguments are decoded only for
tools that have annotations, and what was judged is what is forwarded. Sources: basic/transports/streamable-http
"Custom Headers from Tool Parameters", server/tools of 2026-07-28.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, final

import msgspec
import structlog
from msgspec import Raw

from gatewright.call import Json
from gatewright.errors import BackendGarbage, HeaderMismatch
from gatewright.protocol import headers, jsonrpc

if TYPE_CHECKING:
    from gatewright.call import Params
    from gatewright.protocol.headers import ParamHeaders

log = structlog.get_logger("gatewright.backend")


@final
class _Tool(msgspec.Struct, gc=False):
    """What is read of one tool."""

    name: str
    inputSchema: Raw = jsonrpc.EMPTY


_decode_tools: Final = msgspec.json.Decoder(list[Raw]).decode
_decode_tool: Final = msgspec.json.Decoder(_Tool).decode


@final
class Annotations:
    """The annotated tools of one backend. Empty until a list was seen."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._by_tool: dict[str, ParamHeaders] = {}
        self.is_known = False

    def forget(self) -> None:
        """The tools changed: the next call learns them anew."""
        self.is_known = False

    def learn(self, listed: Json, *, is_first_page: bool) -> bytes:
        """Read a tools/list result. Returns it without the tools whose annotations are invalid."""
        body = bytes(listed)
        if is_first_page:
            self._by_tool = {}
        self.is_known = True
        if not headers.mentions_param_headers(body):
            return body
        result = jsonrpc.members(body)
        try:
            tools = _decode_tools(result.get("tools", Raw(b"[]")))
        except msgspec.DecodeError as error:
            raise BackendGarbage(f"{self._backend}: tools/list has no list of tools") from error
        kept = [tool for tool in tools if self._learn_tool(tool)]
        if len(kept) == len(tools):
            return body
        result["tools"] = jsonrpc.raw(kept)
        return jsonrpc.encode(result)

    def checked(self, tool: str, params: Params, given: Mapping[bytes, bytes] | None) -> tuple[Params, bytes]:
        """The parameters to forward and the header lines that mirror them.

        `given` are the client's `Mcp-Param-*` headers, None on a transport without any. Raises HeaderMismatch when
        they disagree with the arguments.
        """
        compiled = self._by_tool.get(tool)
        if compiled is None:
            if not given:
                return params, b""
            # Unrecognised by us: an intermediary MUST forward them.
            return params, b"".join(b"%b: %b\r\n" % (name, value) for name, value in given.items())
        arguments = msgspec.json.decode(params.get("arguments", jsonrpc.EMPTY))
        if given is not None:
            problem = compiled.check(arguments, given)
            if problem is not None:
                raise HeaderMismatch(f"Header mismatch: {problem}")
        lines = b"".join(
            b"%b: %b\r\n" % (name.encode(), headers.encode_value(text)) for name, text in compiled.extract(arguments)
        )
        return {**params, "arguments": jsonrpc.raw(arguments)}, lines

    def _learn_tool(self, tool: Raw) -> bool:
        """Whether the tool may be offered."""
        if not headers.mentions_param_headers(bytes(tool)):
            return True
        try:
            read = _decode_tool(tool)
            compiled = headers.compile_params(msgspec.json.decode(read.inputSchema))
        except headers.InvalidAnnotation as error:
            log.warning("tool left out", backend=self._backend, reason=str(error))
            return False
        except msgspec.DecodeError:
            return True
        self._by_tool[read.name] = compiled
        return True
