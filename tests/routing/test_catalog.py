"""The catalog: hostile pages, names and URIs; templates against RFC 6570 written out slowly."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mcp.shared.uri_template import InvalidUriTemplate, UriTemplate
from msgspec import Raw

from gatewright.errors import BackendGarbage, ProtocolError
from gatewright.protocol.methods import METHODS, Method
from gatewright.routing.catalog import MAX_TTL_MS, Page, listing, matches, read_page, split

TOOLS = METHODS["tools/list"]
RESOURCES = METHODS["resources/list"]
LISTED = [row for row in METHODS.values() if row.kind == "listed"]
JUNK: list[Any] = [None, 5, -1, 1.5, True, "x", [], {}, [5], {"a": 1}]
NAMES = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NAMES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=5,
)


def page_of(method: Method, result: dict[str, Any]) -> Page:
    """A result as it is read."""
    return read_page(method, json.dumps(result).encode())


# --- pages


@pytest.mark.parametrize("method", LISTED, ids=lambda row: row.name)
@given(
    items=st.lists(st.dictionaries(NAMES, JSON, max_size=3), max_size=4),
    keys=st.lists(NAMES, min_size=4, max_size=4),
    ttl_ms=st.none() | st.integers(0, MAX_TTL_MS),
    scope=st.sampled_from(["public", "private", None, 5]),
    cursor=st.none() | NAMES,
)
def test_a_list_is_read_and_shown_whole(
    method: Method,
    items: list[dict[str, Any]],
    keys: list[str],
    ttl_ms: int | None,
    scope: object,
    cursor: str | None,
) -> None:
    """Names prefixed, and nothing else of an item touched: `_meta`, what is unknown here, order."""
    named = [{**item, str(method.item_key): key} for item, key in zip(items, keys, strict=False)]
    result = {str(method.items): named, "cacheScope": scope, "nextCursor": cursor}
    if ttl_ms is not None:
        result["ttlMs"] = ttl_ms
    page = page_of(method, result)
    assert page.scope == ("public" if scope == "public" else "private")
    assert page.ttl_ms == ttl_ms
    assert (None if page.next_cursor is None else json.loads(bytes(page.next_cursor))) == cursor
    prefix = "b." if method.item_key == "name" else ""
    found = listing(method, [page, page], prefix, 7)
    assert list(found.keys) == [item[str(method.item_key)] for item in named] * 2
    shown = [{**item, str(method.item_key): prefix + item[str(method.item_key)]} for item in named] * 2
    assert [json.loads(item) for item in found.items] == shown
    assert found.ttl_ms == (7 if ttl_ms is None else ttl_ms)
    assert found.scope == page.scope


@pytest.mark.parametrize("cursor", [b'""', b'"x"', b"5", b"{}", b"false"])
def test_a_cursor_is_opaque(cursor: bytes) -> None:
    """S-83: kept as it was written, whatever it is; `""` is one, and null is none."""
    page = read_page(TOOLS, b'{"tools":[],"nextCursor":%b}' % cursor)
    assert page.next_cursor is not None
    assert bytes(page.next_cursor) == cursor
    assert read_page(TOOLS, b'{"tools":[],"nextCursor":null}').next_cursor is None
    assert read_page(TOOLS, b'{"tools":[]}').next_cursor is None


@pytest.mark.parametrize(
    "ttl", [b"-1", b"-1e3", b"1.5", b"1e3", b"1e999", b'"5"', b"null", b"true", b"[]", b"-" + b"9" * 99]
)
def test_a_lifetime_that_is_none_holds_for_no_time(ttl: bytes) -> None:
    """A bad hint costs caching, not the list; a negative one is 0 (server/utilities/caching)."""
    assert read_page(TOOLS, b'{"tools":[],"ttlMs":%b}' % ttl).ttl_ms == 0


@pytest.mark.parametrize("ttl", [b"86400001", b"9" * 18, b"9" * 30, b"9" * 400])
def test_a_lifetime_is_bounded(ttl: bytes) -> None:
    """A backend that says for ever is asked again after a day, and no arithmetic overflows."""
    assert read_page(TOOLS, b'{"tools":[],"ttlMs":%b}' % ttl).ttl_ms == MAX_TTL_MS


@pytest.mark.parametrize("junk", [value for value in JUNK if not isinstance(value, list)])
@pytest.mark.parametrize("method", LISTED, ids=lambda row: row.name)
def test_what_is_no_list_is_a_protocol_error(method: Method, junk: object) -> None:
    """Missing, of another type, or no object at all."""
    for body in ({str(method.items): junk}, {}, junk, {"resultType": "input_required"}):
        if isinstance(body, dict) and isinstance(body.get(str(method.items)), list):
            continue
        with pytest.raises(ProtocolError):
            read_page(method, json.dumps(body).encode())


@pytest.mark.parametrize("item", [*JUNK, {"name": None}, {"name": 5}, {"name": ["x"]}, {"uri": {}}, {"Name": "x"}])
@pytest.mark.parametrize("prefix", ["", "b."])
def test_an_item_without_its_key_is_the_backends_fault(item: object, prefix: str) -> None:
    """And costs that backend's list alone: BackendGarbage, never another error, on either kind of route."""
    for method in (TOOLS, RESOURCES):
        page = page_of(method, {str(method.items): [item]})
        with pytest.raises(BackendGarbage):
            listing(method, [page], prefix, 0)


