"""Sockets that are bound before anything else is done, so that a taken address is known at once.

A shared one (SO_REUSEPORT) lets several processes of one user listen on one address: the kernel deals new connections
out among those that listen, and to no other when one of them is gone. Sources: socket(7); "The SO_REUSEPORT socket
option", LWN 542629.
"""

from __future__ import annotations

import socket

from gatewright.inbound.settings import Listen


def bound(address: Listen, *, is_shared: bool = False) -> socket.socket:
    """A bound socket that does not listen yet. Raises OSError; its `filename` is the address."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((address.host, address.port))
    except OSError as error:
        sock.close()
        error.filename = str(address)  # says which of several it was
        raise
    return sock


def reserved(address: Listen) -> socket.socket:
    """A bound socket that keeps an address for the shared ones of others, and takes no connections itself. Raises
    OSError when anybody listens there, one of our own user's too: unlike a shared socket it would not join them."""
    if address.port:
        bound(address).close()
    return bound(address, is_shared=True)
