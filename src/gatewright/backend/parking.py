"""Parked calls: a handshake backend asks in the middle of a call, and the client can only be asked by its outcome.

The call goes on in a task of its own, its backend stream open, while the client is answered InputRequired. The sealed
state in that answer is the way back: the retry that brings it, with the answers, is joined to the waiting call and
gets what comes next, more questions or the result. A state is good once, for one caller, backend, method and set of
parameters, for a limited time. Source: basic/patterns/mrtr of 2026-07-28; DESIGN section 5; S-60 to S-63.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, final

import msgspec
import structlog

from gatewright.backend import retries
from gatewright.call import Call, Failure, InputRequired, Json, Outcome, Result
from gatewright.errors import GatewayError, InvalidParams, MissingCapability, Overloaded, ProtocolError
from gatewright.protocol import bridge, jsonrpc, questions, sealed
from gatewright.protocol.methods import PROGRESS
from gatewright.protocol.modern import PROGRESS_KEY
from gatewright.protocol.questions import Question

if TYPE_CHECKING:
    from gatewright.backend.places import ParkingPlaces
    from gatewright.background import Background
    from gatewright.protocol.sealed import Sealer
    from gatewright.stores.post import Post

TOGETHER_S: Final = 0.02
"""Questions asked at once arrive one by one; those within this time go to the client together."""
ANEW: Final = 0
"""In a state: no call is parked, the retry makes it anew."""
UNANSWERED: Final = Failure(-32603, "the client did not answer")
"""What a backend is told whose question was open when the call ended."""
SWEEP_S: Final = 1.0
"""How often expired calls are looked for, and other replicas told how many wait here."""
FULL: Final = "too many calls wait for answers"
log = structlog.get_logger("gatewright.parking")

Carry = Callable[[Call], Awaitable[Outcome]]
"""Carries a call out at the backend."""


@final
class Limits(msgspec.Struct, frozen=True):
    """Bounds of parked calls."""

    max_parked: int = 10_000
    max_per_caller: int = 1_000
    expires_s: float = 300.0


@final
class _State(msgspec.Struct, array_like=True):
    """What is sealed: which call, which turn of it, until when (wall clock, seconds)."""

    parked: int
    turn: int
    expires_at: float
    replica: str = ""
    """Where it waits; empty where there is but one."""


_read_state: Final = msgspec.msgpack.Decoder(_State).decode
_write_state: Final = msgspec.msgpack.Encoder().encode


@final
class Parked:
    """One call that may ask, and the client's request that stands for it at the moment. It is that call's `Reply`."""

    __slots__ = ("_answers", "_asked", "_numbers", "_waiting", "call", "current", "expires_at", "has_place", "id",
                 "outcome", "task", "turn")  # fmt: skip

    def __init__(self, call: Call, number: int) -> None:
        self.id = number
        self.call = call
        self.current: Call | None = call
        self.turn = 0
        self.expires_at = 0.0
        self.has_place = False
        """It is counted among the parked calls of all replicas."""
        self.task: asyncio.Task[None] | None = None
        self.outcome: Outcome | GatewayError | None = None
        self._asked: dict[str, Question] = {}
        self._answers: dict[str, asyncio.Future[Result | Failure]] = {}
        self._waiting: asyncio.Future[None] | None = None
        """For the call's end or its next question; whoever serves the client's request waits for it."""
        self._numbers = 0

    async def emit(self, method: str, params: Json) -> None:
        """See Reply.emit: on the request that stands for the call now, progress under that one's token; while none
        does, there is nobody to tell."""
        current = self.current
        if current is None:
            return
        current.heard_at = asyncio.get_running_loop().time()
        if method == PROGRESS and current is not self.call:
            token = current.meta.get(PROGRESS_KEY)
            if token is None:
                return
            params = bridge.retokened(jsonrpc.members(params), token)
        await current.reply.emit(method, params)

    async def ask(self, method: str, params: Json) -> Result | Failure:
        """See Reply.ask: wait until a retry brings the answer."""
        question = Question(method, msgspec.Raw(bytes(params)))
        _check_askable(self.call, {"": question})
        if self.outcome is not None:
            return UNANSWERED
        self._numbers += 1
        key = f"{method.partition('/')[0]}-{self._numbers}"
        answer: asyncio.Future[Result | Failure] = asyncio.get_running_loop().create_future()
        self._asked[key] = question
        self._answers[key] = answer
        self._wake()
        try:
            return await answer
        finally:
            self._asked.pop(key, None)
            self._answers.pop(key, None)

    def answer(self, given: dict[str, msgspec.Raw]) -> None:
        """Deliver the answers of a retry. What was not asked is ignored; what is missing is asked again (mrtr)."""
        for key, value in given.items():
            waiting = self._answers.get(key)
            if waiting is not None and not waiting.done():
                self._asked.pop(key, None)
                waiting.set_result(Result(value))

    def finish(self, outcome: Outcome | GatewayError) -> None:
        """The call is over, once: what it asked is answered by nobody any more."""
        if self.outcome is not None:
            return
        self.outcome = outcome
        self._wake()
        for waiting in list(self._answers.values()):
            if not waiting.done():
                waiting.set_result(UNANSWERED)

    @property
    def open(self) -> dict[str, Question]:
        """The questions that are open now."""
        return dict(self._asked) if self.outcome is None else {}

    async def next(self) -> dict[str, Question]:
        """Wait until the call is over or asks something. Returns the open questions, none when it is over."""
        while self.outcome is None:
            if self._asked:
                await asyncio.sleep(TOGETHER_S)
                if self._asked and self.outcome is None:  # the backend may have taken its questions back
                    return dict(self._asked)
                continue
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        return {}

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


@final
class Parking:
    """The parked calls of one backend."""

    def __init__(
        self,
        backend: str,
        sealer: Sealer,
        limits: Limits,
        background: Background,
        post: Post | None = None,
        places: ParkingPlaces | None = None,
    ) -> None:
        self._post = post
        """The way to calls that wait on other replicas; None where there are none."""
        self._places = places
        """What `limits` allow to all replicas together; None where there is but one."""
        self._replica = "" if post is None else post.replica
        self._backend = backend
        self._sealer = sealer
        self._limits = limits
        self._background = background
        self._parked: dict[int, Parked] = {}
        self._numbers = itertools.count(ANEW + 1)
        """Sealed, so they need not be unguessable."""
        self._by_caller: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._parked)

    async def carry(self, call: Call, carry: Carry) -> Outcome:
        """Carry a call out, or go on with the one that its state names. Raises InvalidParams for a state that is not
        good here, Overloaded when too many calls are parked."""
        text = questions.state_in(call.params)
        state = None if text is None else self._opened(call, text)
        if state is not None and state.replica != self._replica and state.parked != ANEW and self._post is not None:
            return await retries.retry(self._post, state.replica, self._backend, call)
        parked = self._begin(call, carry) if state is None else self._resumed(call, state, carry)
        parked.current = call
        try:
            asked = await parked.next()
            if asked and self._places is not None and not parked.has_place:
                await self._place(parked, self._places)
                asked = parked.open or await parked.next()  # it may have gone on meanwhile
            _check_askable(call, asked)
        except BaseException:  # the client left: in its era that is the cancel
            self._end(parked)
            raise
        finally:
            parked.current = None
        if asked:
            return self._ask(parked, call, asked)
        self._end(parked)
        outcome = parked.outcome
        if isinstance(outcome, GatewayError):
            raise outcome
        if isinstance(outcome, Failure) and outcome.code == questions.URL_REQUIRED:
            return self._opened_first(call, outcome)
        assert outcome is not None
        return outcome

    def close(self) -> None:
        """End every parked call."""
        for parked in list(self._parked.values()):
            self._end(parked)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self, call: Call, carry: Carry) -> Parked:
        mine = self._by_caller[call.caller.subject]
        if len(self._parked) >= self._limits.max_parked or mine >= self._limits.max_per_caller:
            raise Overloaded(FULL)
        parked = Parked(call, next(self._numbers))
        # What the caller sent stays its own; the carried call answers to the parked one.
        carried = msgspec.structs.replace(call, reply=parked, params=questions.fresh(call.params))
        parked.task = self._background(self._run(parked, carry, carried))
        if parked.task is None:
            raise Overloaded("the gateway is draining")
        self._parked[parked.id] = parked
        self._by_caller[call.caller.subject] += 1
        parked.expires_at = float("inf")
        return parked

    async def _place(self, parked: Parked, places: ParkingPlaces) -> None:
        """Count the call among those of all replicas. Raises Overloaded when there are too many: it has begun by then,
        but only here it shows which calls ask, and the others must not pay for a question to the store."""
        subject = parked.call.caller.subject
        if not await places.take(subject):
            raise Overloaded(f"{FULL} on all replicas; this one had begun and is cancelled")
        if parked.id in self._parked:
            parked.has_place = True
        else:  # it ended meanwhile
            places.leave(subject)

    async def _run(self, parked: Parked, carry: Carry, call: Call) -> None:
        outcome: Outcome | GatewayError = GatewayError("the call broke off inside the gateway")
        try:
            outcome = await carry(call)
        except GatewayError as error:
            outcome = error
        finally:  # whoever waits is told, whatever ended it
            parked.finish(outcome)

    def _opened_first(self, call: Call, failure: Failure) -> Outcome:
        """An error that says which URLs the user must open before the call can be made: asked, and made anew after."""
        asked = questions.url_questions(failure.data)
        if not asked or not all(questions.is_askable(call.client.capabilities, one) for one in asked.values()):
            return failure
        return InputRequired(questions.required(asked, self._seal(call, ANEW, 0)))

    def _seal(self, call: Call, parked: int, turn: int) -> str:
        state = _State(parked, turn, time.time() + self._limits.expires_s, self._replica)
        return self._sealer.seal(_write_state(state), self._context(call), secrets.token_bytes(12))

    def _ask(self, parked: Parked, call: Call, asked: dict[str, Question]) -> InputRequired:
        parked.turn += 1
        loop = asyncio.get_running_loop()
        parked.expires_at = loop.time() + self._limits.expires_s
        if self._timer is None:
            self._timer = loop.call_later(SWEEP_S, self._sweep, loop)
        return InputRequired(questions.required(asked, self._seal(call, parked.id, parked.turn)))

    def _opened(self, call: Call, text: str) -> _State:
        try:
            state = _read_state(self._sealer.open(text, self._context(call)))
        except (ProtocolError, msgspec.DecodeError) as error:
            raise InvalidParams(f"params.requestState: {error}") from error
        if state.expires_at < time.time():
            raise InvalidParams("params.requestState has expired: make the call again without it")
        return state

    def _resumed(self, call: Call, state: _State, carry: Carry) -> Parked:
        if state.parked == ANEW:
            return self._begin(call, carry)
        parked = self._parked.get(state.parked) if state.replica == self._replica else None
        if parked is None or parked.call.caller != call.caller:
            raise InvalidParams("params.requestState: the call it belongs to has ended; make it again without it")
        if parked.turn != state.turn or parked.current is not None:
            raise InvalidParams("params.requestState was used already")
        answers = questions.answers_in(call.params)
        parked.turn += 1  # from here on the state is used
        parked.expires_at = float("inf")
        parked.answer(answers)
        return parked

    def _context(self, call: Call) -> bytes:
        salient = sealed.digest(questions.salient(call.params))
        return sealed.context(call.caller.subject, self._backend, call.method, salient)

    def _end(self, parked: Parked) -> None:
        """Free a call. One that still runs is cancelled, and its backend told."""
        if self._parked.pop(parked.id, None) is not None:
            subject = parked.call.caller.subject
            self._by_caller[subject] -= 1
            if not self._by_caller[subject]:
                del self._by_caller[subject]
            if parked.has_place and self._places is not None:
                self._places.leave(subject)
        parked.finish(GatewayError("the call has ended"))
        if parked.task is not None and not parked.task.done():
            parked.task.cancel()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for parked in [parked for parked in self._parked.values() if parked.expires_at <= now]:
            log.info("parked call expired", backend=self._backend, method=parked.call.method)
            self._end(parked)
        if self._places is not None:
            self._places.restate()
        self._timer = loop.call_later(SWEEP_S, self._sweep, loop) if self._parked else None


def _check_askable(call: Call, asked: dict[str, Question]) -> None:
    """A retry may come with fewer capabilities than the first request. Raises MissingCapability."""
    for question in asked.values():
        if not questions.is_askable(call.client.capabilities, question):
            raise MissingCapability(f"the client cannot be asked {question.method}", questions.needed(question))
