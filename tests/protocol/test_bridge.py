"""Between eras: nothing of a hop leaks, everything else stays; total over methods, eras and hostile results."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from contextlib import suppress
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import methods as sdk
from msgspec import Raw
from msgspec.structs import replace

from gatewright.call import Call, Client, Failure, InputRequired, Params, Result
from gatewright.errors import ProtocolError
from gatewright.protocol import bridge, handshake, jsonrpc, methods, modern
from gatewright.protocol.chain import CHAIN_KEY, Chain
from gatewright.protocol.methods import METHODS, Method
from gatewright.protocol.revisions import ALL, HANDSHAKE, MODERN, MODERN_2026_07_28, Revision

ROWS: list[Method | None] = [*METHODS.values(), None]
HINTS = {"resultType", "ttlMs", "cacheScope"}
SPACE = st.sampled_from(["", " ", "\n", "\t \r\n"])
SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(sorted(HINTS))
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(HINTS)) | st.text(), inner),
    max_leaves=8,
)
META_KEYS = st.sampled_from([*modern.RESERVED, "progressToken", "baggage", "traceparent", "com.example/x"]) | st.text()
METAS = st.dictionaries(META_KEYS, JSON, max_size=6)
PARAMS = st.dictionaries(st.sampled_from(["name", "arguments", "uri"]) | st.text(), JSON, max_size=4).filter(
    lambda members: "_meta" not in members
)


def members(value: object) -> Params:
    """A value's members as they are read."""
    return jsonrpc.members(json.dumps(value).encode())


def plain(value: object) -> Any:
    """What is sent, as another parser reads it."""
    return json.loads(jsonrpc.encode(value))


INFO = {"name": "c", "version": "1"}


def client(revision: Revision, capabilities: object = None, level: str | None = None) -> Client:
    """A client of that revision."""
    info = json.dumps(INFO).encode()
    return Client(revision, info, json.dumps(capabilities or {}).encode(), "s", level)


def split(meta: object) -> tuple[Params, Params]:
    """Parameters that are nothing but this `_meta`, and its members."""
    params = members({"_meta": meta})
    return params, bridge.meta_of(params)


# --- parameters to a modern backend


@given(PARAMS, METAS, st.sampled_from([*HANDSHAKE.values()]), st.sampled_from([None, "info"]), st.integers(1))
def test_a_handshake_client_is_described_to_a_modern_backend(
    given_params: dict[str, Any], meta: dict[str, Any], revision: Revision, level: str | None, token: int
) -> None:
    """By what its session said, never by what it put in `_meta`; the rest of `_meta` passes, the token is ours."""
    params = members({**given_params, "_meta": meta})
    who = client(revision, {"roots": {}, "sampling": {}, "tasks": {}, "experimental": {"x": {}}}, level)
    sent = plain(bridge.modern_params(params, bridge.meta_of(params), who, token))
    carried = sent.pop("_meta")
    assert sent == given_params
    expected = {key: value for key, value in meta.items() if key not in modern.RESERVED and key != "baggage"}
    if "progressToken" in meta:
        expected["progressToken"] = token
    expected[modern.VERSION_KEY] = "2026-07-28"
    expected[modern.INFO_KEY] = {"name": "c", "version": "1"}
    expected[modern.CAPABILITIES_KEY] = {"roots": {}, "sampling": {}, "experimental": {"x": {}}}
    if level is not None:
        expected[modern.LOG_LEVEL_KEY] = level
    assert carried == expected


@given(PARAMS, METAS, st.integers(1))
def test_a_modern_client_speaks_for_itself_to_a_modern_backend(
    given_params: dict[str, Any], meta: dict[str, Any], token: int
) -> None:
    """Its `_meta` passes as it is, less its baggage, with our progress token."""
    meta[modern.CAPABILITIES_KEY] = {"elicitation": {}}
    params = members({**given_params, "_meta": meta})
    sent = plain(bridge.modern_params(params, bridge.meta_of(params), client(MODERN_2026_07_28), token))
    carried = sent.pop("_meta")
    assert sent == given_params
    expected = {key: value for key, value in meta.items() if key != "baggage"}
    if "progressToken" in meta:
        expected["progressToken"] = token
    assert carried == expected