def test_an_item_that_names_its_key_twice_is_shown_as_it_was_read() -> None:
    """What a client sees is what calls are matched against."""
    page = read_page(RESOURCES, b'{"resources":[{"uri":"file:///good","uri":"file:///evil","name":"x"}]}')
    found = listing(RESOURCES, [page], "", 0)
    assert found.keys == ("file:///evil",)
    assert b"good" not in found.items[0]


@given(
    st.lists(
        st.builds(
            lambda ttl_ms, scope: Page([], None, ttl_ms, scope),
            st.none() | st.integers(0, 100),
            st.sampled_from(["public", "private"]),
        )
    )
)
def test_a_listing_takes_the_strictest_of_its_pages(pages: list[Page]) -> None:
    """S-54; a backend that offers none of a kind says nothing about how long the others hold."""
    found = listing(TOOLS, pages, "b.", 50)
    assert found.ttl_ms == min([50 if page.ttl_ms is None else page.ttl_ms for page in pages] or [50])
    assert found.scope == ("private" if any(page.scope == "private" for page in pages) else "public")


def test_hidden_members_are_left_out() -> None:
    """And nothing else."""
    page = Page([Raw(b'{"name":"x","execution":{},"title":"T"}'), Raw(b'{"name":"y"}')], None, None, "private")
    found = listing(TOOLS, [page], "b.", 0, frozenset({"execution"}))
    assert [json.loads(item) for item in found.items] == [{"name": "b.x", "title": "T"}, {"name": "b.y"}]


@given(st.binary() | JSON.map(lambda value: json.dumps({"tools": value}).encode()))
def test_garbage_raises_only_documented_errors(body: bytes) -> None:
    """ProtocolError from the page, BackendGarbage from its items."""
    with suppress(ProtocolError, BackendGarbage):
        listing(TOOLS, [read_page(TOOLS, body)], "b.", 0)
    with suppress(BackendGarbage):
        listing(TOOLS, [Page([Raw(body)], None, None, "private")], "b.", 0)


# --- names


@given(st.from_regex(r"[a-z][a-z0-9-]{0,5}", fullmatch=True), NAMES.filter(bool), st.sampled_from([".", "__", "/"]))
def test_a_prefixed_name_splits_into_what_it_was_made_of(backend: str, own: str, separator: str) -> None:
    """Whatever the backend's own name holds, separators included."""
    assert split(backend + separator + own, separator) == (backend, own)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.b.c", ("a", "b.c")),
        ("a..b", ("a", ".b")),
        (".b", ("", "b")),
        ("a.", None),
        ("a", None),
        ("", None),
        (".", None),
    ],
)
def test_the_first_separator_divides(name: str, expected: tuple[str, str] | None) -> None:
    """A name without both parts is nobody's."""
    assert split(name, ".") == expected


# --- templates: RFC 6570, all four levels, written out slowly

RESERVED = ":/?#[]@!$&'()*+,;="
#            operator: first, separator, is named, if empty, what is allowed (RFC 6570, appendix A)
OPERATORS = {
    "": ("", ",", False, "", ""),
    "+": ("", ",", False, "", RESERVED),
    "#": ("#", ",", False, "", RESERVED),
    ".": (".", ".", False, "", ""),
    "/": ("/", "/", False, "", ""),
    ";": (";", ";", True, "", ""),
    "?": ("?", "&", True, "=", ""),
    "&": ("&", "&", True, "=", ""),
}
Value = str | list[str] | dict[str, str] | None


