"""Commands on their way to Redis: all that come up in one turn of the loop travel together.

One task sends them, one batch after the other, and it alone touches connections: whoever waits for an answer waits for
a future, so that a cancelled waiter leaves nothing behind, neither half a command on a connection nor an answer that
the next one would read. Commands keep their order. What nobody waits for is gathered for a few milliseconds.

When Redis does not answer, everything that waits fails with `StoreUnavailable`, and so does at once what comes next,
but for one batch from time to time that finds out whether it is back.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeAlias, final

import structlog
from redis.exceptions import NoScriptError

from gatewright.errors import StoreUnavailable
from gatewright.stores.limit import Limit
from gatewright.stores.redis_connections import Command, Server, Unreachable
from gatewright.stores.redis_scripts import Script

GATHER_S: Final = 0.005
"""How long commands that nobody waits for are gathered."""
MAX_BATCH: Final = 1_000
MAX_WAITING: Final = 100_000
"""Commands on their way. More are lost: Redis has not answered for long, and memory is not endless."""
MAX_WAITING_BYTES: Final = 256 << 20
"""The same in bytes: events are as large as answers are."""
MAX_BATCH_BYTES: Final = 16 << 20
"""A batch that is as large is closed, so that it can be carried within the time it has."""
PAUSE_S: Final = 0.05
"""How long nothing is sent after a failure. It doubles up to PAUSE_MAX_S, and is spread: replicas must not ask all at
once whether Redis is back."""
PAUSE_MAX_S: Final = 1.0
ATTEMPT_S: Final = 1.5
"""How long a batch may take in all, as a multiple of `timeout_s`: it may have to be connected for it, names are
resolved, TLS is agreed on, a Sentinel is asked."""
UNREACHABLE: Final = "the session store cannot be reached"
Start: TypeAlias = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None] | None"]
log = structlog.get_logger("gatewright.store")


@final
class Waiting:
    """One command."""

    __slots__ = ("answer", "command", "fallback", "size")

    def __init__(self, command: Command, fallback: Command | None, answer: asyncio.Future[Any] | None) -> None:
        self.command = command
        self.fallback = fallback
        """What to send when Redis does not know the script by its name."""
        self.answer = answer
        self.size = sum([len(word) for word in command if isinstance(word, bytes)])


@final
class Commands:
    """Sends commands to one Redis."""

    def __init__(self, server: Server, start: Start, timeout_s: float) -> None:
        self._server = server
        self._start = start
        self._bound_s = timeout_s * ATTEMPT_S
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Waiting] = deque()
        self._waiting_bytes = 0
        self._sending: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._is_urgent = False
        self._is_closed = False
        self._pause_s = 0.0
        self._silent_until = 0.0
        self.round_trips = 0
        self.lost = 0
        """Commands that nobody waited for and that were not carried out."""

    async def run(self, *command: Any) -> Any:
        """The answer to one command. Raises StoreUnavailable; a command that is wrong is a bug and raises so."""
        return await self._answered(self._later(command, None))

    async def script(self, script: Script, keys: Sequence[str], *args: Any) -> Any:
        """The answer of a script. Raises StoreUnavailable."""
        return await self._answered(self._later(*_spelled(script, keys, args)))

    async def run_all(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to commands that travel together. Raises StoreUnavailable."""
        waiting = [self._later(command, None) for command in commands]
        return [await self._answered(one) for one in waiting]

    def push(self, *command: Any) -> None:
        """Have a command carried out a little later."""
        self._put(Waiting(command, None, None))

    def push_script(self, script: Script, keys: Sequence[str], *args: Any) -> None:
        """The same for a script."""
        self._put(Waiting(*_spelled(script, keys, args), None))

    async def aclose(self) -> None:
        """Send what waits, within the bounds of one batch, and close: what comes later finds no store. Never raises."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        sending = self._sending
        if sending is not None and not sending.done():
            await asyncio.wait({sending})
        elif self._waiting:
            await self._send()
        await self._server.aclose()

    def _later(self, command: Command, fallback: Command | None) -> asyncio.Future[Any]:
        if self._loop.time() < self._silent_until:
            raise StoreUnavailable(UNREACHABLE)
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._put(Waiting(command, fallback, answer))
        return answer

    async def _answered(self, answer: asyncio.Future[Any]) -> Any:
        found = await answer
        if isinstance(found, Exception):
            raise RuntimeError(f"the store refused a command: {found}") from found
        return found

    def _put(self, waiting: Waiting) -> None:
        is_full = len(self._waiting) >= MAX_WAITING or self._waiting_bytes + waiting.size > MAX_WAITING_BYTES
        if is_full or self._is_closed:
            self._lose([waiting])
            return
        self._waiting.append(waiting)
        self._waiting_bytes += waiting.size
        is_urgent = waiting.answer is not None
        if self._sending is not None:
            return
        if self._timer is not None:
            if self._is_urgent or not is_urgent:
                return
            self._timer.cancel()
        self._is_urgent = is_urgent
        pause_s = 0.0 if is_urgent else max(GATHER_S, self._silent_until - self._loop.time())
        self._timer = self._loop.call_later(pause_s, self._begin) if pause_s else self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._sending = self._start(self._send())
        if self._sending is None:
            self._lose_all([])

    async def _send(self) -> None:
        """Send until nothing waits."""
        batch: list[Waiting] = []
        try:
            while self._waiting:
                batch = self._batch()
                try:
                    await self._deliver(batch)
                except Unreachable as error:
                    self._failed(str(error), batch)
                batch = []
        finally:
            self._sending = None
            if batch:  # this task is being ended
                self._lose_all(batch)

    def _batch(self) -> list[Waiting]:
        """The next that travel together."""
        batch: list[Waiting] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH and size < MAX_BATCH_BYTES:
            batch.append(self._waiting.popleft())
            size += batch[-1].size
        self._waiting_bytes -= size
        return batch

    async def _deliver(self, batch: list[Waiting]) -> None:
        answers = await self._asked_server([one.command for one in batch])
        unknown = [index for index, found in enumerate(answers) if isinstance(found, NoScriptError)]
        if unknown:
            spelled = [batch[index].fallback or batch[index].command for index in unknown]
            for index, found in zip(unknown, await self._asked_server(spelled), strict=True):
                answers[index] = found
        if self._pause_s:
            log.info("store is back")
            self._pause_s = 0.0
        for one, found in zip(batch, answers, strict=True):
            if one.answer is None:
                if isinstance(found, Exception):
                    self.lost += 1
                    log.error("store refused a command", reason=str(found)[:200])
            elif not one.answer.done():
                one.answer.set_result(found)

    async def _asked_server(self, commands: list[Command]) -> list[Any]:
        self.round_trips += 1
        try:
            async with Limit(self._bound_s):
                return await self._server.run(commands)
        except TimeoutError as error:
            await self._server.forget()
            raise Unreachable("no answer in time") from error

    def _failed(self, reason: str, batch: list[Waiting]) -> None:
        if not self._pause_s:
            log.warning("store cannot be reached", reason=reason)
        self._pause_s = min(PAUSE_MAX_S, self._pause_s * 2 or PAUSE_S)
        self._silent_until = self._loop.time() + self._pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        self._lose_all(batch)

    def _lose_all(self, batch: list[Waiting]) -> None:
        """A batch, and what waits behind it."""
        self._lose([*batch, *self._waiting])
        self._waiting.clear()
        self._waiting_bytes = 0

    def _lose(self, batch: list[Waiting]) -> None:
        for one in batch:
            if one.answer is None:
                self.lost += 1
            elif not one.answer.done():
                one.answer.set_exception(StoreUnavailable(UNREACHABLE))
                one.answer.exception()  # seen: whoever asked may be gone


def _spelled(script: Script, keys: Sequence[str], args: Sequence[Any]) -> tuple[Command, Command]:
    """A script by its name, and by its text."""
    rest = (len(keys), *keys, *args)
    return ("EVALSHA", script.sha, *rest), ("EVAL", script.text, *rest)
