"""What a server in a process of this replica's own gave its clients to bring back, and the way back to that process.

A server over stdio or in Python has a process in each replica. Its `requestState` may be sealed with a key that only
that process has, its tasks may be in that process' memory: so both are given to clients with the replica's id in front,
and a request that brings another replica's is carried out there. The mark of a state is not sealed: whoever changes it
chooses another process, which does not know the state. Sources: basic/index of 2026-07-28, "Statelessness": what spans
requests is referenced by an identifier that the client passes; basic/patterns/mrtr; SEP-2663.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import msgspec

from gatewright.backend import retries
from gatewright.call import Call, InputRequired, Outcome, Params
from gatewright.errors import InvalidParams, ProtocolError
from gatewright.protocol import jsonrpc, questions, tasks
from gatewright.stores.post import ReplicaGone

if TYPE_CHECKING:
    from gatewright.stores.post import Post

MARK: Final = "at."
"""What is marked begins with this, then the replica, a dot, and what the server gave."""
TASK_KEY: Final = "taskId"


@final
class OwnProcess:
    """The process of one backend."""

    def __init__(self, backend: str, post: Post) -> None:
        self._backend = backend
        self._post = post
        self._mark = f"{MARK}{post.replica}."

    def marked(self, given: str) -> str:
        """What it gave, as it can be brought back from anywhere."""
        return self._mark + given

    def asked(self, outcome: Outcome) -> Outcome:
        """What it answered, with its state marked if it gave any."""
        if not isinstance(outcome, InputRequired):
            return outcome
        result = jsonrpc.members(outcome.value)
        try:
            state = questions.state_in(result)
        except InvalidParams:  # no string: its client will say so
            return outcome
        if state is None:
            return outcome
        return InputRequired(jsonrpc.encode({**result, questions.STATE_KEY: jsonrpc.raw(self.marked(state))}))

    def own(self, brought: str) -> str | None:
        """What the process itself gave, of what is brought; None when another replica's did."""
        replica, given = _read(brought)
        if not replica:
            return brought
        return given if replica == self._post.replica else None

    def opened(self, params: Params) -> tuple[str, Params]:
        """The other replica that a request belongs to, empty when it is this one or any; and the parameters as the
        process is to get them. Raises InvalidParams for a state that is no string."""
        key = questions.STATE_KEY if questions.STATE_KEY in params else TASK_KEY
        if key not in params:
            return "", params
        replica, given = _read(_text(key, params))
        if replica and replica != self._post.replica:
            return replica, params
        return "", {**params, key: jsonrpc.raw(given)} if replica else params

    async def carry(self, replica: str, call: Call, params: Params) -> Outcome:
        """Carry a request out at that replica. Raises InvalidParams when it is gone, and what is raised there."""
        try:
            carried = msgspec.structs.replace(call, params=params)
            return await retries.carry(self._post, replica, self._backend, carried)
        except ReplicaGone as gone:
            message = tasks.UNKNOWN if TASK_KEY in params else retries.GONE + retries.AGAIN
            raise InvalidParams(message) from gone


def _text(key: str, params: Params) -> str:
    """A state or a task's id; empty for what has none."""
    if key == questions.STATE_KEY:
        return questions.state_in(params) or ""
    try:
        return tasks.id_in(params)
    except ProtocolError:  # a member of that name in a call that is about no task
        return ""


def _read(text: str) -> tuple[str, str]:
    """The replica in what is brought, and what its process gave; both empty for what has no mark."""
    if not text.startswith(MARK):
        return "", ""
    replica, _, given = text.removeprefix(MARK).partition(".")
    return replica, given
