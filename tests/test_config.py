"""The configuration as a whole: defaults, all problems at once with their places, contradictions, documentation."""

import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewright.backend.settings import BackendSettings
from gatewright.config import MAX_FILE_BYTES, Config, ConfigError, Log, load, load_with_notes, parse
from gatewright.inbound.settings import Limits, Listen, Sessions
from gatewright.routing.settings import Routing
from gatewright.stores.settings import Store

REPOSITORY = Path(__file__).parent.parent
DOCUMENT = REPOSITORY / "docs" / "configuration.md"


def config_of(text: str, **environ: str) -> Config:
    """That YAML text's configuration."""
    return parse(text, file="g.yaml", environ=environ, folder=Path("/")).config


def problems_of(text: str, **environ: str) -> list[str]:
    """What is wrong with that YAML text."""
    with pytest.raises(ConfigError) as caught:
        config_of(text, **environ)
    return [str(problem) for problem in caught.value.problems]


def test_the_example_of_the_documentation_loads() -> None:
    """Every way to reach a backend, with a variable."""
    config = config_of(
        """
        listen: 127.0.0.1:8080
        admin: 127.0.0.1:8081
        store: memory
        backends:
          jira:   {url: https://jira.internal/mcp, headers: {authorization: "Bearer ${JIRA_TOKEN}"}}
          files:  {command: npx, args: [-y, "@modelcontextprotocol/server-filesystem", /srv]}
          notes:  {python: "my_package.server:mcp"}
        """,
        JIRA_TOKEN="t0ken",
    )
    assert [backend.transport for backend in config.backends.values()] == ["http", "stdio", "python"]
    assert config.backends["jira"].headers["authorization"].reveal() == "Bearer t0ken"
    assert "t0ken" not in repr(config)


def test_an_empty_file_is_the_defaults() -> None:
    """Loopback, memory, no backends."""
    assert config_of("") == config_of("backends:\n") == Config()
    assert (str(Config().listen), str(Config().admin)) == ("127.0.0.1:8080", "127.0.0.1:8081")


def test_several_workers_need_a_store_that_they_share() -> None:
    """Said before anything is bound, at the key that asks for too much."""
    [told] = problems_of("workers: 2\n")
    assert "workers: 2 processes need a store that they share: set store to redis://HOST:PORT/DB" in told
    assert config_of("workers: 2\nstore: redis://localhost\n").workers == 2
    assert problems_of("workers: 0\n")


