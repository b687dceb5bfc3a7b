"""Dispatch: hand a permitted call to its backend. The end of the stack."""

from __future__ import annotations

from collections.abc import Awaitable

from gatewright.call import Call, Outcome
from gatewright.errors import GatewayError


class Unpermitted(GatewayError):
    """A call without a permit for its own target and caller came to dispatch: a bug, never the client's doing."""


def dispatch(call: Call) -> Awaitable[Outcome]:
    """Carry the call out. Raises Unpermitted without a matching permit."""
    permit = call.permit
    if permit is None or permit.target is not call.target or permit.caller is not call.caller:
        raise Unpermitted("the call was not permitted")
    return permit.target.backend(call)