@given(PARAMS, METAS, st.sampled_from(list(ALL.values())), st.integers(1))
def test_the_chain_is_the_clients_own_and_never_what_a_call_in_a_session_says(
    given_params: dict[str, Any], meta: dict[str, Any], revision: Revision, token: int
) -> None:
    """In the modern era every request carries it; in the handshake era none does but `initialize`."""
    meta |= {CHAIN_KEY: ["made", "up"]}
    params = members({**given_params, "_meta": meta})
    who = replace(client(revision), chain='["a","here"]')
    sent = plain(bridge.modern_params(params, bridge.meta_of(params), who, token))
    assert sent["_meta"][CHAIN_KEY] == ["a", "here"]
    assert CHAIN_KEY not in plain(bridge.handshake_params(params, bridge.meta_of(params), token)).get("_meta", {})
    opening = plain(handshake.initialize_params(handshake.OFFERED, who.info, who.capabilities, who.chain))
    assert opening["_meta"] == {CHAIN_KEY: ["a", "here"]}


@given(PARAMS, st.booleans())
def test_a_request_of_our_own_carries_what_every_request_must(
    given_params: dict[str, Any], is_from_a_call: bool
) -> None:
    """The client in hand describes itself; nothing else that it said goes along, because the answer may be kept for
    others (S-52); no token, so that no progress is sent."""
    who = client(MODERN_2026_07_28, {"roots": {}})
    if is_from_a_call:
        said = {modern.VERSION_KEY: "2026-07-28", modern.CAPABILITIES_KEY: {"roots": {}}, "com.example/tenant": "a"}
        message = jsonrpc.decode_request(jsonrpc.request(1, "tools/list", {"_meta": said | {modern.INFO_KEY: INFO}}))
        who, _ = modern.admit(message, None, None, Chain("here", 8))
    sent = plain(bridge.modern_params(members(given_params), {}, who, 5))
    assert sent.pop("_meta") == {
        modern.VERSION_KEY: "2026-07-28",
        modern.INFO_KEY: INFO,
        modern.CAPABILITIES_KEY: {"roots": {}},
        **({CHAIN_KEY: ["here"]} if is_from_a_call else {}),
    }
    assert sent == given_params


@given(PARAMS, METAS.filter(lambda meta: modern.LOG_LEVEL_KEY not in meta), st.integers(1))
def test_an_admitted_request_is_sent_on_as_it_was_read(
    given_params: dict[str, Any], meta: dict[str, Any], token: int
) -> None:
    """From the ladder through to the backend: the same for the first client and for the next that says the same."""
    meta |= {modern.VERSION_KEY: "2026-07-28", modern.CAPABILITIES_KEY: {"elicitation": {}}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "x", "params": {**given_params, "_meta": meta}}).encode()
    expected = {key: value for key, value in meta.items() if key != "baggage"} | {CHAIN_KEY: ["here"]}
    if "progressToken" in meta:
        expected["progressToken"] = token
    for _ in range(2):
        message = jsonrpc.decode_request(body)
        who, read = modern.admit(message, None, None, Chain("here", 8))
        assert isinstance(message.params, dict)
        sent = plain(bridge.modern_params(message.params, read, who, token))
        assert sent.pop("_meta") == expected
        assert sent == given_params
        assert plain(read) == meta


