"""The modern ladder: which rung fails first, for every combination; and header against body, byte for byte."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared import inbound as sdk
from msgspec import UNSET, Raw

from gatewright.errors import GatewayError, HeaderMismatch, MalformedMeta, UnsupportedVersion
from gatewright.protocol import headers as header_codec
from gatewright.protocol import jsonrpc, modern, refusals
from gatewright.protocol.chain import Chain
from gatewright.protocol.methods import METHODS

REVISION = "2026-07-28"
HERE = Chain("here", 8)
JUNK_META = [5, "io.modelcontextprotocol/protocolVersion", [], None, True]


def request(method: str, params: Any = UNSET) -> jsonrpc.Message:
    """A client's request as it is read."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method}
    if params is not UNSET:
        body["params"] = params
    return jsonrpc.decode_request(json.dumps(body).encode())


def meta(**changed: Any) -> dict[str, Any]:
    """A whole `_meta`, with members changed, or left out when UNSET; by their short names."""
    members: dict[str, Any] = {
        "protocolVersion": REVISION,
        "clientInfo": {"name": "c", "version": "1"},
        "clientCapabilities": {},
    }
    return {f"io.modelcontextprotocol/{key}": value for key, value in (members | changed).items() if value is not UNSET}


def mirrored(of: str, named: str | None = None, /, **changed: bytes | None) -> dict[bytes, bytes]:
    """The headers that mirror a request, with some changed, or left out when None."""
    found: dict[bytes, bytes | None] = {b"mcp-protocol-version": REVISION.encode(), b"mcp-method": of.encode()}
    if named is not None:
        found[b"mcp-name"] = header_codec.encode_value(named)
    found |= {f"mcp-{key}".replace("_", "-").encode(): value for key, value in changed.items()}
    return {key: value for key, value in found.items() if value is not None}


def code_of(message: jsonrpc.Message, name: str | None, headers: Mapping[bytes, bytes] | None) -> int:
    """The JSON-RPC code that the ladder ends in, 0 when the request is admitted. The status is 400 throughout."""
    try:
        modern.admit(message, name, headers, HERE)
    except GatewayError as error:
        return refusals.failure(error).code if refusals.status(error, "modern") == 400 else 1
    return 0


# --- the ladder

RUNGS: dict[str, list[tuple[str, int]]] = {
    "meta": [("whole", 0), ("absent", -32602), ("junk", -32602), ("no version", -32602), ("no capabilities", -32602)],
    "version header": [("same", 0), ("absent", -32020), ("other", -32020)],
    "method header": [("same", 0), ("absent", -32020), ("other", -32020)],
    "name header": [("same", 0), ("absent", -32020), ("other", -32020), ("malformed", -32020)],
    "version": [("served", 0), ("unserved", -32022)],
    "capabilities": [("object", 0), ("junk", -32602)],
    "log level": [("absent", 0), ("known", 0), ("unknown", -32602), ("junk", -32602)],
}


@pytest.mark.parametrize("method", ["tools/call", "resources/read", "prompts/get"])
def test_the_first_rung_that_fails_decides(method: str) -> None:
    """Every combination of what can be wrong on each rung (1,920 requests)."""
    name = "a.b"
    for choice in itertools.product(*RUNGS.values()):
        held = dict(zip(RUNGS, (what for what, _ in choice), strict=True))
        version = REVISION if held["version"] == "served" else "2027-01-01"
        members = meta(
            protocolVersion=UNSET if held["meta"] == "no version" else version,
            clientCapabilities=UNSET
            if held["meta"] == "no capabilities"
            else ({} if held["capabilities"] == "object" else 5),
            logLevel={"absent": UNSET, "known": "info", "unknown": "loud", "junk": 1}[held["log level"]],
        )
        params: dict[str, Any] = {"name": name, "uri": name}
        if held["meta"] != "absent":
            params["_meta"] = 5 if held["meta"] == "junk" else members
        stated = mirrored(
            method,
            name,
            protocol_version={"same": version.encode(), "absent": None, "other": b"2025-11-25"}[held["version header"]],
            method={"same": method.encode(), "absent": None, "other": b"tools/list"}[held["method header"]],
            name={"same": name.encode(), "absent": None, "other": b"a.c", "malformed": b"=?base64?!?="}[
                held["name header"]
            ],
        )
        expected = next((code for _, code in choice if code), 0)
        assert code_of(request(method, params), name, stated) == expected, held


