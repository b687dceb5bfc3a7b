"""Chains of gateways: what goes on, what is refused and how that reads, and that nothing a client sends does worse."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from pydantic import TypeAdapter

from gatewright.call import Params
from gatewright.errors import ChainRefused, GatewayError, InvalidParams
from gatewright.inbound.settings import Limits
from gatewright.protocol import chain, jsonrpc, modern, refusals
from gatewright.protocol.chain import CHAIN_KEY, CHAIN_VARIABLE, MAX_CHAIN_BYTES, MAX_HOPS, Chain, inherited

IDS = st.from_regex(chain.GATEWAY_ID, fullmatch=True).filter(str.isascii)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | IDS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def meta(passed: Any) -> Params:
    """A `_meta` that says so."""
    return {CHAIN_KEY: Raw(json.dumps(passed).encode())}


def test_the_key_is_one_that_vendors_may_use() -> None:
    """A prefix of labels, none of them reserved, and a name (basic/index, `_meta`)."""
    prefix, name = CHAIN_KEY.split("/")
    assert all(re.fullmatch(r"[A-Za-z]([A-Za-z0-9-]*[A-Za-z0-9])?", label) for label in prefix.split("."))
    assert prefix.split(".")[1] not in ("modelcontextprotocol", "mcp")
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?", name)


def test_who_comes_straight_here_is_sent_on_with_this_gateway() -> None:
    """So that a gateway behind this one knows where the request has been."""
    assert Chain("here", 8).after({}) == Chain("here", 8).own == '["here"]'
    assert Chain("here", 8).after(meta([])) == '["here"]'


@given(st.lists(IDS, max_size=MAX_HOPS - 1, unique=True), IDS)
def test_a_chain_goes_on_with_this_gateway_last(passed: list[str], here: str) -> None:
    """As often as there are gateways to come, up to the bound: each reads what the one before it wrote."""
    if here in passed:
        passed.remove(here)
    assert json.loads(Chain(here, MAX_HOPS).after(meta(passed))) == [*passed, here]
    written = "[]"
    for one in (*passed, here):
        written = Chain(one, MAX_HOPS).after({CHAIN_KEY: Raw(written)})
    assert json.loads(written) == [*passed, here]
    assert len(written) <= MAX_CHAIN_BYTES


def test_a_gateway_that_is_its_own_backend_says_so() -> None:
    """The one gateway to mend is named."""
    with pytest.raises(ChainRefused, match="Gateway here is a backend of its own: take the backend") as refused:
        Chain("here", 8).after(meta(["here"]))
    assert refused.value.data == {"gateways": ["here", "here"]}


@pytest.mark.parametrize(
    ("passed", "way"),
    [
        (["a", "here", "b"], "here > b > here"),
        (["here", "b", "c", "d"], "here > b > c > d > here"),
        (["here", "b", "c", "d", "e", "f", "g"], "here > b > c > ... > g > here"),
    ],
)
def test_a_circle_names_the_gateways_in_it(passed: list[str], way: str) -> None:
    """In a text short enough to be read where lists cut reasons; all of them in the data."""
    with pytest.raises(ChainRefused, match="Gateways in a circle") as refused:
        Chain("here", 8).after(meta(passed))
    assert f"({way})" in refused.value.message
    assert refused.value.data == {"gateways": [*passed, "here"]}
    with pytest.raises(ChainRefused) as refused:
        Chain("0" * 12, 8).after(meta(["0" * 12, *(str(one) * 12 for one in range(1, 7))]))
    assert len(refused.value.message) < 200


def test_a_chain_beyond_the_bound_is_refused_in_words_of_its_own() -> None:
    """It says which bound of which gateway that is."""
    gateway = Chain("here", 3)
    assert json.loads(gateway.after(meta(["a", "b"]))) == ["a", "b", "here"]
    with pytest.raises(ChainRefused, match=r"More than 3 gateways in a row \(limits.max_hops of gateway") as found:
        gateway.after(meta(["a", "b", "c"]))
    assert found.value.data == {"gateways": ["a", "b", "c", "here"], "maxHops": 3}


@pytest.mark.parametrize(
    "junk",
    [5, "here", {"here": 1}, [1], [["a"]], [None], [""], ["a b"], ["a\n"], ["é"], ["-a"], ["a" * 65], None, True],
)
def test_what_is_no_chain_is_refused(junk: object) -> None:
    """Clearly, as a wrong parameter."""
    with pytest.raises(InvalidParams, match=f"{CHAIN_KEY} must be an array of gateway ids"):
        Chain("here", 8).after(meta(junk))


def test_a_chain_that_no_gateways_wrote_is_not_read() -> None:
    """Its length is the client's to choose."""
    with pytest.raises(InvalidParams, match="is longer than 4096 bytes"):
        Chain("here", 8).after(meta(["a"] * 100_000))
    with pytest.raises(InvalidParams, match="must be an array"):
        Chain("here", 8).after({CHAIN_KEY: Raw(b"[" * 4_000)})


