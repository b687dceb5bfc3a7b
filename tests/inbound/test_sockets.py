"""Sockets before anything listens: taken addresses are known at once, shared ones are shared with our own only."""

from __future__ import annotations

import errno
import socket

import pytest

from gatewright.inbound.settings import Listen
from gatewright.inbound.sockets import bound, reserved


def place(sock: socket.socket) -> Listen:
    """The address of a socket."""
    return Listen(port=sock.getsockname()[1])


def test_an_address_that_is_taken_is_named() -> None:
    """In the error, as the user wrote it."""
    with bound(Listen(port=0)) as first:
        first.listen()
        address = place(first)
        for take in (bound, reserved):
            with pytest.raises(OSError, match="in use") as caught:
                take(address)
            assert (caught.value.errno, caught.value.filename) == (errno.EADDRINUSE, str(address))


def test_an_address_without_a_port_is_a_free_one_for_all() -> None:
    """Reserved once, its port can be bound by every worker, and a connection reaches one that listens."""
    with reserved(Listen(port=0)) as kept:
        address = place(kept)
        with bound(address, is_shared=True) as one, bound(address, is_shared=True) as other:
            other.listen()
            with socket.create_connection((address.host, address.port), timeout=5) as client:
                accepted, peer = other.accept()
                accepted.close()
                assert peer == client.getsockname()
            one.listen()


def test_a_second_gateway_of_the_same_user_does_not_join_the_first() -> None:
    """Although the kernel would let it: its clients would be dealt out among both."""
    with reserved(Listen(port=0)) as kept, bound(place(kept), is_shared=True) as worker:
        worker.listen()
        with pytest.raises(OSError, match="in use"):
            reserved(place(kept))


def test_both_families_can_be_bound() -> None:
    """An address with colons is one of IPv6."""
    with bound(Listen(host="::1", port=0)) as sock:
        assert sock.family == socket.AF_INET6
