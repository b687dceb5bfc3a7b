"""Runs wrk, the closed-loop load generator, and reads what its script reports.

While measuring, the script does not look into the answers (that would slow wrk down); a pass with `check` does, and
counts every answer that is not a JSON-RPC result.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.calls import Call

_SCRIPT = Path(__file__).with_name("call.lua")
_TIMEOUT_S = 10
CONNECTIONS = 32


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw. Latencies are those of a closed loop with `CONNECTIONS` connections."""

    requests: int
    duration_us: int
    bytes: int
    p50_us: int
    p99_us: int
    max_us: int
    bad_status: int
    bad_socket: int
    timeouts: int
    wrong: int

    @property
    def calls_per_s(self) -> float:
        return self.requests / self.duration_us * 1e6

    @property
    def errors(self) -> int:
        return max(self.bad_status, self.wrong) + self.bad_socket + self.timeouts


def press(url: str, call: Call, directory: Path, *, duration_s: int, check: bool = False) -> Load:
    """Repeat one call for whole seconds over 32 keep-alive connections."""
    headers, body = directory / "wrk.headers", directory / "wrk.body"
    headers.write_text("".join(f"{name}: {value}\n" for name, value in call.headers.items()))
    body.write_bytes(call.body)
    command = ["wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{duration_s}s"]
    command += ["--timeout", f"{_TIMEOUT_S}s", "--latency", "--script", str(_SCRIPT), url, "--"]
    command += [str(headers), str(body), *(["check"] if check else [])]
    limit_s = duration_s + _TIMEOUT_S + 20
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        raise RuntimeError(f"wrk gave no result ({done.returncode}): {done.stdout[-500:]} {done.stderr[-500:]}")
    return msgspec.json.decode(found[0].removeprefix("RESULT "), type=Load)
