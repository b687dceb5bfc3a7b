"""States of a backend whose process is this replica's own, and the way of a retry back to that process.

A server over stdio or in Python may seal its `requestState` with a key that only that process has, or keep in memory
what it names: where each replica has a process of its own, a retry has to come to the one that asked. So the state is
given to the client with the replica's id in front, and a retry that brings another replica's is carried out there. The
mark is not sealed: whoever changes it chooses another process, which does not know the state. Source: basic/patterns/
mrtr of 2026-07-28, server requirements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import msgspec

from gatewright.backend import retries
from gatewright.call import Call, InputRequired, Outcome, Params
from gatewright.errors import InvalidParams
from gatewright.protocol import jsonrpc, questions

if TYPE_CHECKING:
    from gatewright.stores.post import Post

MARK: Final = "at."
"""What a marked state begins with, then the replica, a dot and the backend's state."""


@final
class OwnStates:
    """The states of one backend, as its clients get them."""

    def __init__(self, backend: str, post: Post) -> None:
        self._backend = backend
        self._post = post

    def is_here(self, params: Params) -> bool:
        """Whether a retry belongs to the process of this replica."""
        return _home(params)[0] == self._post.replica

    def opened(self, params: Params) -> tuple[str, Params]:
        """The other replica that a retry belongs to, empty when it is this one or none; and the parameters as the
        backend is to get them. Raises InvalidParams for a state that is no string."""
        replica, state = _home(params)
        if not replica:
            return "", params
        if replica != self._post.replica:
            return replica, params
        return "", {**params, questions.STATE_KEY: jsonrpc.raw(state)}

    async def retry(self, replica: str, call: Call, params: Params) -> Outcome:
        """Carry a retry out at that replica. Raises InvalidParams when it is gone, and what is raised there."""
        return await retries.retry(self._post, replica, self._backend, msgspec.structs.replace(call, params=params))

    def marked(self, outcome: Outcome) -> Outcome:
        """What the backend answered, its state marked if it gave any."""
        if not isinstance(outcome, InputRequired):
            return outcome
        result = jsonrpc.members(outcome.value)
        try:
            state = questions.state_in(result)
        except InvalidParams:  # no string: its client will say so
            return outcome
        if state is None:
            return outcome
        marked = f"{MARK}{self._post.replica}.{state}"
        return InputRequired(jsonrpc.encode({**result, questions.STATE_KEY: jsonrpc.raw(marked)}))


def _home(params: Params) -> tuple[str, str]:
    """The replica in a state and the backend's own; both empty for one without mark."""
    text = questions.state_in(params)
    if text is None or not text.startswith(MARK):
        return "", ""
    replica, _, state = text.removeprefix(MARK).partition(".")
    return replica, state
