"""The events of the fixture's SSE streams, so that a dropped stream can be resumed (Last-Event-ID)."""

from __future__ import annotations

from mcp.server.streamable_http import EventCallback, EventId, EventMessage, EventStore, StreamId
from mcp_types import JSONRPCMessage

# Enough for any test; the oldest go first.
MAX_EVENTS = 10_000


class EventLog(EventStore):
    """One bounded log for all streams; an event's id is its number."""

    def __init__(self) -> None:
        self._events: dict[int, tuple[StreamId, JSONRPCMessage | None]] = {}
        self._last = 0

    async def store_event(self, stream_id: StreamId, message: JSONRPCMessage | None) -> EventId:
        self._last += 1
        self._events[self._last] = (stream_id, message)
        self._events.pop(self._last - MAX_EVENTS, None)
        return str(self._last)

    async def replay_events_after(self, last_event_id: EventId, send_callback: EventCallback) -> StreamId | None:
        seen = int(last_event_id) if last_event_id.isdigit() else 0
        if seen not in self._events:
            return None
        stream_id, _ = self._events[seen]
        for number in range(seen + 1, self._last + 1):
            owner, message = self._events[number]
            # A priming event carries no message: there is nothing to send again.
            if owner == stream_id and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream_id
