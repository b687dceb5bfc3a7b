"""Who carries what: the names it stands under. The rest is seen with several replicas, in `test_heirs`."""

from __future__ import annotations

import asyncio

import pytest

from gatewright.backend.carriers import Carriers, replica_in, split
from gatewright.background import Background
from gatewright.errors import StoreUnavailable
from gatewright.stores.memory import MemoryStore, Shelf
from gatewright.stores.post import Post

pytestmark = pytest.mark.anyio


class Nobody:
    """A store that is out of reach."""

    def ref_of(self, session: str) -> str | None:
        return "ref"

    async def claimed(self, session: str, backend: str) -> bytes | None:
        raise StoreUnavailable("down")

    async def claims(self, session: str) -> dict[str, bytes]:
        raise StoreUnavailable("down")

    async def claim(self, session: str, backend: str, claim: bytes, instead_of: bytes | None) -> bytes | None:
        raise StoreUnavailable("down")

    async def unclaim(self, session: str, backend: str, claim: bytes) -> None:
        raise StoreUnavailable("down")


def test_what_is_carried_is_told_from_backend_sessions() -> None:
    """A backend's name has no space, a URI may have some."""
    assert split("box note://a b") == ("box", "note://a b")
    assert split("box ") == ("box", "")
    assert split("box") is None


def test_what_is_no_name_is_the_name_of_nobody_who_lives() -> None:
    """The store may hold anything, and one bad entry must not keep the others from being read."""
    assert replica_in(b"a1") == "a1"
    assert replica_in(b"\xff\xfe") == "\ufffd\ufffd"


async def test_without_the_store_nothing_is_promised() -> None:
    """Whoever asks hears so; what nobody waits for is left."""
    async with asyncio.TaskGroup() as tasks:
        carriers = Carriers("box", Nobody(), Post(MemoryStore(Shelf(), "a"), Background(tasks)))
        for asked in (carriers.take, carriers.carries, carriers.leave, carriers.end):
            with pytest.raises(StoreUnavailable):
                await asked("id", "a:1")
        await carriers.leave_soon("id", "a:1")
