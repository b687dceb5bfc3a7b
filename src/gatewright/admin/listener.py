"""The control plane's listener: a plain uvicorn server beside the data plane's, which alone hears signals.

It serves only what stands behind the door of `admin.hosts`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import final

import uvicorn
from typing_extensions import override

from gatewright.admin.hosts import Guarded

CLOSE_S = 1
"""Its requests are short: none is waited for longer than this when the gateway stops."""


@final
class AdminListener(uvicorn.Server):
    """Serves the guarded admin application until `should_exit` is set."""

    def __init__(self, app: Guarded) -> None:
        super().__init__(
            uvicorn.Config(
                app, lifespan="off", ws="none", log_config=None, access_log=False, timeout_graceful_shutdown=CLOSE_S
            )
        )

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the data plane's listener."""
        yield
