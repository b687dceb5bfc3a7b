"""Readiness: started, not draining, not overloaded; nobody else is asked."""

from __future__ import annotations

import pytest

from gatewright.telemetry.readiness import Readiness


@pytest.mark.parametrize(
    ("is_started", "is_draining", "full", "status"),
    [
        (True, False, None, "ok"),
        (False, False, None, "starting"),
        (False, True, None, "draining"),
        (True, True, "too many", "draining"),
        (True, False, "too many", "overloaded"),
        (False, False, "too many", "starting"),
    ],
)
def test_the_verdict(is_started: bool, is_draining: bool, full: str | None, status: str) -> None:
    """One word, the one that will last longest first; a reason with every word but ok."""
    verdict = Readiness(lambda: is_started, lambda: is_draining, lambda: full).verdict()
    assert verdict.status == status
    assert verdict.is_ready is (status == "ok")
    assert (verdict.detail is None) is (status == "ok")
    if status == "overloaded":
        assert verdict.detail == "too many"


def test_it_is_asked_anew_each_time() -> None:
    """Nothing is remembered."""
    started: list[bool] = []
    readiness = Readiness(lambda: bool(started), lambda: False, lambda: None)
    assert readiness.verdict().status == "starting"
    started.append(True)
    assert readiness.verdict().is_ready
