"""The control plane's listener: a plain uvicorn server beside the data plane's, which alone hears signals.

It serves only what stands behind the door of `admin.hosts`. uvicorn bounds neither how many connections there are nor
how long one may take to say something, and what is open here the clients of the data plane cannot open: so one
connection too many ends the oldest, and each ends after a while.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any, Final, cast, final

import uvicorn
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gatewright.admin.hosts import Guarded

CLOSE_S = 1
"""Its requests are short: none is waited for longer than this when the gateway stops."""
MAX_CONNECTIONS: Final = 128
"""Probes, scrapers and people have a handful."""
MAX_AGE_S: Final = 30.0
"""A connection ends when it is this old; one that is being answered then, or seems to be, has as long again."""


@final
class BoundedProtocol(HttpToolsProtocol):
    """One connection of the control plane."""

    def __init__(self, max_age_s: float, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._max_age_s = max_age_s
        self._made_s = 0.0
        self._aging: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._made_s = self.loop.time()
        self._aging = self.loop.call_later(self._max_age_s, self._aged)
        if len(self.connections) > MAX_CONNECTIONS:
            others = [cast(BoundedProtocol, one) for one in self.connections if one is not self]
            min(others, key=lambda one: one._made_s).transport.abort()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._aging is not None:
            self._aging.cancel()
        super().connection_lost(exc)

    def _aged(self) -> None:
        cycle: RequestResponseCycle | None = self.cycle  # none before the first request, whatever uvicorn says
        is_late = self.loop.time() > self._made_s + 2 * self._max_age_s - 0.001
        if cycle is not None and not cycle.response_complete and not is_late:
            self._aging = self.loop.call_later(self._max_age_s, self._aged)
        else:
            self.transport.abort()


@final
class AdminListener(uvicorn.Server):
    """Serves the guarded admin application until `should_exit` is set."""

    def __init__(self, app: Guarded, *, max_age_s: float = MAX_AGE_S) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=partial(BoundedProtocol, max_age_s),  # type: ignore[arg-type]  # called as the class is
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=CLOSE_S,
            )
        )

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the data plane's listener."""
        yield
