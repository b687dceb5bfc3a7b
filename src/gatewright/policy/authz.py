"""Authorization: may this caller reach this target? Answers with a permit, or raises.

Without identities every caller may reach what the path it came on serves, and nothing else: `/mcp/<backend>` never
reaches another backend, whatever the name in the call.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final, final

from gatewright.call import Call, Caller, Handler, Outcome, Permit, Target
from gatewright.errors import InvalidRequest

GATEWAY: Final = "gatewright"
"""The name of the target that answers for the gateway itself, on every route."""


def permit(caller: Caller, route: str, target: Target) -> Permit | None:
    """The permit for a target on a route, None when it is not to be reached there."""
    if route:
        name = target.backend.name
        if name != route and name != GATEWAY:
            return None
    return Permit(caller, target)


@final
class Authz:
    """Sets `call.permit`."""

    def __call__(self, call: Call, proceed: Handler) -> Awaitable[Outcome]:
        """Decide, then go on with the permit."""
        if call.target is None:
            raise InvalidRequest("the call has no target")
        call.permit = permit(call.caller, call.route, call.target)
        if call.permit is None:
            raise InvalidRequest("this path does not serve that backend")
        return proceed(call)
