"""Media types: what is JSON, and who takes which answer."""

import pytest

from gatewright.inbound.media import is_json, takes_both, takes_stream


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (b"application/json", True),
        (b"Application/JSON ; charset=UTF-8", True),
        (b"application/json;", True),
        (b"", False),
        (b"application/jsonl", False),
        (b"application/json-rpc", False),
        (b"text/json", False),
        (b"text/plain; application/json", False),
    ],
)
def test_json_is_what_says_so(content_type: bytes, expected: bool) -> None:
    """The type alone decides, whatever its parameters."""
    assert is_json(content_type) is expected


@pytest.mark.parametrize(
    ("accept", "both", "stream"),
    [
        (b"application/json, text/event-stream", True, True),
        (b"text/event-stream,application/json", True, True),
        (b"*/*", True, True),
        (b"application/*;q=0.1, text/*", True, True),
        (b"APPLICATION/JSON, Text/Event-Stream; q=1.0", True, True),
        (b"application/json", False, False),
        (b"text/event-stream", False, True),
        (b"text/event-stream;q=0, application/json", False, False),
        (b"text/event-stream; q = 0.00, application/json", False, False),
        (b"text/event-stream;q=0.001;x=y, application/json", True, True),
        (b"text/event-streams, application/json", False, False),
        (b",, ,", False, False),
        (b"", False, False),
        (b"\xff\xfe", False, False),
        (b"a/b," * 30 + b"*/*", True, True),
        (b"a/b," * 10_000 + b"*/*", False, False),  # nobody's: reading all of it would take 30 ms
        (b";" * 30_000 + b",*/*", True, True),
    ],
)
def test_what_is_accepted(accept: bytes, both: bool, stream: bool) -> None:
    """Ranges count, case does not, and a weight of zero refuses."""
    assert takes_both(accept) is both
    assert takes_stream(accept) is stream
