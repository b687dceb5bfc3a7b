"""Addresses of stores: which are taken, which are refused with advice, and that none shows its password."""

from __future__ import annotations

import pytest

from gatewright.secret import Secret
from gatewright.stores.settings import Store

GOOD = {
    "redis://h": ("redis", False, (("h", 6379),), "", 0),
    "redis://h:1/2": ("redis", False, (("h", 1),), "", 2),
    "rediss://[::1]:7/0": ("redis", True, (("::1", 7),), "", 0),
    "redis+sentinel://a,b:5/main/3": ("sentinel", False, (("a", 26379), ("b", 5)), "main", 3),
    "rediss+sentinel://a/main": ("sentinel", True, (("a", 26379),), "main", 0),
    "redis+cluster://a:1,b:2": ("cluster", False, (("a", 1), ("b", 2)), "", 0),
    "rediss+cluster://a/0": ("cluster", True, (("a", 6379),), "", 0),
}
BAD = [
    "http://h", "redis://", "redis://a,b", "redis://h/x", "redis://h/0/1", "redis+sentinel://h", "redis+cluster://h/1",
    "redis://h?db=1", "redis://h:99999", "redis://h o", "", "Memory", "redis://u:p@", "redis://h#f",
]  # fmt: skip


@pytest.mark.parametrize("url", GOOD)
def test_an_address_is_taken_apart(url: str) -> None:
    """Kind, TLS, hosts, service and database."""
    found = Store(url=Secret(url)).address()
    assert (found.kind, found.is_tls, found.hosts, found.service, found.db) == GOOD[url]
    assert Store(url=Secret(url)).is_shared


@pytest.mark.parametrize("url", BAD)
def test_what_is_no_address_is_refused(url: str) -> None:
    """With advice, and without repeating it."""
    with pytest.raises(ValueError, match="url: ") as refused:
        Store(url=Secret(url))
    assert not url or url not in str(refused.value)


def test_a_password_is_read_and_never_shown() -> None:
    """Escapes are undone; representations and what may be printed have none of it."""
    store = Store(url=Secret("redis://me:p%40ss%2Fw@h:1/2"))
    assert (store.address().username, store.address().password) == ("me", "p@ss/w")
    assert store.shown == "redis://h:1/2"
    for text in (repr(store), str(store), repr(store.address())):
        assert "p@ss" not in text
        assert "p%40" not in text
    assert Store(url=Secret("redis://:pw@h")).address().username is None


def test_memory_is_the_default() -> None:
    """One process, nothing shared."""
    assert not Store().is_shared
    assert Store().shown == "memory"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"key_prefix": "a b"}, "key_prefix: "),
        ({"key_prefix": "{x}"}, "key_prefix: "),
        ({"secret": Secret("short")}, "secret: "),
    ],
)
def test_other_mistakes_are_named(given: dict[str, object], said: str) -> None:
    """A prefix may not decide which slot a key is in; a secret is no word."""
    with pytest.raises(ValueError, match=said):
        Store(**given)  # type: ignore[arg-type]