@pytest.mark.parametrize("row", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("revision", ALL.values(), ids=ALL)
def test_parameters_for_a_modern_backend_pass_its_own_ladder(row: Method, revision: Revision) -> None:
    """What is written here is admitted there: both ends of the hop are ours."""
    who = client(revision, {"roots": {}}, "error")
    sent = bridge.modern_params({"name": Raw(b'"x"')}, {}, who, 1)
    message = jsonrpc.decode_request(jsonrpc.request(1, row.name, sent))
    read, _ = modern.admit(message, None, None, Chain("here", 8))
    assert read.revision is MODERN_2026_07_28
    assert modern.is_claimed(message, None)


# --- parameters to a handshake backend


@given(PARAMS, METAS, st.integers(1))
def test_a_handshake_backend_sees_nothing_of_the_modern_era(
    given_params: dict[str, Any], meta: dict[str, Any], token: int
) -> None:
    """No reserved member, no baggage, our token; unknown members stay; an empty `_meta` is none."""
    params = members({**given_params, "_meta": meta})
    sent = plain(bridge.handshake_params(params, bridge.meta_of(params), token))
    carried = sent.pop("_meta", {})
    assert sent == given_params
    expected = {key: value for key, value in meta.items() if key not in modern.RESERVED and key != "baggage"}
    if "progressToken" in meta:
        expected["progressToken"] = token
    assert carried == expected
    assert "_meta" not in given_params


def test_parameters_without_meta_gain_none() -> None:
    """Nothing was asked for."""
    assert bridge.handshake_params({}, {}, 5) == {}
    assert plain(bridge.handshake_params(members({"a": 1}), {}, 5)) == {"a": 1}


@pytest.mark.parametrize("junk", [5, None, "x", [], True])
def test_a_meta_that_is_no_object_goes_no_further(junk: object) -> None:
    """A handshake client may send anything: it is dropped, not passed on and not a crash."""
    params, meta = split(junk)
    assert meta == {}
    assert plain(bridge.handshake_params(params, meta, 5)) == {}
    assert "progressToken" not in plain(bridge.modern_params(params, meta, client(HANDSHAKE["2025-11-25"]), 5))["_meta"]


def test_what_was_given_is_not_changed() -> None:
    """A call may be sent twice, to two backends."""
    meta = {"progressToken": "t", "baggage": "b", modern.LOG_LEVEL_KEY: "info", modern.CAPABILITIES_KEY: {}}
    params, read = split(meta)
    for who in (client(MODERN_2026_07_28), client(HANDSHAKE["2025-11-25"])):
        bridge.modern_params(params, read, who, 5)
        bridge.handshake_params(params, read, 5)
    assert plain(params) == {"_meta": meta}
    assert plain(read) == meta


@pytest.mark.parametrize("token", ["t", 7, "", 0, 2**70, "\u4e16"])
def test_progress_comes_back_under_the_clients_own_token(token: object) -> None:
    """Whatever it is; the rest of the notice as it was."""
    notice = members({"progressToken": 3, "progress": 0.5, "total": 1, "message": "m", "_meta": {"x": 1}})
    expected = {"progressToken": token, "progress": 0.5, "total": 1, "message": "m", "_meta": {"x": 1}}
    assert json.loads(bridge.retokened(notice, jsonrpc.raw(token))) == expected


@given(
    st.dictionaries(st.sampled_from([*methods.ASKS.values(), "tasks", "experimental", "extensions"]) | st.text(), JSON)
)
def test_capabilities_without_asks_are_the_others(capabilities: dict[str, Any]) -> None:
    """And the function is idempotent."""
    left = bridge.without_asks(json.dumps(capabilities).encode())
    asking = {"elicitation", "sampling", "roots", "tasks"}
    assert json.loads(left) == {key: value for key, value in capabilities.items() if key not in asking}
    assert bridge.without_asks(left) == left


@given(st.dictionaries(st.sampled_from(["tasks", "elicitation", "extensions"]) | st.text(), JSON), st.booleans())
def test_capabilities_cross_the_eras_without_tasks(capabilities: dict[str, Any], is_large: bool) -> None:
    """What can be asked is the same in both; tasks are an extension in one, and in the other not defined. Large ones
    are not remembered."""
    if is_large:
        capabilities["experimental"] = {"x": "y" * 5_000}
    body = json.dumps(capabilities).encode()
    expected = {key: value for key, value in capabilities.items() if key != "tasks"}
    if isinstance(capabilities.get("extensions"), dict):
        extensions = {**capabilities["extensions"], "io.modelcontextprotocol/tasks": {}}
        body = json.dumps({**capabilities, "extensions": extensions}).encode()
        expected.pop("extensions" if not capabilities["extensions"] else "tasks", None)
    assert json.loads(bytes(bridge.across(body))) == json.loads(bytes(bridge.across(body))) == expected


# --- what a result means


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"{}", Result(b"{}")),
        (b'{"content":[]}', Result(b'{"content":[]}')),
        (b'{"resultType":"complete"}', Result(b'{"resultType":"complete"}', True)),
        (b'{ "a":1, "resultType" : "complete" }', Result(b'{ "a":1, "resultType" : "complete" }', True)),
        (b'{"a":{"resultType":"input_required"}}', Result(b'{"a":{"resultType":"input_required"}}')),
        (b'{"a":"\\"resultType\\":5"}', Result(b'{"a":"\\"resultType\\":5"}')),
        (b'{"a":1,"resultType":"input_required"}', InputRequired(b'{"a":1,"resultType":"input_required"}')),
        (b'{"result\\u0054ype":"input_required"}', InputRequired(b'{"result\\u0054ype":"input_required"}')),
    ],
)  # fmt: skip
def test_a_result_says_what_it_is(value: bytes, expected: Result | InputRequired) -> None:
    """`resultType` at the top alone; absent MUST mean complete (basic/index)."""
    for given_value in (value, Raw(value)):
        assert bridge.outcome_of(Result(given_value)) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"null", b"5", b'"x"', b"[]", b"true",
        b'{"resultType":"partial"}', b'{"resultType":""}', b'{"resultType":"Complete"}',
        b'{"resultType":"' + b"x" * 500 + b'"}', b'{"resultType":"task","taskId":"1"}',
        b'{"resultType":5}', b'{"resultType":null}', b'{"resultType":[]}', b'{"resultType":{"a":1}}',
        b'{"resultType":"\xff"}', b'{"a":1,"resultType":1e999}',
    ],
)  # fmt: skip
def test_a_result_of_no_known_form_is_a_protocol_error(value: bytes) -> None:
    """An unrecognised `resultType` MUST be considered invalid; so is one that is no string, and what is no object."""
    with pytest.raises(ProtocolError) as refused:
        bridge.outcome_of(Result(value))
    assert len(str(refused.value)) < 200


