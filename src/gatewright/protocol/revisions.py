"""The protocol revisions that are served, as data. An era is a set of named revisions, never an order of numbers.

Sources: docs/specification/<revision>/ of the specification, and basic/versioning of 2026-07-28.
"""

from __future__ import annotations

from typing import Final, Literal, final

import msgspec

Era = Literal["handshake", "modern"]


@final
class Revision(msgspec.Struct, frozen=True, gc=False):
    """One protocol revision and what differs in it."""

    name: str
    era: Era
    has_batches: bool = False
    """An array of messages may stand in a POST (2025-03-26 only)."""
    not_found_code: int = -32002
    """The error code of a resource that does not exist."""
    has_result_type: bool = False
    """Results carry `resultType`, and cacheable ones `ttlMs` and `cacheScope`."""
    has_elicitation: bool = True
    has_tasks: bool = False
    """A call may ask to be made a task, and tasks can be listed and waited for (2025-11-25 only)."""
    has_priming: bool = False
    """Event streams begin with an event without data, which clients of older revisions cannot read (2025-11-25)."""


HANDSHAKE_2024_11_05: Final = Revision("2024-11-05", "handshake", has_elicitation=False)
HANDSHAKE_2025_03_26: Final = Revision("2025-03-26", "handshake", has_batches=True, has_elicitation=False)
HANDSHAKE_2025_06_18: Final = Revision("2025-06-18", "handshake")
HANDSHAKE_2025_11_25: Final = Revision("2025-11-25", "handshake", has_tasks=True, has_priming=True)
MODERN_2026_07_28: Final = Revision("2026-07-28", "modern", not_found_code=-32602, has_result_type=True)

HANDSHAKE: Final = {
    revision.name: revision
    for revision in (HANDSHAKE_2025_11_25, HANDSHAKE_2025_06_18, HANDSHAKE_2025_03_26, HANDSHAKE_2024_11_05)
}
MODERN: Final = {revision.name: revision for revision in (MODERN_2026_07_28,)}
ALL: Final = MODERN | HANDSHAKE

LATEST_HANDSHAKE: Final = HANDSHAKE_2025_11_25
LATEST_MODERN: Final = MODERN_2026_07_28
ASSUMED_WITHOUT_HEADER: Final = HANDSHAKE_2025_03_26
"""What a handshake-era request without `MCP-Protocol-Version` is taken for (2025-06-18 and 2025-11-25, transports)."""


def negotiated(requested: str) -> Revision:
    """The revision to answer an `initialize` with: the requested one if it is served, else the latest (lifecycle)."""
    return HANDSHAKE.get(requested, LATEST_HANDSHAKE)