def test_without_headers_only_the_body_counts() -> None:
    """stdio has none."""
    assert code_of(request("tools/call", {"name": "x", "_meta": meta()}), "x", None) == 0
    assert code_of(request("tools/call", {"name": "x", "_meta": meta(protocolVersion="x")}), "x", None) == -32022
    assert code_of(request("tools/call", {"name": "x", "_meta": meta(protocolVersion=5)}), "x", None) == -32602


def test_an_unserved_revision_is_told_what_is_served() -> None:
    """S-11: `supported` and `requested`, the latter cut, because it is echoed."""
    message = request("tools/list", {"_meta": meta(protocolVersion="x" * 500)})
    with pytest.raises(UnsupportedVersion) as refused:
        modern.admit(message, None, mirrored("tools/list", protocol_version=b"x" * 500), HERE)
    assert refused.value.data == {"supported": [REVISION], "requested": "x" * 40}


def test_an_admitted_request_says_who_sent_it() -> None:
    """The client as this very request describes it, and the members of its `_meta`."""
    members = meta(clientCapabilities={"roots": {}}, logLevel="error") | {"com.example/x": [1], "progressToken": 7}
    client, read = modern.admit(request("tools/list", {"_meta": members}), None, mirrored("tools/list"), HERE)
    assert client.revision.name == REVISION
    assert (json.loads(bytes(client.info)), json.loads(bytes(client.capabilities))) == (
        {"name": "c", "version": "1"},
        {"roots": {}},
    )
    assert {key: json.loads(bytes(value)) for key, value in read.items()} == members
    assert client.session == ""
    nameless, _ = modern.admit(request("ping", {"_meta": meta(clientInfo=UNSET)}), None, mirrored("ping"), HERE)
    assert bytes(nameless.info) == b"{}"


