"""`LinkBackend` over Streamable HTTP: one event stream for each request, one GET stream for what belongs to none."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from backend.raw_server import Peer, chunk, event, stream_head
from contracts.link_backend import LinkBackend

ACCEPTED = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"


class HttpHost:
    """Serves one backend to any number of connections. A stream that is closed early is a cancel if `is_modern`."""

    def __init__(self, *, is_modern: bool) -> None:
        self._is_modern = is_modern
        self._backend = LinkBackend(self._send)
        self._streams: dict[int | None, asyncio.Queue[dict[str, Any]]] = {None: asyncio.Queue()}

    def _send(self, message: dict[str, Any], about: int | None) -> None:
        stream = self._streams.get(about)
        if stream is not None:
            stream.put_nowait(message)

    async def talk(self, peer: Peer) -> None:
        """One connection."""
        while True:
            heard = await peer.hear()
            if heard.method == "GET":
                peer.say(stream_head())
                await self._stream(peer, None)
            elif heard.method == "DELETE":
                peer.say(ACCEPTED)
            elif "id" in (message := json.loads(heard.body)) and "method" in message:
                await self._request(peer, message["id"], heard.body)
            else:
                self._backend.take(heard.body)
                peer.say(ACCEPTED)

    async def _request(self, peer: Peer, request_id: int, body: bytes) -> None:
        self._streams[request_id] = asyncio.Queue()
        try:
            self._backend.take(body)
        except SystemError:
            peer.reset()
            raise EOFError from None
        peer.say(stream_head())
        await self._stream(peer, request_id)

    async def _stream(self, peer: Peer, about: int | None) -> None:
        """Send what belongs there until its answer, or until the other end closes."""
        queue = self._streams[about]
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(self._write(peer, queue, about))
            leaving = tasks.create_task(peer.reader.read(1))
            await asyncio.wait([writing, leaving], return_when=asyncio.FIRST_COMPLETED)
            writing.cancel()
            leaving.cancel()
        if about is not None:
            del self._streams[about]
        if writing.cancelled():
            if self._is_modern and about is not None:
                self._backend.cancelled(about)
            raise EOFError

    async def _write(self, peer: Peer, queue: asyncio.Queue[dict[str, Any]], about: int | None) -> None:
        while True:
            message = await queue.get()
            peer.say(event(message))
            await peer.writer.drain()
            if about is not None and message.get("id") == about and "method" not in message:
                peer.say(chunk(b""))
                return
