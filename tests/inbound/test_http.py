"""The listener over real sockets: order, bounds, deadlines, departures and the seam to uvicorn."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import socket
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
import uvicorn

from gatewright.inbound.framing import HttpRequest
from gatewright.inbound.http import HttpProtocol, Serve, protocol_factory
from gatewright.inbound.responder import Responder
from gatewright.inbound.settings import Limits
from gatewright.outbox import Outbox
from inbound.framing_corpus import CANARY, HEAD, LAST_READ, READ, REFUSED

pytestmark = pytest.mark.anyio

T = TypeVar("T")
POST = HEAD + b"Content-Length: 3\r\n\r\nabc"
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The loop that serves, and the one to fall back on: their transports differ."""
    return "asyncio", {"use_uvloop": request.param}


async def soon(waiting: Awaitable[T]) -> T:
    """The result, within 5 s."""
    async with asyncio.timeout(5):
        return await waiting


async def until(is_so: Callable[[], bool]) -> None:
    """Return when it is so, within 5 s."""
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0)


@dataclass
class State:
    """What uvicorn's ServerState offers."""

    connections: set[Any] = field(default_factory=set)


@dataclass
class Listener:
    """A listening gateway front and its clients."""

    port: int
    state: State
    tasks: asyncio.TaskGroup

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def say(self, raw: bytes) -> bytes:
        """Send these bytes and read until the listener closes."""
        reader, writer = await self.open()
        writer.write(raw)
        answer = await soon(reader.read())
        await close(writer)
        return answer

    @property
    def connections(self) -> list[HttpProtocol]:
        return list(self.state.connections)


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a client connection, whatever state it is in."""
    writer.close()
    with suppress(ConnectionError):
        await soon(writer.wait_closed())


@asynccontextmanager
async def listening(
    serve: Serve, limits: Limits | None = None, outbox: Outbox | None = None
) -> AsyncIterator[Listener]:
    """Listen on a free loopback port; end every connection and task at the end."""
    loop = asyncio.get_running_loop()
    state = State()
    async with asyncio.TaskGroup() as tasks:
        create = protocol_factory(serve, limits or Limits(), tasks, outbox or Outbox(loop.call_soon))
        server = await loop.create_server(
            lambda: create(config=None, server_state=state, app_state={}, _loop=loop), "127.0.0.1", 0
        )
        try:
            yield Listener(server.sockets[0].getsockname()[1], state, tasks)
        finally:
            server.close()
            for connection in list(state.connections):
                connection.shutdown()


def answers(raw: bytes) -> list[tuple[int, bytes]]:
    """The complete responses in `raw`, as (status, body)."""
    found = []
    while raw:
        head, rest = raw.split(b"\r\n\r\n", 1)
        lines = head.lower().split(b"\r\n")
        status = int(lines[0].split()[1])
        if status == 100:
            raw = rest
            continue
        size = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        assert len(rest) >= size
        found.append((status, rest[:size]))
        raw = rest[size:]
    return found


async def echo(request: HttpRequest, responder: Responder) -> None:
    """Answer with what was asked."""
    responder.respond(200, f"{request.method} {request.path} ".encode() + request.body)


class Recorder:
    """Serves with `echo` and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes]] = []

    async def __call__(self, request: HttpRequest, responder: Responder) -> None:
        self.asked.append((request.method, request.path, request.body))
        await echo(request, responder)