def test_a_log_level_is_kept_as_it_is_spelt_plainly() -> None:
    """Whoever compares it later compares bytes: an escape must not hide it."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"_meta": meta(logLevel="info")}})
    message = jsonrpc.decode_request(body.replace('"info"', '"\\u0069nfo"').encode())
    _, read = modern.admit(message, None, None, HERE)
    assert bytes(read[modern.LOG_LEVEL_KEY]) == b'"info"'


# --- header against body


@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("é", "é".encode()),
        ("世界", "世界".encode()),
        ("é", "é".encode("latin-1")),
        ("a\tb\x7f", b"a\tb\x7f"),
        ("a\x01", b"a\x01"),
        (" a", b" a"),
        ("a ", b"a "),
        ("=?base64?YQ==?=", b"=?base64?YQ==?="),
        ("a", b"=?base64?YQ?="),
        ("a", b"=?base64?YR==?="),
        ("a", b"=?BASE64?YQ==?="),
        ("a", b"=?base64?YQ==?=x"),
        ("a", b"=?base64?=?base64?YQ==?=?="),
        ("a", b"A"),
        ("A", b"a"),
        ("a", b""),
        ("a", b"a, a"),
        ("a", b"a\x00"),
        ("\u00e9", b"=?base64?6Q==?="),
        ("e\u0301", "=?base64?{}?=".format(base64.b64encode("é".encode()).decode()).encode()),
    ],
)
def test_a_name_header_that_is_ambiguous_or_other_is_refused(name: str, stated: bytes) -> None:
    """S-12, S-13: invalid characters, a form no encoder writes, another case or normalisation: -32020."""
    message = request("tools/call", {"name": name, "_meta": meta()})
    assert code_of(message, name, mirrored("tools/call", "x", name=stated)) == -32020


@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("a", b"a"),
        ("a", b"=?base64?YQ==?="),
        ("a b", b"a b"),
        ("a\tb", b"a\tb"),
        ("é", b"=?base64?w6k=?="),
        (" a", b"=?base64?IGE=?="),
        ("", b""),
        ("=?", b"=?"),
        ("==", b"=="),
        ("=?base64?", b"=?base64?"),
        ("=?base64?YQ==?=", b"=?base64?PT9iYXNlNjQ/WVE9PT89?="),
        ("file:///a%20b?c=d", b"file:///a%20b?c=d"),
    ],
)
def test_a_name_header_that_says_the_same_is_accepted(name: str, stated: bytes) -> None:
    """Plain where it is safe, encoded always."""
    message = request("resources/read", {"uri": name, "_meta": meta()})
    assert code_of(message, name, mirrored("resources/read", "x", name=stated)) == 0


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_every_name_is_accepted_in_the_sdks_header_form(name: str) -> None:
    """Differential: what the official client sends for any name at all."""
    message = request("prompts/get", {"name": name, "_meta": meta()})
    stated = sdk.encode_header_value(name).encode("ascii")
    assert code_of(message, name, mirrored("prompts/get", "x", name=stated)) == 0
    assert code_of(message, name, mirrored("prompts/get", name)) == 0


@given(st.text(max_size=4), st.text(max_size=4) | st.binary(max_size=12))
def test_a_raw_name_header_agrees_with_one_name_at_most(name: str, stated: str | bytes) -> None:
    """Differential: accepted here means that the SDK decodes the header to the very same name."""
    header = stated.encode("utf-8", "replace") if isinstance(stated, str) else stated
    message = request("tools/call", {"name": name, "_meta": meta()})
    if code_of(message, name, mirrored("tools/call", "x", name=header)) == 0:
        text = header.strip(b" \t").decode("ascii")
        assert sdk.decode_header_value(text) == name


@pytest.mark.parametrize("method", ["méthode", "a\nb", "a\x00", "日本"])
def test_a_method_header_with_invalid_characters_is_refused_though_it_says_the_same(method: str) -> None:
    """S-12: there is no encoded form for it."""
    message = request(method, {"_meta": meta()})
    assert code_of(message, None, mirrored("x", method=method.encode())) == -32020


def test_a_version_header_with_invalid_characters_is_a_mismatch_before_it_is_unserved() -> None:
    """The headers come first on the ladder."""
    message = request("tools/list", {"_meta": meta(protocolVersion="é")})
    assert code_of(message, None, mirrored("tools/list", protocol_version="é".encode())) == -32020


@pytest.mark.parametrize("method", [*METHODS, "example/unknown"])
def test_only_methods_with_a_name_are_held_to_a_name_header(method: str) -> None:
    """An extra `Mcp-Name` elsewhere is an unknown header like any other."""
    row = METHODS.get(method)
    message = request(method, {"_meta": meta()})
    expected = -32020 if row is not None and row.has_name_header else 0
    assert code_of(message, "x", mirrored(method)) == expected
    assert code_of(message, "x", mirrored(method, name=b"y")) == expected
    assert code_of(message, "x", mirrored(method, "x")) == 0


def test_header_values_are_case_sensitive() -> None:
    """S-15."""
    message = request("tools/list", {"_meta": meta()})
    assert code_of(message, None, mirrored("tools/list", method=b"Tools/List")) == -32020


# --- which era a request is in


@pytest.mark.parametrize(
    ("params", "header", "expected"),
    [
        (UNSET, None, False),
        (UNSET, b"2026-07-28", True),
        (UNSET, b"2025-11-25", False),
        (UNSET, b"2027-01-01", False),
        ({}, None, False),
        ({"_meta": {}}, None, False),
        ({"_meta": {"progressToken": 1}}, None, False),
        ({"_meta": meta()}, None, True),
        ({"_meta": meta()}, b"2025-11-25", True),
        ({"_meta": meta(protocolVersion=5)}, None, True),
        ({"_meta": meta(protocolVersion="2027-01-01")}, b"2027-01-01", True),
        ({"_meta": meta(protocolVersion=UNSET)}, None, False),
        ({"x": meta()}, None, False),
        ({"_meta": {"a": meta()}}, None, False),
        *(({"_meta": junk}, None, False) for junk in JUNK_META),
    ],
)
def test_the_era_is_what_the_header_or_the_body_claims(params: Any, header: bytes | None, expected: bool) -> None:
    """Without raising, whatever `_meta` is: this runs before there is anybody to refuse."""
    assert modern.is_claimed(request("tools/list", params), header) is expected


def test_the_era_is_recognised_in_every_spelling_of_the_key() -> None:
    """Writers may escape the slash, or any letter."""
    plain = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "m", "params": {"_meta": meta()}})
    for spelt in (plain.replace("/", "\\/"), plain.replace("io.", "\\u0069o."), plain.replace("model", "\\u006Dodel")):
        assert spelt != plain
        assert modern.is_claimed(jsonrpc.decode_request(spelt.encode()), None)


# --- the official classifier

HEADER_VALUES = st.sampled_from(
    [None, "2026-07-28", "2025-11-25", "tools/call", "tools/list", "a", "é", "=?base64?YQ==?="]
)


@given(
    st.sampled_from(["tools/call", "tools/list", "resources/read", "prompts/get", "x"]),
    st.sampled_from(["a", "b", "é"]),
    st.none()
    | st.sampled_from(JUNK_META)
    | st.builds(
        meta,
        protocolVersion=st.sampled_from([REVISION, "2025-11-25", "x", 5, None, UNSET]),
        clientCapabilities=st.sampled_from([{}, UNSET]),
    ),
    st.none() | st.tuples(HEADER_VALUES, HEADER_VALUES, HEADER_VALUES),
)
def test_the_verdict_is_the_official_classifiers(
    method: str, name: str, members: object, stated: tuple[str | None, ...] | None
) -> None:
    """Differential, over bodies and headers that agree and disagree in every way."""
    params: dict[str, Any] = {"name": name, "uri": name}
    if members is not None:
        params["_meta"] = members
    texts: dict[str, str] | None = None
    if stated is not None:
        keys = ("mcp-protocol-version", "mcp-method", "mcp-name")
        texts = {key: value for key, value in zip(keys, stated, strict=True) if value is not None}
    verdict = sdk.classify_inbound_request({"method": method, "params": params}, headers=texts)
    expected = verdict.code if isinstance(verdict, sdk.InboundLadderRejection) else 0
    raw = None if texts is None else {key.encode(): value.encode() for key, value in texts.items()}
    found = code_of(request(method, params), name, raw)
    if found != expected:
        # The SDK is given decoded text, so a raw name that is not ASCII passes there (S-12 has it refused); and it
        # compares a version that is no string with the header before it looks at its type.
        is_raw = texts is not None and not texts.get("mcp-name", "").isascii()
        is_junk = isinstance(members, dict) and not isinstance(members.get(modern.VERSION_KEY, ""), str)
        assert (is_raw and found == -32020) or (is_junk and found == -32602)


@given(st.binary(max_size=40), st.dictionaries(st.sampled_from([b"mcp-name", b"mcp-method"]), st.binary(max_size=9)))
def test_junk_raises_only_what_is_documented(junk: bytes, headers: dict[bytes, bytes]) -> None:
    """Whatever stands in `_meta` and in the headers."""
    message = jsonrpc.Message("2.0", 1, "tools/call", {"_meta": Raw(junk)})
    assert isinstance(modern.is_claimed(message, None), bool)
    with pytest.raises((MalformedMeta, HeaderMismatch, UnsupportedVersion)):
        modern.admit(message, "x", headers, HERE)
