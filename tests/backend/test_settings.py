"""One backend: how it is reached, what it shows, what is refused."""

import inspect

import pytest
import uvicorn
from pydantic import TypeAdapter, ValidationError

from gatewright.backend.settings import BackendSettings, is_name
from gatewright.secret import Secret


@pytest.mark.parametrize(
    ("settings", "transport"),
    [
        (BackendSettings(url="https://h/mcp"), "http"),
        (BackendSettings(url="https://h/mcp", type="streamable-http"), "http"),
        (BackendSettings(url="https://h/sse", type="sse"), "sse"),
        (BackendSettings(command="npx"), "stdio"),
        (BackendSettings(python="a.b:c.d"), "python"),
    ],
)
def test_the_way_to_a_backend_follows_from_its_keys(settings: BackendSettings, transport: str) -> None:
    """One of four."""
    assert settings.transport == transport


@pytest.mark.parametrize(
    ("settings", "descriptors"),
    [
        (BackendSettings(url="https://h/mcp", max_connections=10), 60),
        (BackendSettings(command="npx", max_children=3), 12),
        (BackendSettings(command="npx", stateless=True), 4),
        (BackendSettings(python="a.b:c.d"), 0),
    ],
)
def test_what_a_backend_may_take_of_the_descriptors(settings: BackendSettings, descriptors: int) -> None:
    """Connections for calls and for what is said beside them; a child's pipes."""
    assert settings.max_descriptors == descriptors


def test_idle_connections_close_before_common_servers_close_them() -> None:
    """A call into a connection that is going away may have been read, and so is not sent again."""
    assert BackendSettings(url="http://h").keep_alive_s < server_keep_alive_s()


def server_keep_alive_s() -> float:
    """After what uvicorn closes an idle connection. Node's is the same."""
    default: float = inspect.signature(uvicorn.Config).parameters["timeout_keep_alive"].default
    return default


@pytest.mark.parametrize("keys", [{}, {"url": "http://h", "command": "x"}, {"command": "x", "python": "a:b"}])
def test_a_backend_is_reached_in_exactly_one_way(keys: dict[str, str]) -> None:
    """None or two is a mistake."""
    with pytest.raises(ValueError, match="exactly one of url, command and python"):
        BackendSettings(**keys)  # type: ignore[arg-type]


def test_what_is_shown_has_no_secrets() -> None:
    """Neither repr nor `shown` has query values, headers, environment or arguments."""
    remote = BackendSettings(url="https://h/mcp?key=c4nary&x", headers={"a": Secret("c4nary")})
    local = BackendSettings(command="npx", args=("--token", "c4nary"), env={"A": Secret("c4nary")})
    assert "c4nary" not in repr(remote) + repr(local) + remote.shown + local.shown
    assert remote.shown == "https://h/mcp?key=********&x=********"
    assert local.shown == "npx"
    assert BackendSettings(python="a:b").shown == "a:b"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h",
        "ftp://h",
        "http://",
        "http://u:p@h",
        "http://h:0/",
        "http://h:x",
        "http://[::1",
        "http://h/#f",
        "//h/mcp",
    ]
    + [f"http://h/{path}" for path in ("é", "a b", "\r\nX: y")]
    + ["https:///mcp"],
)
def test_a_url_that_no_request_can_be_sent_to_is_refused(url: str) -> None:
    """Before the first request, not at it."""
    with pytest.raises(ValueError, match="url"):
        BackendSettings(url=url)


@pytest.mark.parametrize("target", ["module", "a:", ":b", "a:b:c", "a b:c", "a.:b", "../a:b"])
def test_a_python_target_is_module_and_attribute(target: str) -> None:
    """Nothing else is ever imported."""
    with pytest.raises(ValueError, match="module:attribute"):
        BackendSettings(python=target)


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"Host": "x"}, "written by the gateway itself"),
        ({"Mcp-Session-Id": "x"}, "written by the gateway itself"),
        ({"Transfer-Encoding": "chunked"}, "written by the gateway itself"),
        ({"a": "1", "A": "2"}, "given twice"),
        ({"a:b": "1"}, "is not a header name"),
        ({"": "1"}, "is not a header name"),
        ({"a": "x\r\nb: c"}, "line break or control character"),
        ({"a": "x\x00"}, "line break or control character"),
        ({"a": "☃"}, "line break or control character"),
    ],
)
def test_headers_cannot_smuggle(headers: dict[str, str], told: str) -> None:
    """Names are tokens, values one line, and the channel's own headers stay its own."""
    with pytest.raises(ValueError, match=told):
        BackendSettings(url="http://h", headers={name: Secret(value) for name, value in headers.items()})


def test_no_bound_can_be_switched_off() -> None:
    """Zero, negative and infinite values are refused; only keeping idle connections may be none."""
    adapter = TypeAdapter(BackendSettings)
    numbers = [
        name for name, field in BackendSettings.__dataclass_fields__.items() if type(field.default) in (int, float)
    ]
    assert len(numbers) >= 12
    for name in numbers:
        for value in (-1, float("inf"), None, *([] if name == "max_idle_connections" else [0])):
            with pytest.raises(ValidationError):
                adapter.validate_python({"command": "x", name: value})


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("a", True), ("A-b_9", True), ("x" * 64, True)]
    + [(text, False) for text in ("x" * 65, "", "a.b", "a b", "a/b", "é", "a\n")],
)
def test_a_name_fits_in_a_path_and_before_a_separator(text: str, is_one: bool) -> None:
    """Letters, digits, underscore, hyphen."""
    assert is_name(text) is is_one
