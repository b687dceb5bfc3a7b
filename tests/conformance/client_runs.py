"""Which client scenarios are run, how the SDK client speaks in each, and the running of them.

All required scenarios outside `auth/` (those belong to the sign-on tests) and the one that was added after the release
of 2026-07-28. The mock speaks its revision only. Where no question crosses the eras, the SDK client speaks the other
era as well: then nothing that the mock sees can come from the SDK, which filters tools and adds headers by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from conformance.suite import Finding, Suite

ADAPTER = (sys.executable, "-m", "conformance.client_adapter")
# Mocks and clients share two cores with whatever else runs; more at once make the timed checks say nothing.
AT_ONCE = 2

# (revision of the mock, scenario, era of the SDK client)
Run = tuple[str, str, str]

SCENARIOS: tuple[Run, ...] = (
    ("2025-06-18", "initialize", "handshake"),
    ("2025-06-18", "tools_call", "handshake"),
    ("2025-11-25", "initialize", "handshake"),
    ("2025-11-25", "initialize", "modern"),
    ("2025-11-25", "tools_call", "handshake"),
    ("2025-11-25", "tools_call", "modern"),
    ("2025-11-25", "elicitation-sep1034-client-defaults", "handshake"),
    ("2025-11-25", "json-schema-2020-12-preservation", "handshake"),
    ("2025-11-25", "sse-retry", "handshake"),
    ("2026-07-28", "tools_call", "modern"),
    ("2026-07-28", "tools_call", "handshake"),
    ("2026-07-28", "request-metadata", "modern"),
    ("2026-07-28", "sep-2322-client-request-state", "modern"),
    ("2026-07-28", "http-standard-headers", "modern"),
    ("2026-07-28", "http-standard-headers", "handshake"),
    ("2026-07-28", "http-custom-headers", "modern"),
    ("2026-07-28", "http-custom-headers", "handshake"),
    ("2026-07-28", "http-invalid-tool-headers", "modern"),
    ("2026-07-28", "http-invalid-tool-headers", "handshake"),
    ("2026-07-28", "json-schema-ref-no-deref", "modern"),
    ("2026-07-28", "json-schema-2020-12-preservation", "modern"),
)
# Its checks measure milliseconds, so nothing else may run beside it.
ALONE = "sse-retry"

Results = dict[Run, dict[str, Finding]]


def is_native(run: Run) -> bool:
    """Whether the SDK client speaks the mock's own era."""
    revision, _, era = run
    return (era == "modern") == (revision == "2026-07-28")


def run_all(suite: Suite, scratch: Path, *, is_direct: bool = False) -> Results:
    """Every run, two at a time and the timed one alone. Directly only the native ones make sense."""
    wanted = [run for run in SCENARIOS if is_native(run) or not is_direct]

    def one(run: Run) -> tuple[Run, dict[str, Finding]]:
        revision, scenario, era = run
        results = scratch / f"{revision}-{scenario}-{era}"
        env = {"CONFORMANCE_VIA": "direct" if is_direct else "gateway", "CONFORMANCE_CLIENT_ERA": era}
        return run, suite.run_client(ADAPTER, scenario, revision, results, env)[scenario]

    def several(runs: Iterable[Run]) -> Results:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(pool.map(one, runs))

    return several(run for run in wanted if run[1] != ALONE) | dict(one(run) for run in wanted if run[1] == ALONE)
