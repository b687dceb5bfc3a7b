"""The configuration: one frozen `Config`, and `load`, which reads it from a file.

Contract: composes the settings that each component owns; finds everything wrong with a file before anything is bound
or started and says it all at once (`ConfigError`), each problem with file, line, column, path and what to do. Reads
the file and what `${file:...}` names, nothing else; the environment is passed in. A message never repeats a value
that came from the environment or a file, nor one of `env` or `headers`.

A file is YAML or JSON. Its backends stand under `backends`, or under `mcpServers` or `servers` in the words of MCP
clients, so that `.mcp.json` and its kin are configurations as they are.
"""

import re
from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path as FilePath
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le
from pydantic import BeforeValidator, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from gatewright.backend.settings import BackendSettings, is_name
from gatewright.config_clients import translate
from gatewright.config_expand import expand
from gatewright.config_explain import explain, key_advice
from gatewright.config_source import SourceError, read
from gatewright.config_tree import START, Entry, Mapping, Mark, Node, Path, Problem, Scalar, Sequence, plain
from gatewright.errors import GatewrightError
from gatewright.inbound.settings import Limits, Listen, Sessions
from gatewright.protocol import http_sse
from gatewright.protocol.chain import GATEWAY_ID
from gatewright.routing.settings import Routing
from gatewright.secret import Secret
from gatewright.stores.settings import Store

MAX_WORKERS = 128
"""Processes of one gateway: machines with more processors take several gateways."""
MAX_FILE_BYTES = 1 << 20
"""A configuration of a thousand backends is a tenth of this."""

BACKEND_SECTIONS = ("backends", "mcpServers", "servers")


