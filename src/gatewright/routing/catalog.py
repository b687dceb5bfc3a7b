"""The catalog: who offers what, as immutable values and pure functions.

A `Listing` is one backend's list of one kind, read once. Names of tools and prompts are prefixed with the backend's
name on the route that serves all; resource URIs are not, because tools, links and MCP Apps (`ui://`) refer to them.
Source: server/{tools,resources,prompts} of every revision; THREATS "tool shadowing".
"""

from __future__ import annotations

from typing import Final, Literal, final
from urllib.parse import quote

import msgspec
from msgspec import Raw

from gatewright.call import Json
from gatewright.errors import BackendGarbage, ProtocolError
from gatewright.protocol import jsonrpc
from gatewright.protocol.methods import Method

Scope = Literal["public", "private"]
MAX_TTL_MS: Final = 86_400_000
"""A day: the longest that a backend's word is taken for, however long it says."""
_WRITTEN_AS_IS: Final = "!#$%&'()*+,-./:;=?@[]_~{}"
"""What a URI may hold and percent-encoding leaves alone, and the marks of expressions."""
_decode_items: Final = msgspec.json.Decoder(list[Raw]).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_decode_int: Final = msgspec.json.Decoder(int).decode


@final
class Listing(msgspec.Struct, frozen=True):
    """One backend's list of one kind: its items as they are shown on the shared route, and how long they hold."""

    keys: tuple[str, ...]
    """The backend's own names or URIs, in its order."""
    items: tuple[bytes, ...]
    """The item objects, names prefixed, one for each key."""
    ttl_ms: int
    scope: Scope
    known: frozenset[str] = frozenset()
    """The keys, to look one up."""

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return sum(map(len, self.items)) + 200 * len(self.keys)


@final
class Page(msgspec.Struct, frozen=True):
    """One page of a backend's list, as it came."""

    items: list[Raw]
    next_cursor: Raw | None
    ttl_ms: int | None
    scope: Scope


def read_page(method: Method, value: Json) -> Page:
    """Read one list result. Raises ProtocolError when it is not one. Hints that are not what the clause says are
    taken for the strictest."""
    result = jsonrpc.members(value)
    try:
        items = _decode_items(result[method.items or ""])
    except (KeyError, *jsonrpc.UNREADABLE) as error:
        raise ProtocolError(f"{method.name} was not answered with a list of {method.items}") from error
    ttl = result.get("ttlMs")
    ttl_ms = None if ttl is None else _lifetime_ms(ttl)
    cursor = result.get("nextCursor")
    if cursor is not None and bytes(cursor) == b"null":
        cursor = None
    scope: Scope = "public" if bytes(result.get("cacheScope", b"")) == b'"public"' else "private"
    return Page(items, cursor, ttl_ms, scope)


def listing(
    method: Method, pages: list[Page], prefix: str, default_ttl_ms: int, hidden: frozenset[str] = frozenset()
) -> Listing:
    """All pages of one backend as a listing: the strictest scope and the smallest lifetime of its pages (S-54).

    Items lose their `hidden` members. They are encoded anew, so that a member named twice cannot show a client another
    key than was read here. Raises BackendGarbage for an item that is no object or has no key.
    """
    keys: list[str] = []
    items: list[bytes] = []
    for page in pages:
        for item in page.items:
            members, key = _keyed(method, item)
            keys.append(key)
            for name in hidden:
                members.pop(name, None)
            if prefix:
                members["name"] = jsonrpc.raw(prefix + key)
            items.append(jsonrpc.encode(members))
    # A backend that offers none of a kind has no pages: that is worth remembering as long as anything without a hint.
    ttl_ms = min((default_ttl_ms if page.ttl_ms is None else page.ttl_ms for page in pages), default=default_ttl_ms)
    scope: Scope = "public" if all(page.scope == "public" for page in pages) else "private"
    return Listing(tuple(keys), tuple(items), ttl_ms, scope, frozenset(keys))


def split(name: str, separator: str) -> tuple[str, str] | None:
    """The backend and its own name in a prefixed name: the first separator divides, as no backend's name holds it."""
    backend, found, own = name.partition(separator)
    return (backend, own) if found and own else None


def matches(template: str, uri: str) -> bool:
    """Whether a URI can come from a URI template (RFC 6570): its literals in order, anything in its expressions.

    Never false for a URI that does come from it; true for more, as the backend is the judge. Characters that no URI
    has compare as the expansion writes them, percent-encoded. Linear in the URI's length whatever the template, since
    both come from strangers.
    """
    first, *pieces = _written(template).split("{")
    literals = [first]
    for piece in pieces:
        _, closed, literal = piece.partition("}")
        if not closed:
            return False
        literals.append(literal)
    uri = _written(uri)
    if len(literals) == 1:
        return uri == first
    if not uri.startswith(literals[0]) or not uri.endswith(literals[-1]):
        return False
    at, end = len(literals[0]), len(uri) - len(literals[-1])
    for literal in literals[1:-1]:
        found = uri.find(literal, at, end)
        if found < 0:
            return False
        at = found + len(literal)
    return at <= end


def _keyed(method: Method, item: Raw) -> tuple[dict[str, Raw], str]:
    """The members of an item, and what identifies it."""
    try:
        members = jsonrpc.members(item)
        return members, _decode_text(members[method.item_key or ""])
    except (KeyError, ProtocolError, *jsonrpc.UNREADABLE) as error:
        raise BackendGarbage(f"an item of {method.name} has no {method.item_key}") from error


def _lifetime_ms(ttl: Raw) -> int:
    try:
        return min(max(0, _decode_int(ttl)), MAX_TTL_MS)
    except jsonrpc.UNREADABLE:
        return 0


def _written(text: str) -> str:
    """The literals of a template, or a URI, as an expansion writes them (RFC 6570, 3.1)."""
    return quote(text, _WRITTEN_AS_IS, errors="surrogatepass")
