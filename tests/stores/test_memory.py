"""The store in memory, held to the contract of all stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from contracts.stores import RECORD, REF, OpenStores, StoreContract
from gatewright.stores.base import Store
from gatewright.stores.memory import MemoryStore, Shelf


class TestMemoryStore(StoreContract):
    """Everything that every store does."""

    @pytest.fixture
    def open_stores(self) -> OpenStores:
        @asynccontextmanager
        async def opened(
            *replicas: str,
            idle_s: float = 60.0,
            max_events: int = 1_000,
            max_event_bytes: int = 1 << 20,
            dead_after_s: float = 5.0,
            max_letter_bytes: int = 64 << 20,
        ) -> AsyncIterator[Sequence[Store]]:
            shelf = Shelf(
                idle_s=idle_s,
                max_events=max_events,
                max_event_bytes=max_event_bytes,
                dead_s=dead_after_s,
                max_letter_bytes=max_letter_bytes,
            )
            stores = [MemoryStore(shelf, replica) for replica in replicas]
            for store in stores:
                await store.beat()
            yield stores
            for store in stores:
                await store.aclose()

        return opened


@pytest.mark.anyio
async def test_a_store_that_was_emptied_knows_nobody() -> None:
    """Sessions are unknown, and a replica hears that it has to say again that it lives."""
    shelf = Shelf()
    store = MemoryStore(shelf, "a")
    await store.beat()
    await store.create(REF, RECORD)
    shelf.emptied()
    assert await store.load(REF) is None
    assert (await store.beat()).is_lapsed