class ConfigError(GatewrightError):
    """A file that is not a configuration. `problems` holds all that is wrong with it, in the order of the file."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def _read_listen(value: object) -> object:
    """`HOST:PORT` text or a bare port as the mapping form."""
    if isinstance(value, bool):
        return value
    return Listen.parse(str(value)) if isinstance(value, str | int) else value


def _read_store(value: object) -> object:
    """The address alone as the mapping form."""
    if not isinstance(value, str):
        return value
    try:
        return Store(url=Secret(value))
    except ValueError as error:
        raise ValueError(str(error).removeprefix("url: ")) from None


ListenField = Annotated[Listen, BeforeValidator(_read_listen, json_schema_input_type=Listen | str | int)]


LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What the gateway writes to stderr."""

    __pydantic_config__: ClassVar[ConfigDict] = {"extra": "forbid", "use_attribute_docstrings": True}

    level: LogLevel = "info"
    """Events below it are dropped."""
    format: Literal["auto", "console", "json"] = "auto"
    """`console` for people, `json` for one object per line; `auto` is `console` on a terminal and `json` elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything a gateway is built from. Raises `ValueError` when the parts contradict each other."""

    __pydantic_config__: ClassVar[ConfigDict] = {"extra": "forbid", "use_attribute_docstrings": True}

    listen: ListenField = field(default_factory=Listen)
    """The data plane: where MCP clients connect."""
    admin: ListenField | None = field(default_factory=lambda: Listen(port=8081))
    """The control plane: console, admin API, metrics. Null switches it off."""
    store: Annotated[Store, BeforeValidator(_read_store, json_schema_input_type=Store | str)] = field(
        default_factory=Store
    )
    """Where sessions live: in the memory of the one process there is, or in a Redis that many share."""
    workers: Annotated[int, Ge(1), Le(MAX_WORKERS)] = 1
    """Processes on this machine that serve the address together. More than one need a store that they share."""
    watchdog_s: Annotated[float, Ge(1), Le(3_600)] = 30.0
    """With several workers: one whose event loop does not turn for this long is killed and started again."""
    gateway_id: Annotated[str, StringConstraints(pattern=f"^{GATEWAY_ID}$")] | None = None
    """The gateway's name in chains of gateways, by which it knows a request that has passed it. Replicas behind one
    address share it. Null: a random one for each process."""
    limits: Limits = field(default_factory=Limits)
    """Bounds of client connections, requests and streams."""
    sessions: Sessions = field(default_factory=Sessions)
    """Bounds of handshake sessions."""
    routing: Routing = field(default_factory=Routing)
    """How the backends appear as one server."""
    drain_s: Annotated[float, Ge(0), Le(3_600)] = 10.0
    """How long a stopping gateway lets running calls finish, once it accepts no new connections. With the delay before
    below the 30 s that Kubernetes grants by default."""
    drain_delay_s: Annotated[float, Ge(0), Le(3_600)] = 0.0
    """How long it still accepts connections when it is told to stop and is not ready any more: as long as the balancer
    takes to notice. 0 where the balancer goes on to another replica by itself when one refuses the connection."""
    drain_idle_s: Annotated[float, Ge(0), Le(3_600)] = 5.0
    """How long an idle connection is still read while it stops. A balancer may be about to send on it; above the
    balancer's own idle time none is ever closed under a request."""
    log: Log = field(default_factory=Log)
    """What is written to stderr."""
    backends: AbstractMapping[str, BackendSettings] = field(default_factory=dict)
    """The MCP servers behind the gateway, by name."""

    def __post_init__(self) -> None:
        for name in self.backends:
            if not is_name(name):
                raise ValueError(f"backends {_name_advice(name)}")
        if self.admin is not None and self.admin.port != 0 and str(self.admin) == str(self.listen):
            raise ValueError("admin is the address of listen too: give it another, or null")
        if self.workers > 1 and not self.store.is_shared:
            raise ValueError(
                f"workers: {self.workers} processes need a store that they share: "
                "set store to redis://HOST:PORT/DB, or workers to 1"
            )
        joined = sorted(name + self.routing.separator for name in self.backends)
        for shorter, longer in pairwise(joined):
            if longer.startswith(shorter):
                one, two = (text.removesuffix(self.routing.separator) for text in (shorter, longer))
                raise ValueError(
                    f"routing.separator {self.routing.separator!r} cannot tell tools of {one!r} from those of {two!r}: "
                    "choose another separator or rename one"
                )


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration with what reading it brought up."""

    config: Config
    warnings: tuple[Problem, ...]
    """Accepted, but not what the writer may expect."""
    templates: AbstractMapping[Path, str]
    """Values with `${...}` as they stand in the file, by path below `backends` and the other sections."""


_ADAPTER = TypeAdapter(Config)


def load(path: FilePath, environ: AbstractMapping[str, str]) -> Config:
    """The configuration in that file. Raises `ConfigError` with everything that is wrong."""
    return load_with_notes(path, environ).config


def load_with_notes(path: FilePath, environ: AbstractMapping[str, str]) -> Loaded:
    """As `load`, with the warnings and the texts before expansion."""
    return parse(_read_file(path), file=str(path), environ=environ, folder=path.parent)


def parse(text: str, *, file: str, environ: AbstractMapping[str, str], folder: FilePath) -> Loaded:
    """The configuration in that text; `file` names it in messages, `folder` is where relative `${file:...}` start.

    Raises `ConfigError`.
    """
    try:
        written = read(text, file)
    except SourceError as error:
        raise ConfigError(error.problems) from None
    if not isinstance(written, Mapping):
        advice = "a configuration is a mapping of keys such as listen and backends"
        raise ConfigError((Problem(file, written.mark, (), advice),))
    expanded = expand(written, file=file, environ=environ, folder=folder)
    tree = expanded.tree
    if not isinstance(tree, Mapping):  # cannot be: expansion keeps the shape
        raise TypeError("expansion changed the shape of the tree")
    native = _to_native(tree, file)
    failed = tuple(problem.path for problem in expanded.problems)
    problems = [*expanded.problems, *native.problems]
    config: Config | None = None
    try:
        config = _ADAPTER.validate_python(plain(native.tree))
    except ValidationError as error:
        has_parts = bool(native.problems)
        found = explain(error, native.tree, file=file, section=native.section, with_whole=not has_parts)
        # What is wrong with a value that could not be expanded was said already.
        problems += [one for one in found if not any(one.path[: len(path)] == path for path in failed)]
    if config is None or problems:
        ordered = sorted(problems, key=lambda one: (one.mark.line, one.mark.column))
        raise ConfigError(tuple(dict.fromkeys(ordered)))
    templates = {_native_path(path, native.section): text for path, text in expanded.templates.items()}
    return Loaded(config, native.warnings, templates)


def _read_file(path: FilePath) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError((Problem(str(path), START, (), f"cannot be read: {error.strerror or error}"),)) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError((Problem(str(path), START, (), f"is larger than {MAX_FILE_BYTES} bytes"),))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        place = Mark(line, error.start - data.rfind(b"\n", 0, error.start))
        raise ConfigError((Problem(str(path), place, (), "is not UTF-8 text here"),)) from None


def _native_path(path: Path, section: str) -> Path:
    return ("backends", *path[1:]) if path[:1] == (section,) else path


def _name_advice(name: str) -> str:
    fixed = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:64] or "server"
    return f'cannot be named "{name}": a name is 1 to 64 letters, digits, "_" and "-"; call it "{fixed}"'


# --- the file's own words -> the words of Config


@dataclass(frozen=True, slots=True)
class _Native:
    """The tree with its backends under `backends`; `section` is where they stood."""

    tree: Mapping
    section: str
    warnings: tuple[Problem, ...] = ()
    problems: tuple[Problem, ...] = ()


def _to_native(tree: Mapping, file: str) -> _Native:
    """Bring client files into the shape of `Config`, check names, take texts as they are written."""
    given = [entry for entry in tree.entries if entry.key in BACKEND_SECTIONS]
    section = given[0].key if given else "backends"
    problems = [
        Problem(file, extra.mark, (extra.key,), f"the backends stand under {section} already; keep one of them")
        for extra in given[1:]
    ]
    warnings: list[Problem] = []
    entries = []
    for entry in tree.entries:
        key, value = entry.key, entry.value
        if key == "$schema" or entry in given[1:]:
            continue
        if given and entry is given[0]:
            key = "backends"
            if isinstance(value, Scalar) and value.value is None:
                value = Mapping(value.mark, ())  # `backends:` with nothing below it yet
            if isinstance(value, Mapping):
                value, noted, wrong = _backends(value, file, section)
                warnings += noted
                problems += wrong
        elif section != "backends" and (left_out := _foreign(entry.key)):
            warnings.append(Problem(file, entry.mark, (key,), left_out))
            continue
        entries.append(Entry(key, entry.mark, value))
    return _Native(Mapping(tree.mark, tuple(entries)), section, tuple(warnings), tuple(problems))


def _foreign(key: str) -> str | None:
    """Why a top-level key of a client's file is left out; None when it is ours, or looks like a misspelt one."""
    if key in Config.__dataclass_fields__ or (key != "inputs" and key_advice((key,)) is not None):
        return None
    return "concerns the client only and is ignored"