class Held:
    """Serves each request only when told to; notes departures and draining."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[tuple[HttpRequest, Responder]] = asyncio.Queue()
        self.go = asyncio.Event()
        self.gone = asyncio.Event()
        self.drained = asyncio.Event()

    async def __call__(self, request: HttpRequest, responder: Responder) -> None:
        responder.on_gone = self.gone.set
        responder.on_drain = self.drained.set
        self.arrived.put_nowait((request, responder))
        await self.go.wait()
        if not responder.is_started:
            await echo(request, responder)


async def test_framing_errors_are_answered_and_nothing_behind_them_is_served() -> None:
    """The whole corpus over sockets: one 4xx/5xx with a JSON-RPC error, then the end; no canary is served."""
    recorder = Recorder()
    wrong = []
    async with listening(recorder) as listener:
        for case in REFUSED:
            found = answers(await listener.say(case.raw + CANARY))
            if [status for status, _ in found] != [case.status] or "error" not in json.loads(found[0][1]):
                wrong.append((case.name, found))
    assert wrong == []
    assert recorder.asked == []


async def test_a_framing_error_behind_requests_is_answered_in_its_turn() -> None:
    """What came before is served, in order, and then the refusal."""
    recorder = Recorder()
    async with listening(recorder) as listener:
        for case in REFUSED[::7]:
            found = answers(await listener.say(POST + POST + case.raw + CANARY))
            assert [status for status, _ in found] == [200, 200, case.status], case.name
    assert set(recorder.asked) == {("POST", "/mcp", b"abc")}


async def test_odd_requests_are_served_rightly() -> None:
    """Each of them, and the canary behind it."""
    async with listening(Recorder()) as listener:
        for case in READ:
            expected = [*case.requests, ("GET", "/canary", b""), ("GET", "/last", b"")]
            found = answers(await listener.say(case.raw + CANARY + LAST))
            assert found == [(200, f"{m} {p} ".encode() + body) for m, p, body in expected], case.name


async def test_nothing_is_served_behind_the_last_request() -> None:
    """The connection ends after its answer."""
    recorder = Recorder()
    async with listening(recorder) as listener:
        for case in LAST_READ:
            found = answers(await listener.say(case.raw + CANARY))
            assert [status for status, _ in found] == [200], case.name
    assert ("GET", "/canary", b"") not in recorder.asked


async def test_a_request_carries_its_peer() -> None:
    """Address and port of the client."""
    peers = []

    async def serve(request: HttpRequest, responder: Responder) -> None:
        peers.append(request.peer)
        responder.respond(202)

    async with listening(serve) as listener:
        reader, writer = await listener.open()
        writer.write(POST)
        await soon(reader.readuntil(b"\r\n\r\n"))
        assert peers == [writer.get_extra_info("sockname")]
        await close(writer)


async def test_one_connection_serves_many_requests_one_after_the_other() -> None:
    """Kept alive, by one task."""
    tasks = set()

    async def serve(request: HttpRequest, responder: Responder) -> None:
        tasks.add(asyncio.current_task())
        await echo(request, responder)

    async with listening(serve) as listener:
        reader, writer = await listener.open()
        for number in range(50):
            writer.write(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
            assert b"GET /%d " % number in await soon(reader.readuntil(b"GET /%d " % number))
        await close(writer)
    assert len(tasks) == 1


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Far more than may wait, in one write, with bodies of many sizes; all answered, in order, none twice."""
    sizes = [(number * 7919) % 5_000 for number in range(400)]
    raw = b"".join(HEAD + b"Content-Length: %d\r\n\r\n" % size + b"x" * size for size in sizes)
    async with listening(echo) as listener:
        found = answers(await listener.say(raw + LAST))
    assert [len(body) - len("POST /mcp ") for _, body in found[:-1]] == sizes


async def test_at_most_so_many_requests_wait() -> None:
    """The rest of what a client sends ahead is not even parsed, and reading stops."""
    held = Held()
    async with listening(held, Limits(max_pipelined=3)) as listener:
        reader, writer = await listener.open()
        writer.write(CANARY * 1_000 + LAST)
        await soon(held.arrived.get())
        (connection,) = listener.connections
        assert len(connection._waiting) == 3
        assert connection._unread
        assert held.arrived.empty()
        held.go.set()
        assert len(answers(await soon(reader.read()))) == 1_001
        await close(writer)


async def test_half_a_body_goes_with_its_connection() -> None:
    """At once: the garbage collector comes after thousands of connections, and a body may be megabytes."""
    half = b"x" * 1_000_000
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        async with listening(echo) as listener:
            for _ in range(12):
                _, writer = await listener.open()
                writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % (len(half) + 1) + half)
                await soon(writer.drain())
                async with asyncio.timeout(5):
                    while not any(one._reader.body_left == 1 for one in listener.connections):
                        await asyncio.sleep(0.001)
                await close(writer)
                async with asyncio.timeout(5):
                    while listener.connections:
                        await asyncio.sleep(0.001)
            assert tracemalloc.get_traced_memory()[0] < 5_000_000
    finally:
        tracemalloc.stop()
        gc.enable()