@given(JSON, st.integers(1, MAX_HOPS))
def test_anything_is_sent_on_or_refused(value: object, max_hops: int) -> None:
    """Whatever a client puts there; a refusal becomes an answer."""
    try:
        written = Chain("here", max_hops).after(meta(value))
    except GatewayError as error:
        answer = json.loads(jsonrpc.error(1, refusals.failure(error)))["error"]
    else:
        answer = {"code": 0}
        assert json.loads(written) == [*(value if isinstance(value, list) else ()), "here"]
    assert answer["code"] in (0, -32602, -31005)


def test_the_settings_allow_what_can_be_carried() -> None:
    """The bound stands in both places: settings know nothing of the protocol."""
    assert Limits(max_hops=MAX_HOPS).max_hops == TypeAdapter(Limits).json_schema()["properties"]["max_hops"]["maximum"]


def test_a_child_process_knows_who_started_it() -> None:
    """And so do its own children. Requests say for themselves which gateways they passed."""
    child = Chain("child", 8, inherited({CHAIN_VARIABLE: Chain("parent", 8).for_children}))
    assert child.may_begin
    assert json.loads(child.for_children) == ["parent", "child"]
    assert json.loads(child.own) == json.loads(child.after({})) == ["child"]
    assert json.loads(child.after(meta(["other"]))) == ["other", "child"]


@pytest.mark.parametrize(("parents", "max_hops"), [(("child",), 8), (("a", "b"), 2)])
def test_a_child_that_starts_itself_begins_nothing(parents: tuple[str, ...], max_hops: int) -> None:
    """It would start a child in turn. What it is asked it answers."""
    child = Chain("child", max_hops, parents)
    assert not child.may_begin
    assert child.after({}) == child.own


@pytest.mark.parametrize("text", ["x", "[1]", '["a b"]', "{}"])
def test_an_environment_that_holds_no_chain_is_named(text: str) -> None:
    """It is not one's own doing: the variable's name says where to look."""
    assert inherited({}) == inherited({CHAIN_VARIABLE: ""}) == ()
    with pytest.raises(InvalidParams, match="GATEWRIGHT_CHAIN in the environment"):
        inherited({CHAIN_VARIABLE: text})


def modern_request(passed: Any) -> jsonrpc.Message:
    """A modern request over these gateways."""
    said = {modern.VERSION_KEY: "2026-07-28", modern.CAPABILITIES_KEY: {}, CHAIN_KEY: passed}
    return jsonrpc.decode_request(jsonrpc.request(1, "tools/list", {"_meta": said}))


def test_a_modern_request_is_admitted_by_each_gateway_on_its_own_terms() -> None:
    """What is remembered of a `_meta` is one gateway's; a refusal is a new one each time."""
    message = modern_request(["one"])
    one, two = Chain("one", 8), Chain("two", 8)
    found = []
    for _ in range(2):
        client, _ = modern.admit(message, None, None, two)
        assert json.loads(client.chain) == ["one", "two"]
        with pytest.raises(ChainRefused) as refused:
            modern.admit(message, None, None, one)
        found.append(refused.value)
    assert found[0] is not found[1]
    assert [error.data for error in found] == [{"gateways": ["one", "one"]}] * 2


def test_what_is_no_chain_is_a_malformed_meta() -> None:
    """HTTP 400, as for every other member that is wrong (basic/index)."""
    with pytest.raises(InvalidParams) as refused:
        modern.admit(modern_request(["a b"]), None, None, Chain("here", 8))
    assert refusals.status(refused.value, "modern") == 400
    assert refusals.failure(refused.value).code == -32602
