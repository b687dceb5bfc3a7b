"""Errors on their way between replicas: one that a call raised there is raised here as what it is.

Pure. Those of another version of the gateway, and bugs, arrive as a plain GatewayError.
"""

from __future__ import annotations

from typing import Final, final

import msgspec

from gatewright import errors
from gatewright.errors import GatewayError


@final
class _Failed(msgspec.Struct, frozen=True, array_like=True):
    """An error on its way."""

    name: str
    message: str
    data: bytes | None


@final
class _Required(msgspec.Struct, frozen=True):
    """The data of a MissingCapability."""

    requiredCapabilities: dict[str, msgspec.Raw]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Failed).decode
_KNOWN: Final = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type)
    and issubclass(value, GatewayError)
    and value.__init__ is GatewayError.__init__  # the others are refusals made before a call goes anywhere
}


def written(error: GatewayError) -> bytes:
    """An error as `read` takes it."""
    if isinstance(error, errors.MissingCapability):
        name = errors.MissingCapability.__name__
    else:
        name = next((one.__name__ for one in type(error).__mro__ if one.__name__ in _KNOWN), "GatewayError")
    data = None if error.data is None else msgspec.json.encode(error.data)
    return _encode(_Failed(name, error.message, data))


def read(text: bytes) -> GatewayError:
    """The error that was written. Raises msgspec.DecodeError when it is none."""
    failed = _decode(text)
    if failed.name == errors.MissingCapability.__name__ and failed.data is not None:
        required = msgspec.json.decode(failed.data, type=_Required).requiredCapabilities
        return errors.MissingCapability(failed.message, dict(required))
    kind = _KNOWN.get(failed.name, GatewayError)
    return kind(failed.message, data=None if failed.data is None else msgspec.Raw(failed.data))
