"""The handshake: every state with every event, and the messages that open a session, hostile ones included."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from contextlib import suppress
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import methods as sdk
from msgspec import Raw

from gatewright.call import Params
from gatewright.errors import InvalidParams, InvalidRequest, ProtocolError
from gatewright.protocol import handshake, jsonrpc
from gatewright.protocol.handshake import TRANSITIONS, Event, State
from gatewright.protocol.revisions import HANDSHAKE, LATEST_HANDSHAKE, MODERN

EVENTS: tuple[Event, ...] = get_args(Event)
JUNK = [b"null", b"5", b'"x"', b"[]", b"true", b"1.5"]


def params(**members: Any) -> Params:
    """The parameters of an `initialize` as they are read."""
    return jsonrpc.members(json.dumps(members).encode())


# --- the transition table

EXPECTED = {
    (State.NEW, "initialize"): State.OPENED,
    (State.NEW, "end"): State.ENDED,
    (State.OPENED, "initialized"): State.READY,
    (State.OPENED, "message"): State.OPENED,
    (State.OPENED, "end"): State.ENDED,
    (State.READY, "initialized"): State.READY,
    (State.READY, "message"): State.READY,
    (State.READY, "end"): State.ENDED,
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", EVENTS)
def test_every_state_takes_an_event_or_refuses_it(state: State, event: Event) -> None:
    """The lifecycle of basic/lifecycle: one initialize, first of all; nothing after the end."""
    after = EXPECTED.get((state, event))
    if after is None:
        with pytest.raises(InvalidRequest):
            handshake.advance(state, event)
    else:
        assert handshake.advance(state, event) is after


def test_the_table_knows_every_state_and_no_other_event() -> None:
    """Total: a state without a row would be a crash."""
    assert set(TRANSITIONS) == set(State)
    assert {event for row in TRANSITIONS.values() for event in row} == set(EVENTS)


@given(st.lists(st.sampled_from(EVENTS), max_size=12))
def test_no_history_leads_back_to_before(events: list[Event]) -> None:
    """A session is initialised once, and what has ended stays ended."""
    order = list(State)
    state = State.NEW
    for event in events:
        before = state
        with suppress(InvalidRequest):
            state = handshake.advance(state, event)
        assert order.index(state) >= order.index(before)
        assert before is not State.ENDED or state is State.ENDED


# --- a client introduces itself


@pytest.mark.parametrize("requested", [*HANDSHAKE, *MODERN, "2099-01-01", ""])
def test_a_client_is_known_by_what_it_says(requested: str) -> None:
    """Its revision as agreed, its capabilities and identity as bytes, bound to its session."""
    members = {"protocolVersion": requested, "capabilities": {"roots": {}}, "clientInfo": {"name": "c", "version": "1"}}
    client = handshake.client_of(params(**members), "s")
    assert client.revision.name == (requested if requested in HANDSHAKE else LATEST_HANDSHAKE.name)
    assert json.loads(bytes(client.capabilities)) == {"roots": {}}
    assert json.loads(bytes(client.info)) == {"name": "c", "version": "1"}
    assert (client.session, client.log_level) == ("s", None)


@pytest.mark.parametrize("version", [5, None, [], {}, True])
def test_a_version_that_is_no_string_is_refused(version: object) -> None:
    """-32602."""
    with pytest.raises(InvalidParams):
        handshake.client_of(params(protocolVersion=version), "s")
    with pytest.raises(InvalidParams):
        handshake.client_of({}, "s")


@pytest.mark.parametrize("junk", JUNK)
def test_capabilities_that_are_no_object_are_refused(junk: bytes) -> None:
    """They are looked into later, when a backend asks: too late to tell the client."""
    with pytest.raises(InvalidParams, match="capabilities"):
        handshake.client_of({"protocolVersion": Raw(b'"2025-11-25"'), "capabilities": Raw(junk)}, "s")


@pytest.mark.parametrize("member", ["capabilities", "clientInfo"])
def test_a_client_that_says_too_much_of_itself_is_refused(member: str) -> None:
    """It is kept as long as its session: a few hundred bodies of 4 MiB would be all the memory there is."""
    room = handshake.MAX_CLIENT_BYTES - len('{"x": ""}') - len("{}")
    most = {"protocolVersion": "2025-11-25", member: {"x": "a" * room}}
    handshake.client_of(params(**most), "s")
    with pytest.raises(InvalidParams, match="exceed"):
        handshake.client_of(params(**{**most, member: {"x": "a" * (room + 1)}}), "s")


def test_a_session_keeps_nothing_of_the_body_that_opened_it() -> None:
    """What is not read of a body must not live as long as what is: the parts that are read are views of it."""
    junk = {"junk": "x" * 1_000_000}
    client = params(protocolVersion="2025-11-25", capabilities={"roots": {}}, clientInfo={"name": "c"}, **junk)
    server = json.dumps({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}).encode()
    answer = jsonrpc.members(b'{"result":%b,"junk":"%b"}' % (server, b"x" * 1_000_000))["result"]
    tracemalloc.start()
    try:
        kept = [handshake.client_of(client, "s") for _ in range(20)]
        read = [handshake.read_initialize_result(answer) for _ in range(20)]
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()
    assert len(kept) == len(read)


@pytest.mark.parametrize(
    "info",
    [b"{}", b'{"name":"c"}', b'{"version":"1"}', b'{"name":5,"version":null}', b'{"name":"c","title":"T"}', *JUNK],
)
def test_an_identity_is_whole_for_whoever_reads_it_strictly(info: bytes) -> None:
    """`name` and `version` are required of an Implementation: strict backends refuse an `initialize` without."""
    client = handshake.client_of({"protocolVersion": Raw(b'"2025-11-25"'), "clientInfo": Raw(info)}, "s")
    opened = handshake.initialize_params(LATEST_HANDSHAKE, info, b"{}")
    for found in (json.loads(bytes(client.info)), json.loads(jsonrpc.encode(opened))["clientInfo"]):
        assert isinstance(found["name"], str)
        assert isinstance(found["version"], str)
        said = json.loads(info)
        if isinstance(said, dict):
            assert all(found[key] == value for key, value in said.items() if isinstance(value, str))


def test_a_whole_identity_is_passed_on_with_all_it_holds() -> None:
    """Title, icons and what is not known here included."""
    info = {"name": "c", "version": "1", "title": "T", "icons": [{"src": "data:,"}], "com.example/x": {"a": None}}
    assert json.loads(bytes(handshake.identity(json.dumps(info).encode()))) == info


@pytest.mark.parametrize("revision", HANDSHAKE.values(), ids=HANDSHAKE)
def test_our_own_initialize_is_one_for_the_official_sdk(revision: Any) -> None:
    """Also for a modern client that gave no clientInfo, which it need not."""
    opened = handshake.initialize_params(revision, b"{}", b'{"roots":{}}')
    model = sdk.CLIENT_REQUESTS["initialize", revision.name]
    model.model_validate_json(jsonrpc.request(1, "initialize", opened))


# --- a backend answers


def test_a_backends_answer_is_read() -> None:
    """Its revision, and what it offers."""
    body = b'{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true}},"serverInfo":{"name":"s"}}'
    revision, answer = handshake.read_initialize_result(body)
    assert revision.name == "2025-06-18"
    assert {key: bytes(value) for key, value in answer.capabilities.items()} == {"tools": b'{"listChanged":true}'}
    assert bytes(answer.serverInfo) == b'{"name":"s"}'
    assert answer.instructions is None


@pytest.mark.parametrize("version", ["2026-07-28", "2099-01-01", "", "2025-11-25 "])
def test_a_revision_that_is_not_served_is_refused(version: str) -> None:
    """A client MUST disconnect when it does not speak the server's choice (lifecycle)."""
    with pytest.raises(ProtocolError, match="revision"):
        handshake.read_initialize_result(json.dumps({"protocolVersion": version, "capabilities": {}}).encode())


