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
    # A function of Python's own: it and the policy run in the interpreter's loop that runs already. A `partial` enters
    # a new one, and makes a tuple and a dictionary of what it passes on.
    decide = policy.__call__

    def handler(call: Call) -> Awaitable[Outcome]:
        return decide(call, proceed)

    return handler