async def test_a_body_that_looks_like_a_head_hides_no_requests() -> None:
    """Behind the end of a body as behind anything else at most so many wait, whatever length the body talks of."""
    held = Held()
    talk = b"x\r\nContent-Length: 99999999\r\n\r\n"
    async with listening(held, Limits(max_pipelined=3)) as listener:
        reader, writer = await listener.open()
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % (len(talk) + 1) + b"x")
        (connection,) = listener.connections
        async with asyncio.timeout(5):
            while connection._reader.body_left != len(talk):
                await asyncio.sleep(0)
        writer.write(talk + CANARY * 1_000 + LAST)
        await soon(held.arrived.get())
        assert len(connection._waiting) == 3
        held.go.set()
        assert len(answers(await soon(reader.read()))) == 1_002
        await close(writer)


async def test_a_request_sent_ahead_waits_until_the_response_before_it_has_ended() -> None:
    """Even when that is a stream."""
    held = Held()
    async with listening(held) as listener:
        reader, writer = await listener.open()
        writer.write(CANARY)
        _, stream = await soon(held.arrived.get())
        stream.start_stream()
        writer.write(LAST)
        await stream.send(b"data: 1\n\n")
        await soon(reader.readuntil(b"data: 1\n\n\r\n"))
        assert held.arrived.empty()
        stream.end()
        held.go.set()
        assert (await soon(reader.read())).startswith(b"0\r\n\r\nHTTP/1.1 200 OK\r\n")
        await close(writer)


async def test_the_next_request_does_not_wait_for_what_runs_on_behind_a_complete_answer() -> None:
    """A notification is answered 202 and then carried on."""
    go = asyncio.Event()
    ended = asyncio.Event()

    async def serve(request: HttpRequest, responder: Responder) -> None:
        await echo(request, responder)
        if request.path == "/mcp":
            await go.wait()
            ended.set()

    async with listening(serve) as listener:
        assert len(answers(await listener.say(POST + CANARY + LAST))) == 3
        assert not ended.is_set()
        go.set()
        await soon(ended.wait())


async def test_a_body_is_asked_for_when_the_client_waits_to_be_asked() -> None:
    """`100 Continue` comes before the body and once; a body that would be refused is not asked for."""
    async with listening(echo) as listener:
        reader, writer = await listener.open()
        for _ in range(2):
            writer.write(HEAD + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
            assert await soon(reader.readuntil(b"\r\n\r\n")) == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"abc")
            assert (await soon(reader.readuntil(b"POST /mcp abc"))).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.write(HEAD + b"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n")
        assert (await soon(reader.read())).startswith(b"HTTP/1.1 413 ")
        await close(writer)


async def test_a_body_is_asked_for_only_when_it_is_its_turn() -> None:
    """Not in the middle of the answer before it."""
    held = Held()
    async with listening(held) as listener:
        reader, writer = await listener.open()
        writer.write(CANARY + HEAD + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        await soon(held.arrived.get())
        held.go.set()
        assert await soon(reader.readuntil(b"GET /canary ")) != b""
        assert await soon(reader.readuntil(b"\r\n\r\n")) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        await soon(reader.readuntil(b"POST /mcp abc"))
        await close(writer)


async def test_a_refused_body_does_not_cost_the_client_its_answer() -> None:
    """A client that sends on for a while reads the 413 instead of a reset."""
    async with listening(echo) as listener:
        reader, writer = await listener.open()
        writer.write(HEAD + b"Content-Length: 99999999\r\n\r\n")
        for _ in range(50):
            writer.write(b"x" * 20_000)
            await writer.drain()
        assert [status for status, _ in answers(await soon(reader.read()))] == [413]
        await close(writer)


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"POST /mcp HT", 408), (HEAD + b"X: y", 408), (HEAD + b"Content-Length: 9\r\n\r\nabc", 408)],
    ids=["request line", "header", "body"],
)
async def test_a_slow_request_is_refused(sent: bytes, status: int) -> None:
    """The deadlines of header and body."""
    async with listening(echo, Limits(header_timeout_s=0.2, body_timeout_s=0.2)) as listener:
        assert [status for status, _ in answers(await listener.say(sent))] == [status]


async def test_drip_feeding_does_not_move_the_deadline() -> None:
    """A byte now and then is not progress."""
    async with listening(echo, Limits(header_timeout_s=0.1)) as listener:
        reader, writer = await listener.open()
        writer.write(HEAD + b"X: ")
        answer = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:

            async def drip() -> None:
                while not answer.is_set():
                    writer.write(b"y")
                    try:
                        async with asyncio.timeout(0.01):
                            await answer.wait()
                    except TimeoutError:
                        pass

            tasks.create_task(drip())
            assert (await soon(reader.read())).startswith(b"HTTP/1.1 408 ")
            answer.set()
        await close(writer)


