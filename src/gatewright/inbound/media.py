"""Media types of requests: what a client sends, and what it takes for an answer.

Pure functions over header values. Sources: RFC 9110 sections 8.3 and 12.5.1; basic/transports of every revision.
"""

from __future__ import annotations

JSON = frozenset({"application/json", "application/*", "*/*"})
STREAM = frozenset({"text/event-stream", "text/*", "*/*"})
MAX_RANGES = 32
"""Media ranges that are read of an `Accept`: clients send two or three, and a header full of commas took 30 ms."""


def is_json(content_type: bytes) -> bool:
    """Whether a `Content-Type` says JSON, whatever its parameters."""
    return content_type.partition(b";")[0].strip().lower() == b"application/json"


def takes_both(accept: bytes) -> bool:
    """Whether an `Accept` takes JSON and event streams alike: a POST may be answered with either."""
    ranges = _ranges(accept)
    return bool(ranges & JSON) and bool(ranges & STREAM)


def takes_stream(accept: bytes) -> bool:
    """Whether an `Accept` takes event streams."""
    return bool(_ranges(accept) & STREAM)


def _ranges(accept: bytes) -> set[str]:
    """The media ranges that are not refused by a weight of zero."""
    ranges = set()
    for part in accept.decode("latin-1").lower().split(",", MAX_RANGES)[:MAX_RANGES]:
        media, *parameters = (piece.strip() for piece in part.split(";", MAX_RANGES))
        weights = [
            value.strip() for name, _, value in (one.partition("=") for one in parameters) if name.strip() == "q"
        ]
        if media and not any(weight and not weight.strip("0.") for weight in weights):
            ranges.add(media)
    return ranges
