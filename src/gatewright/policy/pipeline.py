"""The stack around every call: policies in execution order, folded once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from gatewright.call import Handler, Policy


def compose(policies: Sequence[Policy], last: Handler) -> Handler:
    """One handler that runs the policies from first to last, then `last`."""
    handler = last
    for policy in reversed(policies):
        handler = _around(policy, handler)
    return handler


def _around(policy: Policy, proceed: Handler) -> Handler:
    # A partial of the bound method: no frame and no look-up between one policy and the next.
    return partial(policy.__call__, proceed=proceed)