@pytest.mark.parametrize("sent", [b"", b"\r\n", POST], ids=["nothing", "an empty line", "one request"])
async def test_an_idle_connection_is_closed_without_a_word(sent: bytes) -> None:
    """It holds nothing worth an answer."""
    async with listening(echo, Limits(header_timeout_s=0.2, keep_alive_s=0.2)) as listener:
        statuses = [status for status, _ in answers(await listener.say(sent))]
        assert statuses == ([200] if sent == POST else [])


async def test_a_running_request_has_no_deadline_here() -> None:
    """A long call or stream outlives every wait for input: deadlines of calls are the policies' to keep."""
    held = Held()
    async with listening(held, Limits(header_timeout_s=0.2, keep_alive_s=0.2, body_timeout_s=0.2)) as listener:
        idle_reader, idle_writer = await listener.open()
        reader, writer = await listener.open()
        writer.write(LAST)
        await soon(held.arrived.get())
        assert await soon(idle_reader.read()) == b""  # an idle neighbour was closed meanwhile
        held.go.set()
        assert [status for status, _ in answers(await soon(reader.read()))] == [200]
        await close(writer)
        await close(idle_writer)


async def test_a_reader_that_stops_reading_stops_its_stream_and_is_disconnected() -> None:
    """The sender is held back, the buffer stays bounded, neighbours go on, and after the deadline it is gone."""
    sent = 0
    gone = asyncio.Event()

    async def serve(request: HttpRequest, responder: Responder) -> None:
        nonlocal sent
        if request.path != "/mcp":
            return await echo(request, responder)
        responder.on_gone = gone.set
        responder.start_stream()
        while not responder.is_gone:
            await responder.send(b"x" * 65_536)
            sent += 1
        return None

    async with listening(serve, Limits(write_stall_s=0.2)) as listener:
        reader, writer = await listener.open()
        writer.write(POST)
        await soon(reader.readuntil(b"\r\n\r\n"))
        assert answers(await listener.say(LAST)) == [(200, b"GET /last ")]
        await soon(gone.wait())
        assert sent < 1_000
        writer.transport.abort()


async def test_a_reader_that_never_takes_its_answer_is_disconnected() -> None:
    """Also when the response is complete and the connection only waits to be flushed."""

    async def serve(request: HttpRequest, responder: Responder) -> None:
        responder.respond(200, b"x" * (64 << 20))

    async with listening(serve, Limits(write_stall_s=0.2)) as listener:
        reader, writer = await listener.open()
        writer.write(LAST)
        await soon(reader.readuntil(b"\r\n\r\n"))
        await until(lambda: not listener.connections)
        writer.transport.abort()


async def test_answers_do_not_pile_up_for_a_client_that_only_asks() -> None:
    """While it does not read, its next requests wait."""
    served = 0

    async def serve(request: HttpRequest, responder: Responder) -> None:
        nonlocal served
        served += 1
        responder.respond(200, b"x" * 1_000_000)

    async with listening(serve, Limits(write_stall_s=0.2)) as listener:
        reader, writer = await listener.open()
        writer.write(CANARY * 500)
        await soon(reader.readuntil(b"\r\n\r\n"))
        await until(lambda: not listener.connections)
        assert served < 50
        writer.transport.abort()


async def test_a_stream_reaches_its_reader_while_it_is_silent() -> None:
    """The head at once, and each piece when it is sent, although pieces of one turn travel together."""
    pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(request: HttpRequest, responder: Responder) -> None:
        responder.start_stream()
        while piece := await pieces.get():
            await responder.send(piece)
            await responder.send(piece)
        responder.end()

    async with listening(serve) as listener:
        reader, writer = await listener.open()
        writer.write(LAST)
        assert (await soon(reader.readuntil(b"\r\n\r\n"))).startswith(b"HTTP/1.1 200 OK\r\n")
        for piece in (b"data: 1\n\n", b"x" * 20_000, b"y" * 70_000):
            pieces.put_nowait(piece)
            sent = b"%x\r\n%b\r\n" % (len(piece), piece)
            assert await soon(reader.readexactly(2 * len(sent))) == 2 * sent
        pieces.put_nowait(b"")
        assert await soon(reader.read()) == b"0\r\n\r\n"
        await close(writer)


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
async def test_a_departure_is_noticed_at_once(how: str) -> None:
    """While a silent response runs: on_gone is called, sending becomes nothing, what waited is dropped."""
    held = Held()
    async with listening(held) as listener:
        _, writer = await listener.open()
        writer.write(CANARY + CANARY)
        _, responder = await soon(held.arrived.get())
        responder.start_stream()
        if how == "half-close":
            writer.write_eof()
        elif how == "close":
            writer.close()
        else:
            writer.transport.abort()
        await soon(held.gone.wait())
        assert responder.is_gone
        await responder.send(b"late")
        responder.end()
        held.go.set()
        assert held.arrived.empty()
        await close(writer)


