"""What the specification binds a gateway to, clause by clause, and which of it is not held by a test yet.

A test that holds a clause names its id in its docstring, wherever the test stands; `test_clauses.py` checks both ways.
Run as a program (`python tests/spec/clauses.py`) this prints the table of clauses and their tests.

Sources: docs/specification/<revision>/ of the specification. N is 2026-07-28, L is 2025-11-25 and what it kept of the
revisions before; SBP is its security best practices.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1]
CLAUSE: Final = re.compile(r"\bS-(\d+)(?: to S-(\d+))?\b")

CLAUSES: Final = {
    # N basic/transports/streamable-http: what modern clients meet
    "S-01": "One endpoint path that accepts POST.",
    "S-02": "Origin is validated on every connection; an invalid one gives 403.",
    "S-03": "Connections SHOULD be authenticated; local servers SHOULD bind loopback.",
    "S-04": "The body is one request or notification: arrays and responses are refused.",
    "S-05": "A notification is answered 202 without a body, or with an HTTP error.",
    "S-06": "A request is answered as application/json or text/event-stream.",
    "S-07": "A response stream carries notifications of its request, no requests, and ends with the response.",
    "S-08": "Streams say X-Accel-Buffering: no, and keep alive with comments.",
    "S-09": "Closing the stream cancels: work stops, nothing more is sent for it.",
    "S-10": "MCP-Protocol-Version is on every POST and equals _meta: else 400 and -32020.",
    "S-11": "A revision not served gives 400 and -32022 with `supported`; an unknown method 404 and -32601.",
    "S-12": "Mcp-Method and Mcp-Name are there, well-formed and equal to the body: else 400 and -32020.",
    "S-13": "Base64 forms are decoded before they are compared; integers compare as numbers.",
    "S-14": "Mcp-Param-* are held against the arguments; unrecognised ones are forwarded.",
    "S-15": "Header names ignore case, values do not.",
    "S-16": "Nothing is decided by a mirrored header before it was held against the body.",
    "S-17": "GET and DELETE give 405; Mcp-Session-Id and Last-Event-ID are ignored.",
    # L basic/{lifecycle,transports,utilities}: what handshake clients meet
    "S-20": "Session ids are unguessable and of visible ASCII.",
    "S-21": "Sessions are bound to their user and never authenticate.",
    "S-22": "No session id where one is needed: 400. Unknown, ended or another's: 404, all alike.",
    "S-23": "No message goes out on two streams.",
    "S-24": "Event ids are unique in the session; another stream's messages are never replayed.",
    "S-25": "A stream starts with an event id, says `retry` before it closes early, and `retry` is honoured.",
    "S-26": "Unserved MCP-Protocol-Version: 400. initialize comes first and is not cancelled; ping is answered.",
    "S-27": "Tasks are bound to who made them.",
    # N basic/index, basic/versioning, server/discover
    "S-30": "UTF-8; ids are strings or integers, never null, never one in flight.",
    "S-31": "Required _meta missing: 400 and -32602.",
    "S-32": "Nothing is remembered of the connection; an undeclared capability gives 400 and -32021.",
    "S-33": "State across requests is named in each request.",
    "S-34": "clientInfo and serverInfo decide nothing.",
    "S-35": "No undefined code of -32020..-32099 is sent; own codes lie outside -32768..-32000.",
    "S-36": "server/discover; an unknown resultType is invalid, an absent one means complete.",
    "S-37": "Trace context follows W3C, is bounded, and baggage stays here.",
    "S-38": "A 400 is read before the era is given up; the era is remembered; stdio keys on no single code.",
    # N basic/patterns/{subscriptions,progress,cancellation}, server/utilities/logging
    "S-40": "Only wanted notices; acknowledged first; under the client's own subscription id; a result at the end.",
    "S-41": "Progress tokens are unique per request, remapped per hop, and silent after the end.",
    "S-42": "Every request ends in time, whatever its progress; cancel races are survived.",
    "S-43": "Log messages only at the level asked for, never on a listen stream, never with secrets.",
    # N server/utilities/caching
    "S-50": "ttlMs (not negative) and cacheScope are on every complete cacheable result.",
    "S-51": "Private results are never shared across callers.",
    "S-52": "A kept result answers only the same method and parameters; results of retries are not kept.",
    "S-53": "cacheScope is no access control; a change notice invalidates at once.",
    "S-54": "Lists do not vary by connection; an aggregate is as strict as its strictest part.",
    # N basic/patterns/mrtr
    "S-60": "InputRequired only where allowed, with requests or state, for declared capabilities.",
    "S-61": "requestState is attacker-controlled: integrity-protected, rejected on failure.",
    "S-62": "requestState says for whom, what and until when.",
    "S-63": "As a client: requestState is echoed exactly, under a new id, with its own request.",
    # N basic/index: schemas and icons
    "S-70": "No network $ref is followed.",
    "S-71": "Schema work is bounded.",
    "S-72": "Icons are untrusted and never fetched.",
    # N server/*: tools, resources, prompts, completion, pagination
    "S-80": "Inputs are validated, access controlled, invocations limited.",
    "S-81": "A missing resource is -32602 (N) or -32002 (L), never an empty result.",
    "S-82": "Names of several servers are told apart; annotations are untrusted.",
    "S-83": 'Cursors are opaque; "" is one; our own are signed.',
    "S-84": "As a client: parameters are mirrored, unsafe values encoded, invalid tools dropped and logged.",
    # N basic/authorization
    "S-90": "Protected Resource Metadata.",
    "S-91": "Authorization on every request; no tokens in query strings.",
    "S-92": "Tokens are validated, the audience is us.",
    "S-93": "The client's token is never passed on.",
    "S-94": "401, 403 and 400 as specified.",
    "S-95": "Scopes are minimal.",
    "S-96": "Tokens are stored safely.",
    "S-100": "Discovery of authorization servers.",
    "S-101": "PKCE S256, resource indicators, state.",
    "S-102": "The issuer is compared byte for byte.",
    "S-103": "Credentials are keyed by issuer.",
    "S-104": "https only; no shell opens URLs.",
    "S-110": "Consent per client before a third party's flow.",
    "S-111": "The consent page.",
    "S-112": "Consent cookies.",
    "S-113": "redirect_uri and state, exact and single use.",
    "S-114": "The authorization server's endpoints.",
    "S-115": "Client id metadata documents.",
    "S-120": "SSRF is considered for every URL that strangers give.",
    "S-121": "Private addresses and redirects are blocked.",
    # handles, elicitation, stdio
    "S-130": "Handles do not authenticate.",
    "S-131": "Elicitation is bound to client and user.",
    "S-132": "stdio: one message a line; orderly ends; restarts.",
    "S-133": "Children are confined as far as configured.",
    "S-134": "A stdio peer can crash, hang or flood without harm to others.",
}
"""Every clause by id. An id is never given to another clause."""

_IDENTITY: Final = "identity is not built yet: every caller is the same anonymous one"
_NO_CLIENT: Final = "no OAuth client yet: backends take the credentials of the configuration"
_NO_SERVER: Final = "the gateway is no authorization server"

GAPS: Final = {
    "S-03": "authentication: " + _IDENTITY + "; binding loopback is the default of the configuration",
    "S-71": "arguments are not validated against schemas yet; reading x-mcp-header is bounded (see S-84)",
    "S-80": "limits and validation are not built yet; the backend validates",
    **{f"S-{number}": _IDENTITY for number in [*range(90, 97)]},
    **{f"S-{number}": _NO_CLIENT for number in range(100, 105)},
    **{f"S-{number}": _NO_SERVER for number in range(110, 116)},
    "S-121": "no URL of a stranger is fetched (see S-120), so none is checked",
    "S-133": "children run with the gateway's rights in a process group of their own; confinement is the deployment's",
}
"""What no test holds, and why."""

ELSEWHERE: Final = {
    "S-08": ("tests/journeys/test_modern_journey.py::test_a_silent_call_becomes_a_stream_that_is_kept_alive",),
    "S-53": ("tests/journeys/test_modern_journey.py::test_a_changed_list_is_read_anew",),
    "S-61": (
        "tests/protocol/test_sealed.py::test_every_bit_flip_is_refused",
        "tests/protocol/test_sealed.py::test_every_truncation_and_splice_is_refused",
    ),
    "S-62": ("tests/protocol/test_sealed.py::test_another_context_does_not_open_it",),
    "S-130": ("tests/protocol/test_sealed.py::test_another_context_does_not_open_it",),
    "S-131": ("tests/journeys/test_handshake_journey.py::test_another_session_cannot_answer",),
    "S-132": (
        "tests/backend/test_pipe.py::test_line_breaks_never_reach_the_wire",
        "tests/backend/test_child.py::test_a_hanging_child_ends_with_its_input",
        "tests/backend/test_child.py::test_a_stubborn_child_is_killed",
    ),
    "S-134": (
        "tests/backend/test_child.py::test_a_line_without_end_is_cut_off",
        "tests/backend/test_stdio.py::test_a_crash_loop_is_refused_at_once",
        "tests/backend/test_child.py::test_the_gateway_killed_leaves_nobody_behind",
    ),
}
"""Tests that hold a clause without naming it."""


def holders() -> dict[str, list[str]]:
    """The tests that name each clause, as pytest ids; among them ids that are no clause's."""
    found = {clause: list(tests) for clause, tests in ELSEWHERE.items()}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
                for clause in named(ast.get_docstring(node) or ""):
                    found.setdefault(clause, []).append(f"{path.relative_to(TESTS.parent)}::{node.name}")
    return found


def named(docstring: str) -> list[str]:
    """The ids in a docstring; `S-10 to S-14` are five."""
    ids: list[str] = []
    for first, last in CLAUSE.findall(docstring):
        ids.extend(f"S-{number:02}" for number in range(int(first), int(last or first) + 1))
    return ids


def main() -> None:
    """Print the table."""
    held = holders()
    for clause, text in CLAUSES.items():
        print(f"{clause}  {text}")
        for test in held.get(clause, []):
            print(f"      {test}")
        if clause in GAPS:
            print(f"      not held: {GAPS[clause]}")


if __name__ == "__main__":
    main()