def _backends(value: Mapping, file: str, section: str) -> tuple[Mapping, list[Problem], list[Problem]]:
    warnings: list[Problem] = []
    problems: list[Problem] = []
    if section != "backends":
        translated = translate(value, file=file, section=section)
        value = translated.backends
        warnings += translated.warnings
        problems += translated.problems
    entries: list[Entry] = []
    for entry in value.entries:
        if not is_name(entry.key):
            problems.append(Problem(file, entry.mark, (section, entry.key), _name_advice(entry.key)))
        problems += _contradictions(entry.value, file, (section, entry.key))
        entries.append(Entry(entry.key, entry.mark, _as_written(entry.value)))
    return Mapping(value.mark, tuple(entries)), warnings, problems


def _contradictions(backend: Node, file: str, path: Path) -> list[Problem]:
    """An era that the transport does not carry."""
    kind, spoken = (backend.find(key) for key in ("type", "era")) if isinstance(backend, Mapping) else (None, None)
    if kind is None or spoken is None or not isinstance(kind.value, Scalar) or not isinstance(spoken.value, Scalar):
        return []
    if kind.value.value != "sse" or spoken.value.value in ("auto", http_sse.ERA):
        return []
    advice = f"type sse, the 2024-11-05 transport, carries the {http_sse.ERA} era only: leave era out"
    return [Problem(file, spoken.value.mark, (*path, "era"), advice)]


_TEXT_KEYS = frozenset(["args", "description", "env", "headers", "instructions"])


def _as_written(backend: Node) -> Node:
    """`PORT: 8080` in env is the text 8080: what is always text is taken as written, quotes or not."""
    if not isinstance(backend, Mapping):
        return backend
    entries = (
        Entry(old.key, old.mark, _texts(old.value) if old.key in _TEXT_KEYS else old.value) for old in backend.entries
    )
    return Mapping(backend.mark, tuple(entries))


def _texts(node: Node) -> Node:
    match node:
        case Scalar(value=bool() | int() | float()):
            return Scalar(node.mark, node.text, node.text)
        case Scalar():
            return node
        case Sequence():
            return Sequence(node.mark, tuple(map(_texts, node.items)))
        case Mapping():
            return Mapping(node.mark, tuple(Entry(old.key, old.mark, _texts(old.value)) for old in node.entries))
