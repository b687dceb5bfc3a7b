"""Tasks: the ids by which clients know them, and where a message names one.

A backend's task is known to a client by a sealed id: which backend has it, under which id of its own, in which era it
was made; it opens for the caller it was made for and nobody else. The same task always has the same id, since clients
compare them. Both eras have tasks and they are not wire-compatible: an extension in 2026-07-28
(`io.modelcontextprotocol/tasks`, SEP-2663), a part of the core in 2025-11-25 (basic/utilities/tasks). Never does:
deciding who may reach a task's backend.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, final

import msgspec
from msgspec import Raw

from gatewright.call import Caller, Client, Json, Params
from gatewright.errors import InvalidParams, MissingCapability, ProtocolError
from gatewright.protocol import jsonrpc, sealed
from gatewright.protocol.revisions import Era

EXTENSION: Final = "io.modelcontextprotocol/tasks"
"""The capability of the modern era, among `extensions` (SEP-2663)."""
CAPABILITY: Final = "tasks"
"""That of 2025-11-25."""
RELATED_KEY: Final = "io.modelcontextprotocol/related-task"
"""The `_meta` member that says which task a message of 2025-11-25 belongs to."""
EXECUTION: Final = frozenset({"execution"})
"""The member of a tool that says whether it may be called as a task, in 2025-11-25."""
STATUS: Final = "notifications/tasks/status"
"""How a status is told in 2025-11-25."""
NOTICE: Final = "notifications/tasks"
"""How it is told in the modern era: on a subscription, and nowhere else."""
UNKNOWN: Final = "Failed to retrieve task: Task not found"
"""One answer for what was never issued, what was altered, and what is another caller's."""
_CONTEXT: Final = "task"
_MAX_KEPT_BYTES: Final = 4096
_decode_text: Final = msgspec.json.Decoder(str).decode


@final
class Task(msgspec.Struct, frozen=True, array_like=True):
    """Where a task is: the backend that has it, the era it was made in, the backend's own id for it."""

    backend: str
    era: Era
    own: str


_encode_task: Final = msgspec.json.Encoder().encode
_decode_task: Final = msgspec.json.Decoder(Task).decode


def shown(sealer: sealed.Sealer, caller: Caller, task: Task) -> str:
    """The id under which `caller` knows a task: always the same one, while the newest key is."""
    return sealer.seal_alike(_encode_task(task), sealed.context(_CONTEXT, caller.subject))


def opened(sealer: sealed.Sealer, caller: Caller, task_id: str) -> Task:
    """The task that `caller` means. Raises ProtocolError for an id that is not one of this caller's."""
    payload = sealer.open(task_id, sealed.context(_CONTEXT, caller.subject))
    try:
        return _decode_task(payload)
    except jsonrpc.UNREADABLE as error:
        raise ProtocolError("the id is not a task's") from error


def found(sealer: sealed.Sealer, caller: Caller, era: Era, task_id: str) -> Task:
    """The task that `caller` means in a request of `era`. Raises InvalidParams, as the clauses of both eras say."""
    try:
        task = opened(sealer, caller, task_id)
    except ProtocolError as error:
        raise InvalidParams(UNKNOWN) from error
    if task.era != era:
        raise InvalidParams(
            f"Failed to retrieve task: it was created in the {task.era} era, and tasks of the two eras are not "
            "wire-compatible (SEP-2663, Backward Compatibility)"
        )
    return task


def check_client(client: Client) -> None:
    """Raises MissingCapability when a modern client did not declare the extension (SEP-2663, Protocol Errors)."""
    if client.revision.era == "modern" and not is_declared(client.capabilities):
        raise MissingCapability("Missing required client capability", {"extensions": {EXTENSION: {}}})


def takes_tasks(client: Client) -> bool:
    """Whether a call of this client's may be answered with a task of the modern era."""
    return client.revision.era == "modern" and is_declared(client.capabilities)


def plain(params: Params) -> Params:
    """The parameters of a call that does not ask to be made a task: the client's revision has no such member."""
    return {name: value for name, value in params.items() if name != "task"}


def is_declared(capabilities: Json) -> bool:
    """Whether these client capabilities have the extension."""
    text = bytes(capabilities)
    return _is_declared(text) if len(text) > _MAX_KEPT_BYTES else _is_kept_declared(text)


def _is_declared(capabilities: bytes) -> bool:
    try:
        return EXTENSION in _extensions(jsonrpc.members(capabilities))
    except ProtocolError:
        return False


_is_kept_declared: Final = lru_cache(maxsize=256)(_is_declared)


def offered(capabilities: Params, client: Era, backend: Era) -> Params:
    """What a backend offers of tasks to a client: that of their era, nothing across eras."""
    kept = dict(capabilities)
    if client == "modern" or backend == "modern":
        kept.pop(CAPABILITY, None)
    return kept if client == backend == "modern" else without_extension(kept)


def without_extension(capabilities: Params) -> Params:
    """Capabilities less the extension, which is not defined in the handshake era (SEP-2663, Backward Compatibility:
    it MUST NOT be treated as enabling tasks there)."""
    try:
        extensions = _extensions(capabilities)
    except ProtocolError:
        return capabilities
    if EXTENSION not in extensions:
        return capabilities
    kept = {name: value for name, value in capabilities.items() if name != "extensions"}
    others = {name: value for name, value in extensions.items() if name != EXTENSION}
    if others:
        kept["extensions"] = jsonrpc.raw(others)
    return kept


def offers(capabilities: Params, *path: str) -> bool:
    """Whether server capabilities of 2025-11-25 have `tasks.<path>`: an object, however empty."""
    held = capabilities
    try:
        for name in (CAPABILITY, *path):
            held = jsonrpc.members(held[name])
    except (KeyError, ProtocolError):
        return False
    return True


def undeclared(client: Client, capabilities: Params) -> frozenset[str]:
    """The members of tools that mean nothing to `client`, as their server does not take calls as tasks: where several
    servers are shown as one they would (basic/utilities/tasks of 2025-11-25, "Tool-Level Negotiation", 1)."""
    if not client.revision.has_tasks or offers(capabilities, "requests", "tools", "call"):
        return frozenset()
    return EXECUTION


def id_in(members: Params) -> str:
    """The `taskId` of an object. Raises ProtocolError."""
    try:
        return _decode_text(members["taskId"])
    except (KeyError, *jsonrpc.UNREADABLE) as error:
        raise ProtocolError("a task without a taskId") from error


def related_in(members: Params) -> str | None:
    """The id of the task that parameters or a result say they belong to; None when they name none."""
    meta = members.get("_meta")
    if meta is None or b"related-task" not in bytes(meta):
        return None
    try:
        return id_in(jsonrpc.members(jsonrpc.members(meta)[RELATED_KEY]))
    except (KeyError, ProtocolError):
        return None


def related(members: Params, task_id: str) -> Params:
    """Parameters or a result that belong to that task, the rest as it was."""
    meta = jsonrpc.members(members["_meta"])
    meta[RELATED_KEY] = jsonrpc.raw({**jsonrpc.members(meta[RELATED_KEY]), "taskId": task_id})
    return {**members, "_meta": jsonrpc.raw(meta)}


def named(members: Params, task_id: str) -> Params:
    """An object about a task, under that id."""
    return {**members, "taskId": jsonrpc.raw(task_id)}


def _extensions(capabilities: Params) -> dict[str, Raw]:
    held = capabilities.get("extensions")
    return {} if held is None else jsonrpc.members(held)
