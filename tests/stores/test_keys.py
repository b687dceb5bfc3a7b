"""One secret for all replicas."""

from __future__ import annotations

import pytest

from gatewright.secret import Secret
from gatewright.stores.keys import SharedSecret, derived
from gatewright.stores.memory import MemoryStore, Shelf

pytestmark = pytest.mark.anyio


async def test_the_first_one_is_everybodys() -> None:
    """Whoever comes later takes it, and is told that it is another one than before."""
    store, adopted = MemoryStore(Shelf(), "a"), []
    one, two = SharedSecret(None), SharedSecret(None)
    await one.settle(store, adopted.append)
    assert adopted == []
    await two.settle(store, adopted.append)
    await two.settle(store, adopted.append)
    assert adopted == [one.value]
    assert two.value == one.value


async def test_a_configured_one_needs_no_store() -> None:
    """It is the same on every replica, and never leaves it."""
    shelf = Shelf()
    one, two = (SharedSecret(Secret("correct horse battery")) for _ in range(2))
    await one.settle(MemoryStore(shelf, "a"), lambda _: pytest.fail("nothing is adopted"))
    assert one.value == two.value != SharedSecret(Secret("another one, as long")).value
    assert shelf.secrets == {}


def test_each_purpose_has_its_own_key() -> None:
    """None says anything of another."""
    assert derived(b"s" * 32, "a") != derived(b"s" * 32, "b")
    assert len(derived(b"s" * 32, "a")) == 32
