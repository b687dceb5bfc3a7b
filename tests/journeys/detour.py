"""An address that leads to one that is not known yet: how a gateway gets a backend that starts after it, or is itself.

async with detour() as way: ... BackendSettings(url=way.url) ... way.to(port)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Detour:
    """A listening port whose connections go on to another port. They wait until it is known which."""

    def __init__(self) -> None:
        self.url = ""
        self.connections = 0
        """Ever made."""
        self._port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._open: set[asyncio.StreamWriter] = set()

    def to(self, port: int) -> None:
        """Lead there."""
        self._port.set_result(port)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection both ways until an end of it closes."""
        self.connections += 1
        self._open.add(writer)
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", await self._port)
            self._open.add(there_writer)
            await asyncio.gather(_pour(reader, there_writer), _pour(there_reader, writer))
        except OSError:
            writer.close()

    def close(self) -> None:
        """Break what is open."""
        for writer in self._open:
            writer.close()


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def detour() -> AsyncIterator[Detour]:
    """A detour, until the end."""
    way = Detour()
    server = await asyncio.start_server(way.carry, "127.0.0.1", 0)
    way.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    try:
        yield way
    finally:
        server.close()
        way.close()
