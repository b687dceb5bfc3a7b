"""The stack around every call: policies in execution order, folded once."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from gatewright.call import Call, Handler, Outcome, Policy


def compose(policies: Sequence[Policy], last: Handler) -> Handler:
    """One handler that runs the policies from first to last, then `last`."""
    handler = last
    for policy in reversed(policies):
        handler = _around(policy, handler)
    return handler


def _around(policy: Policy, proceed: Handler) -> Handler:
    step = policy.__call__  # bound once: looking it up is as dear as calling it

    def handle(call: Call) -> Awaitable[Outcome]:
        return step(call, proceed)

    return handle
