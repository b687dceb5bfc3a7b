"""The official Python SDK's client loses its connection in the middle of a call: it gets everything all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from gatewright.inbound.settings import Sessions
from journeys.travel import travelling_over
from journeys.wire import soon

pytestmark = pytest.mark.anyio


class Cable:
    """A TCP connection through which a client reaches the gateway, and which can be cut."""

    def __init__(self) -> None:
        self.port = 0
        self.opened = 0
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Break every connection there is."""
        for writer in self._writers:
            writer.transport.abort()

    async def carry(self, to: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        self.opened += 1
        there, back = await asyncio.open_connection("127.0.0.1", to)
        self._writers |= {writer, back}
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._copy(reader, back))
                tasks.create_task(self._copy(there, writer))
        finally:
            self._writers -= {writer, back}

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65_536):
                writer.write(chunk)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def cable(to: int) -> AsyncIterator[Cable]:
    """A way to that port of this machine, until the end."""
    found = Cable()
    server = await asyncio.start_server(lambda reader, writer: found.carry(to, reader, writer), "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        found.cut()


async def test_a_real_client_gets_the_answer_of_a_call_whose_connection_broke() -> None:
    """What came before the break came once, and the answer comes: it resumes by itself, when `retry` says so."""
    async with (
        travelling_over("python", "handshake", sessions=Sessions(retry_s=0.01)) as (travel, box),
        cable(travel.port) as way,
    ):
        steps: list[str | None] = []
        begun = asyncio.Event()

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            steps.append(message)
            begun.set()

        other = await travel.handshake("/mcp/box")
        transport = streamable_http_client(f"http://127.0.0.1:{way.port}/mcp/box")
        async with Client(transport, mode="legacy") as client, asyncio.TaskGroup() as tasks:
            calling = tasks.create_task(
                client.call_tool("park", {"key": "k", "is_loud": True}, progress_callback=on_progress)
            )
            await soon(begun.wait())
            way.cut()
            assert await other.tool("release", key="k") == {"released": True}
            result = await soon(calling)
        assert not result.is_error
        assert '"released": "k"' in result.content[0].text  # type: ignore[union-attr]
        assert steps == ["parked"]
        assert len(box.noted("parked")) == 1
