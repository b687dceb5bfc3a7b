"""The one error tree.

    GatewrightError
    ├── ProtocolError            bytes that break a codec; never reaches a client as it is
    └── GatewayError             our own refusal of a call: raised, and turned into a response in
        │                        exactly one table (`protocol.refusals`)
        ├── ClientError          the client is at fault: repeating the same request fails again
        │   ├── ParseError, InvalidRequest, InvalidParams, MethodNotFound, ResourceNotFound
        │   ├── HeaderMismatch, UnsupportedVersion, MissingCapability
        │   └── UnknownSession, SessionRequired, OriginRefused
        ├── Overloaded           the gateway is full or draining: try again later
        │   └── StoreUnavailable     what replicas share cannot be reached: try again soon
        ├── ChainRefused         gateways lead in a circle, or too many stand in a row
        └── BackendError         a backend is at fault
            ├── BackendUnavailable   not reached: it is safe to try again
            ├── BackendTimeout       no answer by the deadline: it may have run
            ├── BackendGarbage       it answered something that is not MCP
            └── BackendRefusedChain  a gateway behind this one, or this one again, refused the chain

A backend's own JSON-RPC error is not in this tree: it is a value (`call.Failure`).
"""

from __future__ import annotations

from typing import ClassVar, Literal

Source = Literal["client", "gateway", "backend"]


class GatewrightError(Exception):
    """Everything this package raises on purpose."""


class ProtocolError(GatewrightError):
    """Bytes or values that break a protocol rule. Codecs raise it and nothing else."""


class GatewayError(GatewrightError):
    """A call that the gateway refuses or cannot finish. `data` is any JSON-serialisable value for the client."""

    source: ClassVar[Source] = "gateway"
    is_retriable: ClassVar[bool] = False

    def __init__(self, message: str, *, data: object = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = data


class ClientError(GatewayError):
    """The client sent what cannot be served; the same request fails again."""

    source: ClassVar[Source] = "client"


class ParseError(ClientError):
    """The body is not JSON."""


class InvalidRequest(ClientError):
    """The body is JSON but not a JSON-RPC message that may stand here."""


class InvalidParams(ClientError):
    """The parameters are not what the method takes."""


class MalformedMeta(InvalidParams):
    """A required `_meta` member is missing or wrong (revision 2026-07-28, basic/index: HTTP 400)."""


class MethodNotFound(ClientError):
    """No such method here."""


class ResourceNotFound(ClientError):
    """No such resource here."""


class HeaderMismatch(ClientError):
    """A mirrored header is missing, malformed or disagrees with the body."""


class UnsupportedVersion(ClientError):
    """The protocol revision is not served."""

    def __init__(self, requested: str, supported: tuple[str, ...]) -> None:
        super().__init__(
            f"Unsupported protocol version {requested[:40]!r}: this server speaks {', '.join(supported)}",
            data={"supported": list(supported), "requested": requested[:40]},
        )


class MissingCapability(ClientError):
    """The call needs a client capability that was not declared. `required` is a ClientCapabilities object."""

    def __init__(self, message: str, required: dict[str, object]) -> None:
        super().__init__(message, data={"requiredCapabilities": required})


class UnknownSession(ClientError):
    """The session id is unknown, ended, or another caller's: one answer for all three."""


class SessionRequired(ClientError):
    """The request needs an `Mcp-Session-Id`."""


class OriginRefused(ClientError):
    """The `Origin` is not one that may reach this listener."""


class Overloaded(GatewayError):
    """A bound is reached, or the gateway is draining."""

    is_retriable: ClassVar[bool] = True


class StoreUnavailable(Overloaded):
    """The store that replicas share did not answer in time. Nothing is known of the session: neither that it is there
    nor that it is not."""


class ChainRefused(GatewayError):
    """The configuration of gateways is wrong: the request came back to one that it had passed, or passed too many.
    `data` names them."""


class BackendError(GatewayError):
    """A backend failed the call."""

    source: ClassVar[Source] = "backend"


class BackendUnavailable(BackendError):
    """The backend was not reached; nothing ran there."""

    is_retriable: ClassVar[bool] = True


class BackendTimeout(BackendError):
    """The backend did not answer in time; the call may have run."""


class BackendGarbage(BackendError):
    """The backend's answer breaks the protocol; the call may have run."""


class BackendRefusedChain(BackendError):
    """A gateway behind this one refused the chain. It says why, in its own words; nothing ran."""