def encoded(text: str, allowed: str) -> str:
    """Percent-encoding as an expansion does it: triplets pass where reserved characters do."""
    if not allowed:
        return quote(text, "")
    return "".join(
        part if re.fullmatch("%[0-9A-Fa-f]{2}", part) else quote(part, allowed)
        for part in re.split("(%[0-9A-Fa-f]{2})", text)
    )


def one_variable(spec: str, value: Value, operator: str) -> str | None:
    """A variable of an expression, expanded; None when it is undefined."""
    _, separator, is_named, if_empty, allowed = OPERATORS[operator]
    name, length, is_exploded = spec, None, spec.endswith("*")
    if is_exploded:
        name = spec[:-1]
    elif ":" in spec:
        name, _, digits = spec.partition(":")
        length = int(digits)
    if value is None or (isinstance(value, (list, dict)) and not value):
        return None
    if isinstance(value, str):
        text = encoded(value if length is None else value[:length], allowed)
        return (f"{name}={text}" if text else name + if_empty) if is_named else text
    if isinstance(value, list):
        parts = [encoded(one, allowed) for one in value]
        if not is_exploded:
            return f"{name}={','.join(parts)}" if is_named else ",".join(parts)
        return separator.join((f"{name}={one}" if one else name + if_empty) if is_named else one for one in parts)
    pairs = [(encoded(key, allowed), encoded(one, allowed)) for key, one in value.items()]
    if is_exploded:
        return separator.join(f"{key}={one}" if one or not is_named else key + if_empty for key, one in pairs)
    joined = ",".join(f"{key},{one}" for key, one in pairs)
    return f"{name}={joined}" if is_named else joined


def expanded(template: str, variables: dict[str, Value]) -> str:
    """A template expanded (RFC 6570, section 3)."""

    def expression(found: re.Match[str]) -> str:
        operator, body = found[1], found[2]
        first, separator, *_ = OPERATORS[operator]
        parts = [one_variable(spec, variables.get(re.split(r"[*:]", spec)[0]), operator) for spec in body.split(",")]
        defined = [part for part in parts if part is not None]
        return first + separator.join(defined) if defined else ""

    pieces = re.split(r"(\{[^}]*\})", template)
    return "".join(
        re.sub(r"^\{([+#./;?&]?)([^}]*)\}$", expression, piece) if piece.startswith("{") else encoded(piece, RESERVED)
        for piece in pieces
    )


RFC_VARIABLES: dict[str, Value] = {
    "count": ["one", "two", "three"],
    "dub": "me/too",
    "hello": "Hello World!",
    "half": "50%",
    "var": "value",
    "who": "fred",
    "base": "http://example.com/home/",
    "path": "/foo/bar",
    "list": ["red", "green", "blue"],
    "keys": {"semi": ";", "dot": ".", "comma": ","},
    "v": "6",
    "x": "1024",
    "y": "768",
    "empty": "",
    "empty_keys": {},
    "undef": None,
}


@pytest.mark.parametrize(
    ("template", "uri"),
    [
        ("{var}", "value"),
        ("{hello}", "Hello%20World%21"),
        ("{half}", "50%25"),
        ("O{empty}X", "OX"),
        ("O{undef}X", "OX"),
        ("{x,hello,y}", "1024,Hello%20World%21,768"),
        ("{var:3}", "val"),
        ("{list}", "red,green,blue"),
        ("{list*}", "red,green,blue"),
        ("{keys}", "semi,%3B,dot,.,comma,%2C"),
        ("{keys*}", "semi=%3B,dot=.,comma=%2C"),
        ("{+half}", "50%25"),
        ("{+path}/here", "/foo/bar/here"),
        ("here?ref={+path}", "here?ref=/foo/bar"),
        ("{+keys*}", "semi=;,dot=.,comma=,"),
        ("{#x,hello,y}", "#1024,Hello%20World!,768"),
        ("X{.list*}", "X.red.green.blue"),
        ("X{.empty_keys}", "X"),
        ("{/var,x}/here", "/value/1024/here"),
        ("{/list*,path:4}", "/red/green/blue/%2Ffoo"),
        ("{;x,y,empty}", ";x=1024;y=768;empty"),
        ("{;keys*}", ";semi=%3B;dot=.;comma=%2C"),
        ("{?x,y,empty}", "?x=1024&y=768&empty="),
        ("?fixed=yes{&x}", "?fixed=yes&x=1024"),
        ("{?list*}", "?list=red&list=green&list=blue"),
        ("{&keys*}", "&semi=%3B&dot=.&comma=%2C"),
    ],
)
def test_the_slow_expansion_is_the_rfcs_and_matches(template: str, uri: str) -> None:
    """Its own examples (RFC 6570, section 3.2)."""
    assert expanded(template, RFC_VARIABLES) == uri
    assert matches(template, uri)


