"""A link through another replica: the exchange is carried out there, once, with all that is said on the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from gatewright.backend.base import Request, SessionLost, Sink
from gatewright.backend.relay import RelayHost, RelayLink
from gatewright.background import Background
from gatewright.call import ANONYMOUS, Caller, Client, Failure, Params, Result
from gatewright.errors import BackendError, BackendGarbage, BackendTimeout
from gatewright.protocol import handshake, jsonrpc
from gatewright.protocol.jsonrpc import Id
from gatewright.stores.memory import MemoryStore, Shelf
from gatewright.stores.post import Post

pytestmark = pytest.mark.anyio
CLIENT = Client(handshake.OFFERED, b"{}", b"{}", "id")


async def until(condition: Callable[[], object]) -> None:
    """Wait for it, within the bound."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


class Behind:
    """The backend's sessions on the other replica."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.told: list[bytes] = []
        self.error: BackendError | None = None
        self.hold = asyncio.Event()
        self.hold.set()
        self.was_cancelled = False

    async def relay(self, request: Request, client: Client, caller: Caller, sink: Sink) -> Result | Failure:
        """Say something, ask something, and answer with what was asked for."""
        assert (client, caller) == (CLIENT, ANONYMOUS)
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        await sink.notified("notifications/progress", jsonrpc.members(b'{"progress":1}'))
        sink.asked("q", "roots/list", {})
        sink.missed()
        try:
            await self.hold.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        if request.method == "fail":
            return Failure(-1, "no", jsonrpc.raw([1]))
        return Result(jsonrpc.encode(request.params))

    async def tell(self, client: Client, caller: Caller, message: bytes) -> None:
        """Remember it."""
        self.told.append(message)

    def bereave(self, replicas: frozenset[str]) -> None:
        """Remember it."""
        self.told.extend(replica.encode() for replica in replicas)

    def recheck(self) -> None:
        """Remember it."""
        self.told.append(b"recheck")


class Heard:
    """What comes on the way."""

    def __init__(self) -> None:
        self.all: list[tuple[object, ...]] = []

    async def notified(self, method: str, params: Params) -> None:
        self.all.append((method, json.loads(jsonrpc.encode(params))))

    def asked(self, request_id: Id, method: str, params: Params) -> None:
        self.all.append((request_id, method))

    def missed(self) -> None:
        self.all.append(("missed",))


class Bridge:
    """This replica's link, and the other replica."""

    def __init__(self, here: Post, host: RelayHost, behind: Behind, die: Callable[[], object]) -> None:
        self.link = RelayLink(here, "b", "box", "ref")
        self.here = here
        self.host = host
        self.behind = behind
        self.die = die


@asynccontextmanager
async def bridged() -> AsyncIterator[Bridge]:
    """Two replicas, `b` with the backend."""
    shelf = Shelf(dead_s=0.2)
    async with asyncio.TaskGroup() as tasks:
        background = Background(tasks)
        here, there = (Post(MemoryStore(shelf, name), background, beat_s=0.02, settle_s=0.5) for name in "ab")
        behind = Behind()
        members = {"ref": (CLIENT, ANONYMOUS)}
        host = RelayHost({"box": behind}, members.get, there, background)
        running = [background(one.run()) for one in (here, there)]
        await until(lambda: here.alive == {"a", "b"})
        assert running[1] is not None
        try:
            yield Bridge(here, host, behind, running[1].cancel)
        finally:
            behind.hold.set()
            for task in running:
                assert task is not None
                task.cancel()


async def test_everything_comes_back() -> None:
    """Notifications and questions in order, then the result or failure; the request is as it was."""
    async with bridged() as there:
        heard = Heard()
        request = Request(5 << 32, "tools/call", {"name": "x"}, b"x: y\r\n", is_retry_safe=True)
        outcome = await there.link.exchange(request, heard)
        assert outcome == Result(b'{"name":"x"}')
        assert heard.all == [("notifications/progress", {"progress": 1}), ("q", "roots/list")]
        (carried,) = there.behind.requests
        assert (carried.id, carried.method, carried.is_retry_safe, carried.headers) == (
            5 << 32,
            "tools/call",
            True,
            b"",
        )
        failure = await there.link.exchange(Request(2, "fail", {}), heard)
        assert isinstance(failure, Failure)
        assert (failure.code, failure.message, bytes(failure.data or b"")) == (-1, "no", b"[1]")


async def test_messages_pass() -> None:
    """Answers to questions, notifications: no answer is waited for."""
    async with bridged() as there:
        await there.link.tell(b'{"x":1}')
        await until(lambda: there.behind.told == [b'{"x":1}'])
        there.link.agree(b"nothing")
        await there.link.listen()


@pytest.mark.parametrize("why", ["lost", "leaving", "unknown"])
async def test_a_session_that_is_not_there_is_lost(why: str) -> None:
    """Nothing ran: it is opened anew."""
    async with bridged() as there:
        if why == "lost":
            there.behind.error = SessionLost("gone")
        elif why == "leaving":
            there.host.is_leaving = lambda: True
        else:
            there.link = RelayLink(there.here, "b", "box", "nobody")
        with pytest.raises(SessionLost):
            await there.link.exchange(Request(1, "x", {}), Heard())
        assert not there.link.is_open
        with pytest.raises(SessionLost):
            await there.link.tell(b"{}")


async def test_a_backends_fault_is_the_backends() -> None:
    """It arrives as what it is, and the link goes on."""
    async with bridged() as there:
        there.behind.error = BackendTimeout("slow")
        with pytest.raises(BackendTimeout, match="slow"):
            await there.link.exchange(Request(1, "x", {}), Heard())
        assert there.link.is_open


async def test_a_cancel_is_carried_over() -> None:
    """The exchange over there ends."""
    async with bridged() as there:
        there.behind.hold.clear()
        asking = asyncio.get_running_loop().create_task(there.link.exchange(Request(1, "x", {}), Heard()))
        await until(lambda: there.behind.requests)
        asking.cancel()
        await until(lambda: there.behind.was_cancelled)


async def test_a_death_in_the_middle_may_have_run_it() -> None:
    """The caller is told so; the next exchange finds no link."""
    async with bridged() as there:
        there.behind.hold.clear()
        asking = asyncio.get_running_loop().create_task(there.link.exchange(Request(1, "x", {}), Heard()))
        await until(lambda: there.behind.requests)
        there.die()
        with pytest.raises(BackendGarbage, match="may have run"):
            await asyncio.wait_for(asking, 5)
        with pytest.raises(SessionLost):
            await there.link.exchange(Request(2, "x", {}), Heard())
        await there.link.aclose()
        assert len(there.behind.requests) == 1


async def test_bereavement_is_passed_on() -> None:
    """To every backend."""
    async with bridged() as there:
        there.host.bereave(frozenset({"c"}))
        there.host.recheck()
        assert there.behind.told == [b"c", b"recheck"]


async def test_an_end_waits_for_what_others_are_owed() -> None:
    """As long as there is time."""
    async with bridged() as there:
        await there.host.finish(0.1)
        there.behind.hold.clear()
        asking = asyncio.get_running_loop().create_task(there.link.exchange(Request(1, "x", {}), Heard()))
        await until(lambda: there.behind.requests)
        await there.host.finish(0.05)
        finishing = asyncio.get_running_loop().create_task(there.host.finish(5))
        there.behind.hold.set()
        assert await asyncio.wait_for(asking, 5)
        await asyncio.wait_for(finishing, 5)
