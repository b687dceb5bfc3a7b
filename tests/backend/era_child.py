"""A server on standard input and output that speaks the eras named in a file, and may be odd about `server/discover`.

Usage: era_child.py FILE [dies|silent]. The file is read at the start, so that the next process may speak another era.
Needs nothing but the standard library, so that it starts quickly. The method `test/exit` ends it.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

VERSION = "io.modelcontextprotocol/protocolVersion"


def answer(message: dict[str, Any], speaks: list[str], calls: int) -> dict[str, Any] | None:
    """The result, or None for an error."""
    method = message["method"]
    is_modern = VERSION in message.get("params", {}).get("_meta", {})
    if ("modern" if is_modern else "handshake") not in speaks:
        return None
    if method == "server/discover" and is_modern:
        return {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete"}
    if method == "initialize" and not is_modern:
        info = {"name": "child", "version": "1"}
        version = message["params"]["protocolVersion"]
        return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "tools/list":
        return {"tools": []}
    if method == "tools/call":
        return {"content": [], "calls": calls, "pid": os.getpid()}
    return None


def main() -> None:
    """Serve until the input ends."""
    speaks = Path(sys.argv[1]).read_text().split()
    oddity = sys.argv[2] if len(sys.argv) > 2 else ""
    calls = 0
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message or "method" not in message:
            continue
        if message["method"] == "test/exit":
            return
        if message["method"] == "server/discover" and oddity:
            if oddity == "dies":
                os._exit(3)
            continue
        calls += message["method"] == "tools/call"
        result = answer(message, speaks, calls)
        said: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        said |= {"error": {"code": -32602, "message": "not now"}} if result is None else {"result": result}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