def test_a_created_task_is_for_others_to_judge() -> None:
    """Whoever knows of tasks gets the whole result, with its call; every other result never comes there."""

    class Creating:
        def begun(self, call: Call, value: bytes) -> Result:
            assert call is of
            return Result(b"judged " + value)

    of = cast("Call", object())
    judged = bridge.outcome_of(Result(Raw(b'{"resultType":"task"}')), of, Creating())
    assert judged == Result(b'judged {"resultType":"task"}')
    for value in (b"{}", b'{"resultType":"complete"}'):
        assert bridge.outcome_of(Result(value), of, Creating()) == bridge.outcome_of(Result(value))


def test_a_failure_stays_what_it_is() -> None:
    """A backend's error is a value."""
    failure = Failure(-1, "no", Raw(b"{}"))
    assert bridge.outcome_of(failure) is failure


# --- a result as the client's revision writes it

RESULT_TYPES = [None, "complete"]


@st.composite
def results(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A result object, and one way of writing it, with white space anywhere it may stand."""
    value = draw(st.dictionaries(st.text().filter(lambda key: key not in HINTS), JSON, max_size=3))
    kind = draw(st.sampled_from(RESULT_TYPES))
    if kind is not None:
        value["resultType"] = kind
    for hint in ("ttlMs", "cacheScope"):
        if draw(st.booleans()):
            value[hint] = draw(JSON | st.sampled_from([0, 5, 10**30, -1, 1.5, "public", "private"]))
    keys = draw(st.permutations(sorted(value)))
    text = ",".join(
        f"{draw(SPACE)}{json.dumps(key, ensure_ascii=draw(st.booleans()))}{draw(SPACE)}:{draw(SPACE)}"
        f"{json.dumps(value[key])}{draw(SPACE)}"
        for key in keys
    )
    return value, f"{{{draw(SPACE) if not keys else ''}{text}}}".encode()


@given(results(), st.sampled_from(ROWS))
def test_a_modern_client_gets_every_member_that_it_must(
    given_result: tuple[dict[str, Any], bytes], row: Method | None
) -> None:
    """`resultType` on every result, hints on complete cacheable ones, lawful ones as they were; nothing else changes,
    nothing stands twice, and a second pass changes nothing."""
    value, body = given_result
    outcome = bridge.outcome_of(Result(body))
    assert isinstance(outcome, Result)
    written = bytes(bridge.result_for(MODERN_2026_07_28, row, outcome))
    pairs = json.loads(written, object_pairs_hook=list)
    assert len({key for key, _ in pairs}) == len(pairs)
    found = json.loads(written)
    assert {key: found[key] for key in found if key not in HINTS} == {
        key: value[key] for key in value if key not in HINTS
    }
    assert found["resultType"] == value.get("resultType", "complete")
    if row is not None and row.is_cacheable and found["resultType"] == "complete":
        ttl_ms, scope = value.get("ttlMs", 0), value.get("cacheScope", "private")
        is_lawful = isinstance(ttl_ms, int) and not isinstance(ttl_ms, bool) and ttl_ms >= 0
        assert found["ttlMs"] == (ttl_ms if is_lawful else 0)
        assert found["cacheScope"] == (scope if scope in ("public", "private") else "private")
    else:
        assert {key: found.get(key) for key in HINTS - {"resultType"}} == {
            key: value.get(key) for key in HINTS - {"resultType"}
        }
    again = bridge.outcome_of(Result(written))
    assert isinstance(again, Result)
    assert bytes(bridge.result_for(MODERN_2026_07_28, row, again)) == written


@given(results(), st.sampled_from(ROWS), st.sampled_from([*HANDSHAKE.values()]))
def test_a_handshake_client_gets_the_result_as_it_is(
    given_result: tuple[dict[str, Any], bytes], row: Method | None, revision: Revision
) -> None:
    """Byte for byte."""
    _, body = given_result
    outcome = bridge.outcome_of(Result(body))
    assert isinstance(outcome, Result)
    assert bridge.result_for(revision, row, outcome) == body


@pytest.mark.parametrize("body", [b"{}", b"{ }", b"{\n}", b'{"a":1}', b'{ "a" : 1 }', b'{"a":"}"}', b'{"":{}}'])
def test_members_are_spliced_in_front(body: bytes) -> None:
    """Whatever the white space; an empty object gains no trailing comma."""
    written = bytes(bridge.result_for(MODERN_2026_07_28, METHODS["tools/list"], Result(body)))
    assert json.loads(written) == {
        **json.loads(body),
        "resultType": "complete",
        "ttlMs": 0,
        "cacheScope": "private",
    }
    assert written.startswith(b'{"resultType":"complete"')


@pytest.mark.parametrize(("method", "revision"), [*itertools.product(METHODS, ALL)])
def test_every_result_is_one_for_the_official_sdk(method: str, revision: str) -> None:
    """The smallest results of handshake backends, as modern clients take them."""
    model = sdk.SERVER_RESULTS.get((method, revision))
    if model is None:
        return
    smallest: dict[str, dict[str, Any]] = {
        "tools/call": {"content": []},
        "prompts/get": {"messages": []},
        "resources/read": {"contents": []},
        "completion/complete": {"completion": {"values": []}},
        "server/discover": {"supportedVersions": [], "capabilities": {}},
        "initialize": {"protocolVersion": revision, "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}},
        "subscriptions/listen": {"_meta": {modern.SUBSCRIPTION_KEY: 1}},
    }
    row = METHODS[method]
    value = smallest.get(method, {str(row.items): []} if row.items else {})
    written = bridge.result_for(ALL[revision], row, Result(json.dumps(value).encode()))
    if isinstance(model, type) and hasattr(model, "model_validate_json"):
        model.model_validate_json(bytes(written))


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()), st.sampled_from(ROWS))
def test_garbage_is_a_protocol_error(body: bytes, row: Method | None) -> None:
    """And nothing else, from both functions."""
    with suppress(ProtocolError):
        bridge.outcome_of(Result(body))
    with suppress(ProtocolError):
        bridge.result_for(MODERN_2026_07_28, row, Result(body))


# --- a backend's error as the client's revision writes it

UNDEFINED = set(range(-32099, -32019)) - {-32020, -32021, -32022}


@pytest.mark.parametrize("revision", MODERN.values(), ids=MODERN)
@pytest.mark.parametrize("code", [*range(-32110, -31990), -32700, -32603, -32602, -32601, -32600, 0, 1, -1, 2**40])
def test_a_modern_client_gets_no_code_that_must_not_be_emitted(revision: Revision, code: int) -> None:
    """S-35, and -32002 and -32042 of earlier revisions: replaced; every other code, message and data pass."""
    written = bridge.failure_for(revision, Failure(code, "m", Raw(b'{"uri":"x"}')))
    expected = {-32002: -32602}.get(code, -32603 if code in UNDEFINED else code)
    assert written == Failure(expected, "m", Raw(b'{"uri":"x"}'))
    assert bridge.failure_for(revision, written) is written


@pytest.mark.parametrize("revision", ALL.values(), ids=ALL)
@pytest.mark.parametrize("code", [-32002, -32602])
def test_a_missing_resource_has_each_revisions_own_code(revision: Revision, code: int) -> None:
    """Whichever era the backend speaks. Bad parameters are none: only the data tells the two apart."""
    read = METHODS["resources/read"]
    missing = Failure(code, "m", Raw(b'{"uri":"x"}'))
    assert bridge.failure_for(revision, missing, read).code == revision.not_found_code
    for other in (Failure(-32602, "m"), Failure(-32602, "m", Raw(b"5")), Failure(-32602, "m", Raw(b'{"x":"uri"}'))):
        assert bridge.failure_for(revision, other, read) is other
    assert bridge.failure_for(revision, Failure(-32602, "m", missing.data), METHODS["tools/call"]).code == -32602


@pytest.mark.parametrize("revision", HANDSHAKE.values(), ids=HANDSHAKE)
@pytest.mark.parametrize("code", [-32002, -32042, -32050, -32602])
def test_a_handshake_client_gets_the_error_as_it_is(revision: Revision, code: int) -> None:
    """Its revision reserves nothing."""
    failure = Failure(code, "m")
    assert bridge.failure_for(revision, failure) is failure


def test_large_capabilities_are_not_remembered() -> None:
    """Strangers write them, and every call may bring others: what is remembered of some hundreds must stay small."""
    tracemalloc.start()
    try:
        for number in range(20):
            large = b'{"roots":{},"experimental":{"n":%d,"x":"%b"}}' % (number, b"x" * 1_000_000)
            assert bridge.has_asks(large)
            assert bridge.fingerprint(large) == bridge.fingerprint(bytes(bytearray(large)))
            bridge.across(large)
        del large
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()
    assert bridge.fingerprint(b'{"roots":{}}') != bridge.fingerprint(b"{}")
    assert not bridge.has_asks(b"{}")
