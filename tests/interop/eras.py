"""`python -m interop.eras`, run in `tests/`: writes the generated parts of `docs/eras.md`.

The parts stand between `<!-- NAME -->` and `<!-- end of NAME -->`; everything else of the document is written by hand.
Rendered from `matrix` (real SDKs, feature by feature), `TRANSPORTS` below (who is carried where, and the tests that
show it) and the records of the conformance suite across eras. Needs no network and starts nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from conformance.baseline import load
from conformance.cross_era import load_crossings
from interop.matrix import BACKEND_TITLES, CLIENT_TITLES, FEATURES, FORBIDDEN, OPEN, Cell, cells

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "eras.md"
MATRIX_TEST = "tests/interop/test_matrix.py"

BACKENDS = ("HTTP, modern", "HTTP, handshake", "HTTP+SSE", "stdio, either era", "in process")
_CROSSES = "tests/journeys/test_plain_calls.py::test_plain_calls_cross"
_NAMED = "tests/interop/test_sdk_pairs.py::test_named_endpoint_carries_what_works_directly"
_STDIO_FRONT = "tests/inbound/test_stdio.py::test_a_host_of_either_era_calls_a_backend_of_either_era"
_REAL_HOSTS = "tests/interop/test_stdio.py::test_a_host_that_starts_it_gets_all_that_works_directly"
_TO_SSE = "tests/journeys/test_sse_transport.py::test_real_clients_reach_an_old_server"
_FROM_SSE = "tests/journeys/test_sse_transport.py::test_a_real_old_client_reaches_servers"
_CELL = f"{MATRIX_TEST}::test_cell"

# client's transport -> per backend's transport, the tests that show that calls, notices and questions are carried
TRANSPORTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "HTTP, modern": ((_CELL, _CROSSES), (_CELL, _CROSSES), (_CELL, _TO_SSE), (_CELL, _CROSSES), (_NAMED, _CROSSES)),
    "HTTP, handshake": ((_CELL, _CROSSES), (_CELL, _CROSSES), (_CELL, _TO_SSE), (_CELL, _CROSSES), (_NAMED, _CROSSES)),
    "HTTP+SSE": ((_CELL,), (_CELL,), (_CELL, _FROM_SSE), (_CELL, _FROM_SSE), (_NAMED,)),
    "stdio, either era": ((_REAL_HOSTS,), (_REAL_HOSTS,), (_REAL_HOSTS,), (_REAL_HOSTS,), (_STDIO_FRONT, _REAL_HOSTS)),
}


def shown(test: str, text: str) -> str:
    """A link to a test; its id is what a pointer over it shows."""
    path, _, name = test.partition("::")
    return f'[{text}](../{path} "{name}")'


def transports() -> str:
    """Every transport of clients with every transport of backends."""
    lines = [f"| client \\ backend | {' | '.join(BACKENDS)} |", "|---" * (len(BACKENDS) + 1) + "|"]
    for client, row in TRANSPORTS.items():
        marks = [" ".join(shown(test, "also" if number else "yes") for number, test in enumerate(one)) for one in row]
        lines.append(f"| {client} | {' | '.join(marks)} |")
    return "\n".join(lines)


def matrix() -> str:
    """One table per client: features down, backends across."""
    by_client: dict[str, list[Cell]] = {}
    for cell in cells():
        by_client.setdefault(cell.client.name, []).append(cell)
    parts = []
    for name, its_cells in by_client.items():
        lines = [f"**{CLIENT_TITLES[name]}**", "", f"| | {' | '.join(BACKEND_TITLES.values())} |"]
        lines.append("|---" * (len(BACKEND_TITLES) + 1) + "|")
        for feature in FEATURES:
            marks = [_mark(cell) for cell in its_cells if cell.feature == feature]
            lines.append(f"| {feature} | {' | '.join(marks)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _mark(cell: Cell) -> str:
    text = f"no ({_number(cell)})" if cell.forbidden else "not yet" if cell.open else "yes"
    return shown(f"{_CELL}[{cell.id}]", text)


def _number(cell: Cell) -> int:
    return list(dict.fromkeys(FORBIDDEN.values())).index(cell.forbidden) + 1


def reasons() -> str:
    """The clauses behind every `no`, and what is missing behind every `not yet`."""
    lines = [f"{number}. {clause}" for number, clause in enumerate(dict.fromkeys(FORBIDDEN.values()), 1)]
    if OPEN:
        lines += ["", "Not yet:", ""]
        lines += [f"- {era} clients, `{backend}`, {feature}: {why}" for (era, backend, feature), why in OPEN.items()]
    return "\n".join(lines)


def conformance() -> str:
    """What the official suite says across eras."""
    lines = ["| suite | backend behind the gateway | scenarios that pass |", "|---|---|---|"]
    details = []
    for revision, crossing in load_crossings().items():
        passing = load(revision).passing()
        lost = {one.scenario for one in (*crossing.forbidden, *crossing.open) if one.fails}
        lines.append(f"| {revision} | {crossing.backend} only | {len(passing - lost)} of {len(passing)} |")
        for one in crossing.forbidden:
            details.append(f"- {revision}, `{one.scenario}`. {one.reason} ({one.clause}.)")
        for one in crossing.open:
            details.append(f"- {revision}, `{one.scenario}`, not yet. {one.reason}")
    return "\n".join([*lines, "", *details])


PARTS: dict[str, Callable[[], str]] = {
    "transports": transports,
    "matrix": matrix,
    "reasons": reasons,
    "conformance": conformance,
}


def rendered(text: str) -> str:
    """The document with every generated part as it is now. Raises ValueError when the marks of one are missing."""
    for name, part in PARTS.items():
        mark = re.compile(rf"(<!-- {name} -->\n)(.*?)(<!-- end of {name} -->)", re.DOTALL)
        found = mark.search(text)
        if found is None:
            raise ValueError(f"no part {name!r}")
        text = f"{text[: found.start()]}{found[1]}\n{part()}\n\n{found[3]}{text[found.end() :]}"
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(rendered(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
