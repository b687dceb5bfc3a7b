"""References of sessions, and what is read of a stream."""

from __future__ import annotations

from gatewright.call import ANONYMOUS, Caller
from gatewright.stores.base import Replayed, reference, replayed


def test_a_reference_says_nothing_and_belongs_to_one() -> None:
    """Another id, path or caller has another one, however the parts are cut."""
    given = [("ab", "c", "d"), ("a", "bc", "d"), ("a", "b", "cd"), ("abc", "", "d"), ("", "abc", "d"), ("ab", "c", "")]
    refs = {reference(session, route, Caller(subject)) for session, route, subject in given}
    assert len(refs) == len(given)
    assert all(len(ref) == 32 and "{" not in ref for ref in refs)
    assert reference("secret-id", "", ANONYMOUS) == reference("secret-id", "", ANONYMOUS)
    assert "secret" not in reference("secret-id", "", ANONYMOUS)


def test_a_stream_is_read_back() -> None:
    """Its opening, its events in order, its end."""
    assert replayed([]) == Replayed([], None, None)
    assert replayed([(0, b"7"), (1, b"a"), (2, b"b"), (-1, b"2")]) == Replayed([(1, b"a"), (2, b"b")], b"7", 2)