def test_every_problem_is_told_at_once_in_the_order_of_the_file() -> None:
    """Place, path, and what to do."""
    text = """\
listen: 127.0.0.1:99999
adminn: null
limits:
  max_body_bytes: lots
  header_timeout_s: 0
backends:
  a: {ur: "https://a/mcp"}
  b: {url: "https://b/mcp", headers: {authorization: "Bearer ${NOPE}"}}
  c: {url: "ftp://c"}
  d: {command: x, era: legacy, args: -y}
timeout: 4
separator: _
"""
    assert problems_of(text) == [
        "g.yaml:1:9: listen: this is not an address: write HOST:PORT, [IPV6]:PORT, :PORT or PORT",
        'g.yaml:2:1: adminn: unknown key; did you mean "admin"?',
        "g.yaml:4:19: limits.max_body_bytes: write a whole number",
        "g.yaml:5:21: limits.header_timeout_s: must be above 0.0",
        'g.yaml:7:7: backends.a.ur: unknown key; did you mean "url"?',
        "g.yaml:8:54: backends.b.headers.authorization: the environment variable NOPE is not set; set it, or write "
        "${NOPE:-default}",
        "g.yaml:9:12: backends.c.url: must be http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH",
        "g.yaml:10:24: backends.d.era: must be 'auto', 'modern' or 'handshake'",
        "g.yaml:10:38: backends.d.args: write a list",
        "g.yaml:11:1: timeout: unknown key; known are admin, backends, drain_delay_s, drain_idle_s, drain_s, "
        "gateway_id, limits, listen, log, mcpServers, routing, servers, sessions, store, watchdog_s, workers",
        'g.yaml:12:1: separator: unknown key; it belongs under "routing"',
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a\n", "g.yaml:1:1: a configuration is a mapping"),
        ("store: sqlite\n", "g.yaml:1:8: store: write memory, or an address that begins with one of redis"),
        ("store: {url: 'redis+sentinel://h'}\n", "g.yaml:1:14: store.url: redis+sentinel:// needs the service name"),
        ("store: {ulr: memory}\n", "g.yaml:1:9: store.ulr: unknown key; known are url, key_prefix"),
        ("listen: true\n", "g.yaml:1:9: listen: write a mapping"),
        ("listen: {hots: x}\n", 'g.yaml:1:10: listen.hots: unknown key; did you mean "host"?'),
        ("listen: {allowed_origins: [https://A/b]}\n", "g.yaml:1:10: listen.allowed_origins: write scheme://host"),
        ("listen: 8081\n", "g.yaml:1:1: admin is the address of listen too"),
        ("port: 80\n", 'g.yaml:1:1: port: unknown key; did you mean "listen"?'),
        ("log: {level: loud}\n", "g.yaml:1:14: log.level: must be 'debug', 'info', 'warning' or 'error'"),
        ("drain_s: soon\n", "g.yaml:1:10: drain_s: write a number"),
        ("drain_s: 1e999\n", "g.yaml:1:10: drain_s: must be at most 3600.0"),
        ("routing: {separator: x}\n", "g.yaml:1:22: routing.separator: must match"),
        ("backends: {a: {python: x}}\n", "g.yaml:1:24: backends.a.python: must be module:attribute"),
        ("backends: {a: {url: http://u:p@h/}}\n", "backends.a.url: must not carry credentials"),
        ("backends: {a: {url: 'http://h/ x'}}\n", "backends.a.url: must be plain ASCII"),
        ("backends: {a: {url: 'http://h:x/'}}\n", "backends.a.url: is not a valid address"),
        ("backends: {a: {url: http://h, headers: {host: x}}}\n", "backends.a.headers: host is written by the gateway"),
        ("backends: {a: {url: http://h, headers: {x y: x}}}\n", "backends.a.headers: 'x y' is not a header name"),
        ('backends: {a: {url: http://h, headers: {x: "a\\nb"}}}\n', "the value of x has a line break"),
        ("backends: {a: {url: http://h, headers: {x: 1, X: 2}}}\n", "backends.a.headers: X is given twice"),
        ("backends: {a: {url: http://h, env: {A: b}}}\n", "args, env and cwd belong to a command"),
        ("backends: {a: {command: x, headers: {A: b}}}\n", "belong to a url"),
        ("backends: {a: {command: x, env: {A: null}}}\n", "backends.a.env.A: write text"),
        ("backends: {a.b: {command: x}}\n", 'cannot be named "a.b"'),
        ("backends: {a: {command: x}, a: {command: y}}\n", 'the key "a" stands twice'),
        ("backends: {}\nmcpServers: {}\n", "g.yaml:2:1: mcpServers: the backends stand under backends already"),
        ("backends: {a: {url: http://h, restart_backoff_s: 60}}\n", "restart_backoff_max_s must be at least"),
        ("backends: {a: {url: http://h, type: stdio}}\n", "backends.a.type: stdio needs a command"),
        ("backends: {a: {command: x, type: http}}\n", "backends.a.type: http needs a url"),
        ("backends: {a: {url: http://h/sse, type: sse, era: modern}}\n", "a.era: type sse, the 2024-11-05 transport"),
        ("routing: {separator: _}\nbackends: {a: {command: x}, a_b: {command: y}}\n", "cannot tell tools of 'a' from"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_a_way_out(text: str, told: str) -> None:
    """One mistake, one message."""
    (found,) = problems_of(text)
    assert told in found


def test_no_value_from_the_environment_or_of_a_secret_appears_in_a_message() -> None:
    """However wrong the value is."""
    canary = "c4nary\n"
    told = problems_of(
        """
        listen: ${X}
        store: ${X}
        drain_s: ${X}
        limits: {max_body_bytes: "${X}"}
        log: {level: "${X}"}
        routing: {separator: "${X}"}
        backends:
          a: {url: "http://${X}@h", headers: {a: "${X}"}, era: "${X}"}
          b: {url: "http://h:${X}"}
          c: {python: "${X}"}
          d: {url: "http://h", headers: {a: "${X}"}}
          e: {command: x, args: ["${X}"], env: {A: "${X}"}, timeout_s: "${X}", nope: "${X}"}
        """,
        X=canary,
    )
    assert len(told) >= 11
    assert "c4nary" not in "\n".join(told)


def test_numbers_and_switches_may_come_from_the_environment() -> None:
    """`${...}` stands wherever a value may."""
    config = config_of("drain_s: ${D}\nadmin: null\nlisten: ${L:-:9000}\n", D="2.5")
    assert (config.drain_s, config.admin, str(config.listen)) == (2.5, None, "0.0.0.0:9000")


def test_texts_of_env_headers_and_args_are_taken_as_written() -> None:
    """No quotes needed, and nothing is reformatted."""
    backend = config_of("backends: {a: {command: x, args: [010, 1e3, no, true], env: {P: 0080}}}").backends["a"]
    assert backend.args == ("010", "1e3", "no", "true")
    assert backend.env["P"].reveal() == "0080"


def test_a_yaml_file_may_hold_mcp_servers() -> None:
    """In the words of the clients."""
    config = config_of("mcpServers: {a: {type: streamable-http, url: 'http://h/mcp', disabled: false}}")
    assert config.backends["a"].transport == "http"


def test_a_backend_without_a_mapping_is_told_by_name() -> None:
    """`jira:` and nothing below it."""
    assert problems_of("backends:\n  jira:\n") == ["g.yaml:2:8: backends.jira: write a mapping of keys here"]


def test_contradictions_are_refused_without_a_file_too() -> None:
    """`Config` cannot be built wrong."""
    backend = BackendSettings(command="x")
    with pytest.raises(ValueError, match='cannot be named "a b"'):
        Config(backends={"a b": backend})
    with pytest.raises(ValueError, match="address of listen too"):
        Config(listen=Listen(port=1), admin=Listen(port=1))
    Config(listen=Listen(port=0), admin=Listen(port=0))


class TestLoad:
    def test_a_file_is_loaded_with_its_secrets_beside_it(self, tmp_path: Path) -> None:
        """Relative `${file:...}` starts at the configuration's folder; a byte order mark does no harm."""
        (tmp_path / "token").write_text("t\n")
        text = "backends: {a: {url: 'http://h', headers: {a: 'Bearer ${file:token}'}}}"
        (tmp_path / "g.yaml").write_bytes(b"\xef\xbb\xbf" + text.encode())
        config = load(tmp_path / "g.yaml", {})
        assert config.backends["a"].headers["a"].reveal() == "Bearer t"

    def test_templates_are_kept_by_the_path_below_backends(self, tmp_path: Path) -> None:
        """Whatever the file calls its backends."""
        (tmp_path / "m.json").write_text('{"servers": {"a": {"command": "x", "args": ["${T}"]}}}')
        loaded = load_with_notes(tmp_path / "m.json", {"T": "secret"})
        assert loaded.templates == {("backends", "a", "args", 0): "${T}"}

    def test_a_file_that_cannot_be_read_is_a_config_error(self, tmp_path: Path) -> None:
        """Missing, a folder, not text, or absurdly large."""
        (tmp_path / "latin").write_bytes(b"a: 1\nb: \xe9\n")
        (tmp_path / "large").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
        for name, told in [
            ("none", ":1:1: cannot be read: No such file"),
            (".", "cannot be read: Is a directory"),
            ("latin", "latin:2:4: is not UTF-8 text here"),
            ("large", "is larger than"),
        ]:
            with pytest.raises(ConfigError) as caught:
                load(tmp_path / name, {})
            assert told in str(caught.value)


WORDS = ["listen", "admin", "backends", "mcpServers", "url", "command", "type", "sse", "a", "1", "${A}", "~", "timeout"]


@settings(max_examples=200)
@given(
    st.recursive(
        st.sampled_from(WORDS) | st.none() | st.booleans() | st.floats() | st.integers(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
        max_leaves=15,
    ),
    st.sampled_from(["g.yaml", "g.json"]),
)
def test_any_shape_is_a_config_or_a_config_error(value: object, file: str) -> None:
    """No other exception ever comes out of `parse`."""
    import json

    try:
        parse(json.dumps(value), file=file, environ={"A": "1"}, folder=Path("/"))
    except ConfigError as error:
        assert error.problems  # noqa: PT017 - both outcomes are right


# --- documentation

SECTIONS: dict[str, type[Any]] = {
    "": Config,
    "listen": Listen,
    "limits": Limits,
    "sessions": Sessions,
    "routing": Routing,
    "store": Store,
    "log": Log,
    "backends.NAME": BackendSettings,
}


def keys() -> Iterator[tuple[str, Field[Any]]]:
    """Every key there is, dotted."""
    for section, settings_class in SECTIONS.items():
        for field in fields(settings_class):
            yield f"{section}.{field.name}" if section else field.name, field


def default_of(field: Field[Any]) -> str | None:
    """The default as the documentation writes it; None when the document may say it in words."""
    if field.default is MISSING or field.default is None or field.default == ():
        return None
    if isinstance(field.default, bool):
        return str(field.default).lower()
    return f"{field.default:g}" if isinstance(field.default, float) else str(field.default)


@pytest.mark.parametrize(("key", "field"), list(keys()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_key_is_documented_with_its_default(key: str, field: Field[Any]) -> None:
    """A row of a table in docs/configuration.md: `key` | default | meaning."""
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith(f"| `{key}` |")]
    assert len(rows) == 1, f"docs/configuration.md needs one row that begins with | `{key}` |"
    _, _, default, meaning, _ = (cell.strip() for cell in re.split(r"(?<!\\)\|", rows[0]))
    assert meaning
    if (expected := default_of(field)) is not None:
        assert default == f"`{expected}`"


def test_the_document_names_no_key_that_does_not_exist() -> None:
    """A key that was removed leaves the document too."""
    known = {key for key, _ in keys()}
    written = re.findall(r"^\| `([\w.]+)` \|.*\|.*\|$", DOCUMENT.read_text(), re.MULTILINE)
    assert set(written) <= known


def examples() -> list[Any]:
    """Every YAML block of the documents."""
    found = []
    for document in (DOCUMENT, DOCUMENT.with_name("getting-started.md")):
        blocks = re.findall(r"^```yaml\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
        found += [pytest.param(block, id=f"{document.name}-{number}") for number, block in enumerate(blocks, 1)]
    return found


@pytest.mark.parametrize("example", examples())
def test_every_example_of_the_documents_loads(example: str) -> None:
    """As it is printed, with an empty environment."""
    assert config_of(example).backends