LITERALS = st.text("ab/.?&=#:%é{ ".replace("{", ""), max_size=4).map(lambda text: text.replace("%", "%41"))
SPECS = st.sampled_from(["a", "b", "c", "a:2", "b*", "c*", "a*"])
EXPRESSIONS = st.builds(
    lambda operator, specs: "{" + operator + ",".join(specs) + "}",
    st.sampled_from(list(OPERATORS)),
    st.lists(SPECS, min_size=1, max_size=3),
)
TEMPLATES = st.lists(LITERALS | EXPRESSIONS, max_size=6).map("".join)
TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=5) | st.text("ab/.?&=", max_size=5)
VALUES = st.none() | TEXTS | st.lists(TEXTS, max_size=3) | st.dictionaries(TEXTS, TEXTS, max_size=2)
VARIABLES = st.fixed_dictionaries({"a": st.none() | TEXTS, "b": VALUES, "c": VALUES})


@given(TEMPLATES, VARIABLES)
def test_every_expansion_matches_its_template(template: str, variables: dict[str, Value]) -> None:
    """All four levels, any values: a resource that exists is never called unknown."""
    assert matches(template, expanded(template, variables))


@given(TEMPLATES, VARIABLES)
def test_the_official_sdks_expansions_match_too(template: str, variables: dict[str, Value]) -> None:
    """Differential, where the SDK knows the template."""
    texts = {key: value for key, value in variables.items() if isinstance(value, (str, list))}
    try:
        uri = UriTemplate.parse(template).expand(texts)
    except (InvalidUriTemplate, ValueError, TypeError):
        return
    assert matches(template, uri)


def slowly(template: str, uri: str) -> bool:
    """The same judgement by a regular expression: literals in order, anything in expressions."""
    pieces = re.split(r"\{[^{}]*\}", template)
    if any("{" in piece for piece in pieces):
        return False
    written = [re.escape(quote(piece, RESERVED + "%{}")) for piece in pieces]
    return re.fullmatch(".*".join(written), quote(uri, RESERVED + "%{}"), re.DOTALL) is not None


@given(
    st.text("ab{}", max_size=12) | TEMPLATES,
    st.text("ab", max_size=10) | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=6),
)
@example("a{x}ab", "ab")
@example("ab{x}ba", "aba")
@example("{x}a{y}a{z}", "a")
@example("{x}{y}", "")
@example("a{x", "a")
@example("a}b", "a}b")
def test_a_match_is_literals_in_order_and_anything_between(template: str, uri: str) -> None:
    """Against a regular expression, which may take exponential time on longer ones."""
    assert matches(template, uri) is slowly(template, uri)


HOSTILE: list[Callable[[int], tuple[str, str]]] = [
    lambda size: ("{a}" * size, "x" * size),
    lambda size: ("{a}x" * size, "x" * size),
    lambda size: ("{a}x" * size + "y", "x" * size * 2),
    lambda size: ("{a}" + "x" * size + "{b}" + "x" * size + "y{c}", "x" * size * 3),
    lambda size: ("{" * size, "x" * size),
    lambda size: ("{a}xxxxxxxxxxxxxxxy" * (size // 16), "x" * size),
    lambda size: ("é{a}" * size, "é" * size),
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_template_takes_time_in_proportion_to_its_length(hostile: Callable[[int], tuple[str, str]]) -> None:
    """Both come from strangers. At this length anything quadratic would outlast the test's own bound."""
    matches(*hostile(300_000))
