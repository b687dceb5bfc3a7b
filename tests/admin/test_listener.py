"""The admin listener leaves signals to the data plane's."""

import signal

from gatewright.admin.listener import AdminListener


def test_signals_are_not_taken() -> None:
    """Whoever handled SIGTERM before still does while it serves."""
    before = signal.getsignal(signal.SIGTERM)
    with AdminListener(lambda scope, receive, send: None).capture_signals():  # type: ignore[arg-type,return-value]
        assert signal.getsignal(signal.SIGTERM) is before
