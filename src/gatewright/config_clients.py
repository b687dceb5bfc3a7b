"""The `mcpServers` (or `servers`) of MCP clients, read as backends.

Contract: pure. Translates one client's mapping of servers, as Claude Code, Claude Desktop, Cursor, VS Code, Cline, Roo,
Windsurf, Gemini CLI, FastMCP and the Inspector write it, into the mapping that `backends` holds; places in the file are
kept. A key keeps the meaning it has in those clients. Keys that concern the client alone are left out with a warning;
keys that no client is known to have stay, so that the reader of `backends` refuses them.
"""

from dataclasses import dataclass

from gatewright.config_tree import Entry, Mapping, Node, Path, Problem, Scalar

_RENAMED = {"transport": "type", "serverUrl": "url", "httpUrl": "url", "protocolEra": "era"}
"""FastMCP, Windsurf, Gemini CLI, Inspector."""

_TYPES = {
    "streamablehttp": "http",
    "streamable-http": "http",
    "streamable_http": "http",
    "http": "http",
    "sse": "sse",
    "stdio": "stdio",
}
"""The spellings of `type` and `transport`, in lower case; FastMCP also has `http` for what others call streamable."""

_RESTRICTS = frozenset(["disabledTools", "enabledTools", "excludeTools", "includeTools", "tools"])
"""Leaving these out opens more than the client did, so the warning says that."""

_LOGS_IN = frozenset(["auth", "authProviderType", "envFile", "env_file", "headersHelper", "oauth"])
"""Leaving these out may leave the backend without credentials."""

_CLIENT_ONLY = frozenset(
    {"alwaysAllow", "alwaysLoad", "autoApprove", "dev", "gallery", "icon", "iconUrl", "icons", "initTimeout", "name"}
    | {"sandbox", "sandboxEnabled", "source", "title", "trust", "version", "watchPaths"}
)
"""What a client asks its user, shows or installs: nothing to a gateway."""

CLIENT_KEYS = frozenset(_RENAMED) | _RESTRICTS | _LOGS_IN | _CLIENT_ONLY | {"disabled", "enabled", "timeout"}
"""Every key read here besides those of `backends`, for suggestions."""

_SECONDS_CLIENTS = frozenset(["alwaysAllow", "autoApprove", "watchPaths"])
"""Written by Cline and Roo only, whose `timeout` counts seconds (1 to 3600); elsewhere it counts milliseconds."""


@dataclass(frozen=True, slots=True)
class Translated:
    """Servers as backends, with what was left out or cannot be."""

    backends: Mapping
    warnings: tuple[Problem, ...]
    problems: tuple[Problem, ...]


def translate(servers: Mapping, *, file: str, section: str) -> Translated:
    """Read every server of the mapping that stands under the key `section`."""
    kept: list[Entry] = []
    warnings: list[Problem] = []
    problems: list[Problem] = []
    for server in servers.entries:
        if not isinstance(server.value, Mapping):
            kept.append(server)  # refused, with its place, where the values are checked
            continue
        if _is_off(server.value):
            warnings.append(Problem(file, server.mark, (section, server.key), "is switched off and left out"))
            continue
        reader = _Server(file, (section, server.key), server.value)
        kept.append(Entry(server.key, server.mark, reader.read()))
        warnings += reader.warnings
        problems += reader.problems
    return Translated(Mapping(servers.mark, tuple(kept)), tuple(warnings), tuple(problems))


def _value(node: Mapping, key: str) -> bool | int | float | str | None:
    entry = node.find(key)
    return entry.value.value if entry and isinstance(entry.value, Scalar) else None


def _is_off(node: Mapping) -> bool:
    return _value(node, "disabled") is True or _value(node, "enabled") is False


class _Server:
    """One server's keys, one after the other."""

    def __init__(self, file: str, path: Path, node: Mapping) -> None:
        self.file = file
        self.path = path
        self.node = node
        self.warnings: list[Problem] = []
        self.problems: list[Problem] = []

    def read(self) -> Mapping:
        entries: list[Entry] = []
        for entry in self.node.entries:
            found = self._entry(entry)
            if found is None:
                continue
            if any(found.key == other.key for other in entries):
                self.problems.append(self._note(entry, f"says {found.key} a second time"))
                continue
            entries.append(found)
        return Mapping(self.node.mark, tuple(entries))

    def _note(self, entry: Entry, message: str) -> Problem:
        return Problem(self.file, entry.mark, (*self.path, entry.key), message)

    def _entry(self, entry: Entry) -> Entry | None:
        """The entry as a backend has it; None when it is left out."""
        key = entry.key
        if key in ("disabled", "enabled"):
            return None
        if key in _RESTRICTS:
            self.warnings.append(self._note(entry, "is not applied: every tool of this server is offered"))
            return None
        if key in _LOGS_IN:
            advice = "is not read: give credentials in headers or env, for example from ${NAME} or ${file:PATH}"
            self.warnings.append(self._note(entry, advice))
            return None
        if key in _CLIENT_ONLY:
            self.warnings.append(self._note(entry, "concerns the client only and is ignored"))
            return None
        if key == "timeout":
            return self._timeout(entry)
        name = _RENAMED.get(key, key)
        return Entry(name, entry.mark, self._spelled(name, entry.value))

    def _spelled(self, name: str, value: Node) -> Node:
        """`type` and `era` in our spelling; anything else, and any word not known, as it stands."""
        if not isinstance(value, Scalar) or not isinstance(value.value, str):
            return value
        word = value.value
        if name == "type":
            word = _TYPES.get(word.lower(), word)
        elif name == "era" and word == "legacy":
            word = "handshake"
        return Scalar(value.mark, word, value.text)

    def _timeout(self, entry: Entry) -> Entry | None:
        """Seconds or milliseconds: the clients disagree and the number does not say.

        Milliseconds in Claude Code, Gemini CLI and FastMCP; seconds in Cline and Roo, recognised by their own keys. A
        number below 1000 is seconds in any case: nobody gives a tool less than one second.
        """
        value = entry.value
        if not isinstance(value, Scalar) or isinstance(value.value, bool) or not isinstance(value.value, int | float):
            self.problems.append(self._note(entry, "must be a number; or write timeout_s, in seconds"))
            return None
        counts_seconds = any(self.node.find(key) for key in _SECONDS_CLIENTS) and value.value <= 3_600
        if counts_seconds or value.value < 1_000:
            seconds = float(value.value)
        else:
            seconds = value.value / 1_000
            self.warnings.append(self._note(entry, f"is read as milliseconds: {seconds:g} s; or write timeout_s"))
        return Entry("timeout_s", entry.mark, Scalar(value.mark, seconds, value.text))