def test_a_backend_that_says_too_much_of_itself_is_refused() -> None:
    """Its answer is kept with each session, here and in the store."""
    body = b'{"protocolVersion":"2025-11-25","capabilities":{},"instructions":"%b"}'
    handshake.read_initialize_result(body % (b"x" * 500_000))
    with pytest.raises(ProtocolError, match="exceeds"):
        handshake.read_initialize_result(body % (b"x" * handshake.MAX_SERVER_BYTES))


@pytest.mark.parametrize("junk", JUNK)
def test_what_a_backend_misspells_is_not_passed_on(junk: bytes) -> None:
    """A serverInfo that is no object is none; a capability that is null is not offered."""
    body = b'{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"prompts":null},"serverInfo":%b}' % junk
    _, answer = handshake.read_initialize_result(body)
    assert bytes(answer.serverInfo) == b"{}"
    assert list(answer.capabilities) == ["tools"]


@given(
    st.binary()
    | st.fixed_dictionaries(
        {"protocolVersion": st.sampled_from([*HANDSHAKE, "x", 5, None])},
        optional={name: st.sampled_from([{}, [], None, 5, "x"]) for name in ("capabilities", "serverInfo", "x")},
    ).map(lambda value: json.dumps(value).encode())
)
def test_garbage_is_a_protocol_error(body: bytes) -> None:
    """And nothing else."""
    with suppress(ProtocolError):
        handshake.read_initialize_result(body)
    with suppress(ProtocolError, InvalidParams):
        handshake.client_of(jsonrpc.members(body), "s")


# --- the version header

SERVED = itertools.chain([None], (name.encode() for name in HANDSHAKE))
UNSERVED = [b"2026-07-28", b"2099-01-01", b"", b"\xff", b"2025-11-25,2025-06-18", "２０２５-11-25".encode()]


@pytest.mark.parametrize("value", [*SERVED])
def test_a_served_or_absent_version_header_may_stand(value: bytes | None) -> None:
    """Clients before 2025-06-18 have none."""
    assert handshake.is_version_header_served(value)


@pytest.mark.parametrize("value", UNSERVED)
def test_any_other_version_header_may_not(value: bytes) -> None:
    """S-26: MUST 400."""
    assert not handshake.is_version_header_served(value)
