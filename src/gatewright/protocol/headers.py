"""The mirrored-header codec: body values as HTTP field values and back, and whether the two agree.

`Mcp-Method`, `Mcp-Name` and `Mcp-Param-*` repeat what stands in the body, so that whatever routes on a header routes on
what the server executes. A value that is not safe as a field value travels as `=?base64?...?=`; it is decoded once, by
the strict rules below, before it is compared. Anything ambiguous is a disagreement.

Never does: reading a header table with duplicates (the listener refuses a mirrored header that came twice), following
`$ref`, recursing on a peer's schema.

Source: 2026-07-28, basic/transports/streamable-http "Request Metadata" and server/tools "x-mcp-header"; RFC 9110, 5.5.

Cost on CPython 3.11, measured here beside other work: a plain name 0.3 us to encode, 0.6 us to decode and compare; the
base64 form 1.3 us; a tool of ten properties 10 us to compile, two mirrored parameters 1.6 us to extract or to check.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final, final

import msgspec

from gatewright.errors import ProtocolError

PARAM_PREFIX: Final = "Mcp-Param-"
ANNOTATION: Final = "x-mcp-header"

MAX_SCHEMA_DEPTH: Final = 64
"""The same bound as for a JSON body: a schema that came through the front door is never deeper."""
MAX_SCHEMA_NODES: Final = 10_000

_PREFIX: Final = b"=?base64?"
_SUFFIX: Final = b"?="
_OWS: Final = b" \t"
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# JSON's own integers, and the trailing zeros that some writers add. Exponents and leading zeros are read differently
# by different parsers, so they never compare as numbers.
_INTEGER: Final = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0+)?")
_PARAM_TYPES: Final = frozenset({"string", "integer", "boolean"})

# Where JSON Schema (2020-12, and draft-07 for what differs) keeps subschemas, by the shape of the value. Anything else
# (`default`, `const`, `enum`, `examples`, unknown keywords) is data, in which the annotation's name means nothing.
_ONE_OR_MANY: Final = frozenset(
    {
        "additionalItems",
        "additionalProperties",
        "allOf",
        "anyOf",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "oneOf",
        "prefixItems",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_NAMED: Final = frozenset({"$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties"})


class InvalidAnnotation(ProtocolError):
    """An `x-mcp-header` annotation, and with it the tool definition, is invalid: the tool must not be offered."""


def encode_value(value: str) -> bytes:
    """`value` as a field value: as it is when it is safe, else in the base64 form. Raises ProtocolError for a lone
    surrogate, which no peer could have sent as JSON."""
    # isprintable() of ASCII is exactly 0x20-0x7E: a tab is a control character, so it is encoded too.
    if value.isascii() and value.isprintable() and value == value.strip(" ") and not _looks_encoded(value):
        return value.encode("ascii")
    try:
        return b"%b%b%b" % (_PREFIX, base64.b64encode(value.encode()), _SUFFIX)
    except UnicodeEncodeError as error:
        raise ProtocolError("a value with a lone surrogate has no header form") from error


def _looks_encoded(value: str) -> bool:
    """The sentinel pattern as the clause words it, `=?base64?=` included, where the two marks overlap."""
    return value.startswith("=?base64?") and value.endswith("?=")


def decode_value(raw: bytes) -> str:
    """The value that a field value stands for. Raises ProtocolError for a byte that no field value may have, and for
    a base64 form that is not what an encoder writes (alphabet, padding, stray bits, UTF-8)."""
    value = raw.strip(_OWS)
    # isprintable() of ASCII is exactly 0x20-0x7E; a tab may stand inside.
    if not value.isascii() or not (text := value.decode("ascii")).replace("\t", " ").isprintable():
        raise ProtocolError("a header value with invalid characters")
    # An overlap of the two marks leaves no room for a payload: that is plain text.
    if not (value.startswith(_PREFIX) and value.endswith(_SUFFIX)) or len(value) < len(_PREFIX) + len(_SUFFIX):
        return text
    payload = value[len(_PREFIX) : -len(_SUFFIX)]
    try:
        decoded = base64.b64decode(payload, validate=True)
        # Lenient decoders drop stray bits and padding: two spellings of one value would compare as equal.
        if base64.b64encode(decoded) != payload:
            raise ProtocolError("a header value in base64 that no encoder writes")
        return decoded.decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ProtocolError(f"a header value that does not decode: {error}") from error


def param_text(value: object) -> str | None:
    """The text that mirrors a body value, before any encoding. None when the value has none: null, arrays, objects.

    A whole number written as a float is written as an integer (`42.0` is `42`).
    """
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return _number_text(value)
        case _:
            return None


def _number_text(value: float) -> str | None:
    try:
        return str(int(value)) if value == int(value) else repr(value)
    except (ValueError, OverflowError):
        # More digits than CPython converts, NaN or an infinity: none of them is a JSON value that was accepted.
        return None


def agrees(header: bytes, body_value: object) -> bool:
    """Whether a mirrored header says what the body says. Never raises: what cannot be decoded does not agree.

    Strings and booleans compare exactly; numbers by value and without rounding, however large.
    """
    try:
        text = decode_value(header)
    except ProtocolError:
        return False
    expected = param_text(body_value)
    if expected is None:
        return False
    if text == expected:
        return True
    if isinstance(body_value, bool) or not isinstance(body_value, int | float):
        return False
    if isinstance(body_value, float) and text == repr(body_value):
        return True
    whole = _INTEGER.fullmatch(text)
    # Digits against digits: no conversion of a peer's digits, no loss beyond 2^53.
    return whole is not None and (whole[1] if whole[1] != "-0" else "0") == expected


@final
class Param(msgspec.Struct, frozen=True):
    """One annotated parameter: the chain of `properties` keys that leads to it, and its header."""

    path: tuple[str, ...]
    header: str
    key: bytes
    """The header's name in lower case, as the listener's table has it."""


@final
class ParamHeaders(msgspec.Struct, frozen=True):
    """What a tool mirrors into `Mcp-Param-*` headers. Compiled once per tool definition."""

    params: tuple[Param, ...] = ()

    def extract(self, arguments: object) -> list[tuple[str, str]]:
        """Header names and texts (before encoding) for decoded call arguments. Absent and null values are left out."""
        found: list[tuple[str, str]] = []
        for param in self.params:
            text = param_text(_value_at(arguments, param.path))
            if text is not None:
                found.append((param.header, text))
        return found

    def fields(self, arguments: object) -> list[tuple[bytes, bytes]]:
        """The same as header fields, ready for the wire."""
        return [(name.encode("ascii"), encode_value(text)) for name, text in self.extract(arguments)]

    def check(self, arguments: object, headers: Mapping[bytes, bytes]) -> str | None:
        """What disagrees between decoded arguments and the request's headers (names in lower case); None if nothing.

        A header without a value in the body disagrees too: something may have routed on it.
        """
        for param in self.params:
            header = headers.get(param.key)
            value = _value_at(arguments, param.path)
            if header is None:
                if param_text(value) is not None:
                    return f"{param.header} is missing but the argument {'.'.join(param.path)!r} is present"
            elif not agrees(header, value):
                return f"{param.header} does not match the argument {'.'.join(param.path)!r}"
        return None


def _value_at(arguments: object, path: tuple[str, ...]) -> object:
    """The value at exactly this path, None when any step is missing or not an object."""
    node = arguments
    for key in path:
        if not isinstance(node, dict):
            return None
        node = node.get(key)
    return node


def mentions_param_headers(schema: bytes) -> bool:
    """Whether an undecoded schema may hold the annotation: False is certain, True is worth compiling.

    JSON can spell any letter of the name as an escape; those of ASCII letters all begin with `\\u00`.
    """
    return b"x-mcp-header" in schema or b"\\u00" in schema


def compile_params(input_schema: object) -> ParamHeaders:
    """The mirrored parameters of a tool, from its decoded `inputSchema`.

    Raises InvalidAnnotation, with the reason, when any annotation anywhere breaks the rules, and when the schema is too
    deep or too large to tell.
    """
    params: list[Param] = []
    owners: dict[bytes, str] = {}
    for path, schema in _positions(input_schema):
        if ANNOTATION not in schema:
            continue
        if not path:
            raise InvalidAnnotation(f"{ANNOTATION} at a place that is not reached through `properties` alone")
        where = ".".join(path)
        header = _annotation_of(schema, where)
        key = (PARAM_PREFIX + header).lower().encode("ascii")
        if key in owners:
            raise InvalidAnnotation(f"property {where!r}: {ANNOTATION} {header!r} is taken by {owners[key]!r}")
        owners[key] = where
        params.append(Param(path, PARAM_PREFIX + header, key))
    return ParamHeaders(tuple(params))


def _annotation_of(schema: dict[str, object], where: str) -> str:
    header, kind = schema[ANNOTATION], schema.get("type")
    if not isinstance(header, str):
        raise InvalidAnnotation(f"property {where!r}: {ANNOTATION} must be a string")
    if _TOKEN.fullmatch(header) is None:
        raise InvalidAnnotation(f"property {where!r}: {ANNOTATION} {header[:64]!r} is not an HTTP token")
    if not isinstance(kind, str) or kind not in _PARAM_TYPES:
        raise InvalidAnnotation(f"property {where!r}: {ANNOTATION} needs the type string, integer or boolean")
    return header


_Position = tuple[tuple[str, ...] | None, dict[str, object]]


def _positions(root: object) -> list[_Position]:
    """Every place of a schema that holds a schema, with its chain of `properties` keys: None when anything else was
    crossed on the way. Level by level, so that a hostile schema costs neither the stack nor more than its bounds."""
    found: list[_Position] = []
    level: list[tuple[tuple[str, ...] | None, object]] = [((), root)]
    for _ in range(MAX_SCHEMA_DEPTH):
        here = [(path, node) for path, node in level if isinstance(node, dict)]
        found.extend(here)
        level = [child for path, node in here for child in _children(path, node)]
        if not level:
            return found
        if len(found) + len(level) > MAX_SCHEMA_NODES:
            raise InvalidAnnotation(f"the schema has more than {MAX_SCHEMA_NODES} subschemas")
    raise InvalidAnnotation(f"the schema is nested deeper than {MAX_SCHEMA_DEPTH} levels")


def _children(path: tuple[str, ...] | None, schema: dict[str, object]) -> list[tuple[tuple[str, ...] | None, object]]:
    children: list[tuple[tuple[str, ...] | None, object]] = []
    for keyword, value in schema.items():
        if keyword == "properties":
            if isinstance(value, dict):
                children.extend((None if path is None else (*path, name), sub) for name, sub in value.items())
        elif keyword in _ONE_OR_MANY:
            children.extend((None, sub) for sub in (value if isinstance(value, list) else [value]))
        elif keyword in _NAMED and isinstance(value, dict):
            children.extend((None, sub) for sub in value.values())
    return children
