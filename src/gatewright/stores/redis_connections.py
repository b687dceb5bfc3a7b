"""Connections to Redis: one server, one behind Sentinels, or a Cluster, each plain or over TLS.

What the rest of the store sees is a `Server`: run many commands in one go, and read one inbox. Nothing is retried
here: whoever asked knows whether asking twice is harmless. A command that is given up closes the
connection it was on, so that its answer never becomes that of another one.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Sequence
from typing import Any, Final, TypeAlias, final

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import (
    ClusterError,
    MasterDownError,
    MovedError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from gatewright.stores.limit import Limit
from gatewright.stores.settings import Address, Store

Command: TypeAlias = tuple[str | bytes | int | float, ...]
SERVER_FAULTS: Final = (ClusterError, MasterDownError, MovedError, OutOfMemoryError, ReadOnlyError, TryAgainError)
"""Errors that say that this server cannot do it now, whatever the command."""
SAID_FAULTS: Final = ("MISCONF", "NOREPLICAS", "OOM", "READONLY", "LOADING", "CLUSTERDOWN")
"""The same where the library has no class for them, or the error is a script's."""


class Unreachable(Exception):
    """No answer, or none that can be trusted. What was asked for may have been done."""


@final
class Server:
    """A Redis to talk to. Opens its connections when they are needed, and again when they broke."""

    def __init__(self, settings: Store, waits_s: float = 0.0) -> None:
        """`waits_s`: how long `read` may take on top of `timeout_s`. Whoever uses `run` bounds it."""
        self._bound_s = settings.timeout_s + waits_s
        self._client, self._sentinels = _client(settings.address(), settings)

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to commands, in order; an error that is one command's own is its answer. Raises Unreachable."""
        try:
            pipeline = self._client.pipeline() if self._is_cluster else self._client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            answers = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError, TimeoutError) as error:
            await self.forget()
            raise Unreachable(_said(error)) from error
        for answer in answers:
            if isinstance(answer, Exception) and not _is_its_own(answer):
                await self.forget()
                raise Unreachable(_said(answer)) from answer
        return list(answers)

    async def read(self, stream: str, after: str, count: int, wait_ms: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """The entries of a stream after that one, waiting for the first. Raises Unreachable."""
        options: dict[str, Any] = {}
        client = self._client
        try:
            async with Limit(self._bound_s):
                if isinstance(client, RedisCluster):
                    await client.initialize()
                    options = {"target_nodes": client.get_node_from_key(stream)}
                found = await client.execute_command(
                    "XREAD", "COUNT", count, "BLOCK", wait_ms, "STREAMS", stream, after, **options
                )
        except (RedisError, OSError, TimeoutError) as error:
            raise Unreachable(_said(error)) from error
        return [entry for _, entries in found or () for entry in entries]

    async def forget(self) -> None:
        """Close what is idle: the next command connects anew, and finds out anew where to."""
        client = self._client
        with contextlib.suppress(RedisError, OSError):
            if isinstance(client, RedisCluster):
                await client.aclose()
            else:
                await client.connection_pool.disconnect(inuse_connections=False)

    async def aclose(self) -> None:
        """Close every connection. Never raises."""
        for client in (self._client, *self._sentinels):
            with contextlib.suppress(RedisError, OSError):
                await client.aclose()

    @property
    def _is_cluster(self) -> bool:
        return isinstance(self._client, RedisCluster)


def _client(address: Address, settings: Store) -> tuple[Redis | RedisCluster, list[Redis]]:
    """The client, and those of the Sentinels that it asks."""
    options: dict[str, Any] = {
        "username": address.username,
        "password": address.password,
        "socket_connect_timeout": settings.timeout_s,
        "socket_timeout": None,  # bounded by whoever asks: see `Limit`
        "protocol": 2,  # answers of one shape, whatever stands in between
        **_tls(address, settings),
    }
    if address.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in address.hosts]
        return RedisCluster(startup_nodes=nodes, retry=Retry(NoBackoff(), 1), **options), []
    options |= {"retry": Retry(NoBackoff(), 0), "db": address.db}
    if address.kind == "sentinel":
        told = {key: value for key, value in options.items() if key not in ("db", "username", "password")}
        sentinel: Any = Sentinel(list(address.hosts), sentinel_kwargs=told, **options)  # type: ignore[no-untyped-call]
        return sentinel.master_for(address.service), sentinel.sentinels
    ((host, port),) = address.hosts
    return Redis(host=host, port=port, **options), []


def _tls(address: Address, settings: Store) -> dict[str, Any]:
    if not address.is_tls:
        return {}
    needed = "required" if settings.tls_verify else "none"
    return {
        "ssl": True,
        "ssl_ca_certs": settings.tls_ca,
        "ssl_cert_reqs": needed,
        "ssl_check_hostname": settings.tls_verify,
        "ssl_min_version": ssl.TLSVersion.TLSv1_2,
    }


def _is_its_own(error: Exception) -> bool:
    """Whether an error is about the command, not about the server or the connection."""
    if not isinstance(error, ResponseError) or isinstance(error, SERVER_FAULTS):
        return False
    return not str(error).startswith(SAID_FAULTS)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