async def test_a_request_is_served_although_its_client_did_not_wait() -> None:
    """A notification or a DELETE sent on the way out counts."""
    served = asyncio.Event()

    async def serve(request: HttpRequest, responder: Responder) -> None:
        responder.respond(202)
        served.set()

    async with listening(serve) as listener:
        _, writer = await listener.open()
        writer.write(POST)
        await close(writer)
        await soon(served.wait())


async def test_a_connection_is_reset_when_there_is_nobody_left_to_serve_it() -> None:
    """The task group has ended before the listening socket."""
    loop = asyncio.get_running_loop()
    state = State()
    async with asyncio.TaskGroup() as tasks:
        create = protocol_factory(echo, Limits(), tasks, Outbox(loop.call_soon))
    server = await loop.create_server(
        lambda: create(config=None, server_state=state, app_state={}, _loop=loop), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
    writer.write(POST)
    with suppress(ConnectionError):
        assert await soon(reader.read()) == b""
    await close(writer)
    server.close()


async def test_a_departed_client_may_cancel_its_own_task() -> None:
    """As the modern era wants it; the connection's task ends and nothing is left behind."""
    cancelled = asyncio.Event()
    arrived = asyncio.Event()

    async def serve(request: HttpRequest, responder: Responder) -> None:
        task = asyncio.current_task()
        assert task is not None
        responder.on_gone = task.cancel
        arrived.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with listening(serve) as listener:
        _, writer = await listener.open()
        writer.write(POST)
        await soon(arrived.wait())
        await close(writer)
        await soon(cancelled.wait())


async def test_a_bug_is_answered_with_an_id_and_the_connection_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    """The client and the log share the id; the message of the exception stays inside."""

    async def serve(request: HttpRequest, responder: Responder) -> None:
        if request.path == "/canary":
            raise ValueError("secret")
        await echo(request, responder)

    async with listening(serve) as listener:
        raw = await listener.say(CANARY + LAST)
    (status, body), (next_status, _) = answers(raw)
    assert (status, next_status) == (500, 200)
    error = json.loads(body)["error"]
    assert error["code"] == -32603
    assert b"secret" not in raw
    assert error["data"]["errorId"] in capsys.readouterr().out


async def test_a_bug_in_a_stream_cuts_the_connection(capsys: pytest.CaptureFixture[str]) -> None:
    """A clean end would make half an answer look whole."""

    async def serve(request: HttpRequest, responder: Responder) -> None:
        responder.start_stream()
        await responder.send(b"data: 1\n\n")
        raise ValueError("late")

    async with listening(serve) as listener:
        reader, writer = await listener.open()
        writer.write(CANARY)
        received = b""
        with suppress(ConnectionError):
            received = await soon(reader.read())
        assert not received.endswith(b"0\r\n\r\n")
        await close(writer)
    assert "http.serve_failed" in capsys.readouterr().out


async def test_a_request_nobody_answers_is_a_bug(capsys: pytest.CaptureFixture[str]) -> None:
    """500 rather than silence; an open stream is ended."""

    async def serve(request: HttpRequest, responder: Responder) -> None:
        if request.path == "/canary":
            responder.start_stream()

    async with listening(serve) as listener:
        raw = await listener.say(CANARY + LAST)
    stream, answer = raw.split(b"0\r\n\r\n")
    assert stream.startswith(b"HTTP/1.1 200 ")
    assert answers(answer)[0][0] == 500
    assert "http.serve_failed" in capsys.readouterr().out


async def test_one_connection_too_many_is_told_to_come_back() -> None:
    """503 with Retry-After, while a probe is answered as ever; a free place is taken again."""
    async with listening(echo, Limits(max_connections=2)) as listener:
        clients = [await listener.open() for _ in range(2)]
        for reader, writer in clients:
            writer.write(POST)
            await soon(reader.readuntil(b"POST /mcp abc"))
        raw = await listener.say(POST + POST)
        assert [status for status, _ in answers(raw)] == [503]
        (told,) = re.findall(rb"\r\nRetry-After: (\d+)\r\n", raw)
        assert 1 <= int(told) <= 10
        assert b"\r\nConnection: close\r\n" in raw
        assert answers(await listener.say(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")) == [(200, b"GET /livez ")]
        await close(clients[0][1])
        await until(lambda: len(listener.connections) == 1)
        assert answers(await listener.say(LAST)) == [(200, b"GET /last ")]
        await close(clients[1][1])


async def test_draining_closes_the_idle_and_lets_the_busy_finish() -> None:
    """A running answer is the last one; a stream's owner is told; a request half sent is still served."""
    held = Held()
    async with listening(held) as listener:
        idle, busy, stream, half = [await listener.open() for _ in range(4)]
        busy[1].write(CANARY + CANARY)
        _, responder = await soon(held.arrived.get())
        stream[1].write(CANARY)
        _, streaming = await soon(held.arrived.get())
        streaming.start_stream()
        half[1].write(HEAD + b"Content-Length: 3\r\n")
        await until(lambda: any(connection._stage == 1 for connection in listener.connections))
        for connection in listener.connections:
            connection.shutdown()
        assert await soon(idle[0].read()) == b""
        assert responder.is_draining
        await soon(held.drained.wait())
        half[1].write(b"\r\nabc")
        await soon(held.arrived.get())
        streaming.end()
        held.go.set()
        assert (await soon(stream[0].read())).endswith(b"0\r\n\r\n")
        for reader, _ in (busy, half):
            raw = await soon(reader.read())
            assert [status for status, _ in answers(raw)] == [200]
            assert b"\r\nConnection: close\r\n" in raw
        assert held.arrived.empty()
        for _, writer in (idle, busy, stream, half):
            await close(writer)


async def test_a_cancelled_task_group_ends_every_connection() -> None:
    """The last resort of a shutdown: nothing hangs, nothing is left."""
    held = Held()
    clients = []

    async def run() -> None:
        async with listening(held) as listener:
            for _ in range(3):
                clients.append(await listener.open())
                clients[-1][1].write(CANARY)
                await soon(held.arrived.get())
            raise KeyError("the group ends")

    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.group_contains(KeyError)
    for reader, writer in clients:
        with suppress(ConnectionError):
            assert await soon(reader.read()) == b""
        await close(writer)


@asynccontextmanager
async def uvicorn_serving(serve: Serve, limits: Limits | None = None) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    """A real uvicorn server with our protocol class, told to exit at the end."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))

    async def nothing(scope: object, receive: object, send: object) -> None:
        raise AssertionError("the ASGI application is never reached")

    async with asyncio.TaskGroup() as tasks:
        factory: Any = protocol_factory(serve, limits or Limits(), tasks, Outbox(asyncio.get_running_loop().call_soon))
        config = uvicorn.Config(nothing, http=factory, lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        running = tasks.create_task(server._serve([sock]))  # `serve` would take over the test runner's signals
        await until(lambda: server.started)
        try:
            yield server, sock.getsockname()[1]
        finally:
            server.should_exit = True
            await soon(running)


async def test_uvicorn_runs_the_protocol_and_drains_it() -> None:
    """The seam: it makes our class per connection, counts it, and shuts down when the last answer is sent."""
    held = Held()
    async with uvicorn_serving(held) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST)
        await soon(held.arrived.get())
        (connection,) = server.server_state.connections
        assert isinstance(connection, HttpProtocol)
        server.should_exit = True
        await soon(held.drained.wait())
        held.go.set()
        raw = await soon(reader.read())
        assert answers(raw) == [(200, b"POST /mcp abc")]
        assert b"\r\nConnection: close\r\n" in raw
        await close(writer)


async def test_uvicorn_exits_at_once_when_all_is_idle() -> None:
    """Idle kept-alive connections do not hold it."""
    async with uvicorn_serving(echo) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST)
        await soon(reader.readuntil(b"POST /mcp abc"))
        server.should_exit = True
        assert await soon(reader.read()) == b""
        await close(writer)
