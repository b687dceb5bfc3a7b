"""Subscription filters and tags."""

import json
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gatewright.errors import InvalidParams
from gatewright.protocol import subscriptions
from gatewright.protocol.methods import LISTEN_FIELDS

TAG = "io.modelcontextprotocol/subscriptionId"


NAMES = st.sets(st.text(max_size=20), max_size=5)


@given(st.sets(st.sampled_from(sorted(LISTEN_FIELDS))), NAMES, NAMES)
def test_a_filter_reads_back_as_it_was_written(lists: set[str], uris: set[str], tasks: set[str]) -> None:
    """filter_of and read_filter are inverse."""
    written = json.dumps(subscriptions.filter_of(frozenset(lists), frozenset(uris), frozenset(tasks))).encode()
    assert subscriptions.read_filter(written) == (lists, uris, tasks)


@pytest.mark.parametrize(
    "text",
    [b"[]", b"5", b'{"toolsListChanged": 1}', b'{"resourceSubscriptions": "x"}', b'{"taskIds": [1]}', b"{", b"\xff"],
)
def test_what_is_no_filter_is_refused(text: bytes) -> None:
    """The client is told which member is wrong."""
    with pytest.raises(InvalidParams, match=r"params\.notifications"):
        subscriptions.read_filter(text)


def test_only_true_asks_for_a_change_notice() -> None:
    """S-40: nothing is sent that was not asked for; unknown members ask for nothing here."""
    text = b'{"toolsListChanged": false, "promptsListChanged": true, "taskIds": null, "x": true}'
    asked = frozenset({"notifications/prompts/list_changed"})
    assert subscriptions.read_filter(text) == (asked, frozenset(), frozenset())


def test_too_many_resources_are_refused() -> None:
    """The bound holds."""
    for member in ("resourceSubscriptions", "taskIds"):
        text = json.dumps({member: [str(n) for n in range(subscriptions.MAX_URIS + 1)]}).encode()
        with pytest.raises(InvalidParams, match="at most"):
            subscriptions.read_filter(text)


def test_a_uri_that_is_too_long_is_refused() -> None:
    """It is kept as long as the subscription, and a thousand of 4 MiB would be all the memory there is."""
    for size, is_taken in ((subscriptions.MAX_URI_CHARS, True), (subscriptions.MAX_URI_CHARS + 1, False)):
        text = json.dumps({"resourceSubscriptions": ["a:b", "x" * size]}).encode()
        with nullcontext() if is_taken else pytest.raises(InvalidParams, match="characters"):
            subscriptions.read_filter(text)


@pytest.mark.parametrize("request_id", [1, "one", 0, ""])
def test_a_tag_names_the_clients_own_request(request_id: int | str) -> None:
    """The id keeps its type, other `_meta` stays, and the hop's own tag is replaced."""
    tagged = json.loads(subscriptions.tagged(b'{"uri":"a","_meta":{"%b":9,"k":1}}' % TAG.encode(), request_id))
    assert tagged == {"uri": "a", "_meta": {TAG: request_id, "k": 1}}


def test_untagged_params_keep_everything_else() -> None:
    """Only the hop's own id goes; an empty `_meta` goes with it."""
    params = {"uri": Raw(b'"a"'), "_meta": Raw(b'{"%b":1}' % TAG.encode())}
    assert subscriptions.untagged(params) == {"uri": Raw(b'"a"')}
    params["_meta"] = Raw(b'{"%b":1,"k":2}' % TAG.encode())
    assert json.loads(bytes(subscriptions.untagged(params)["_meta"])) == {"k": 2}
    assert subscriptions.untagged({"uri": Raw(b'"a"')}) == {"uri": Raw(b'"a"')}
