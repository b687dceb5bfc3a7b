"""Addresses and bounds of the listening side."""

import pytest
from pydantic import TypeAdapter, ValidationError

from gatewright.inbound.settings import Limits, Listen, Sessions


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, "127.0.0.1:8080"),
        ("localhost:80", "localhost", 80, "localhost:80"),
        ("[::1]:8080", "::1", 8080, "[::1]:8080"),
        (":8080", "0.0.0.0", 8080, "0.0.0.0:8080"),
        ("8080", "127.0.0.1", 8080, "127.0.0.1:8080"),
        (" 127.0.0.1:0 ", "127.0.0.1", 0, "127.0.0.1:0"),
    ],
)
def test_an_address_is_read_in_every_documented_form(text: str, host: str, port: int, shown: str) -> None:
    """And written back with brackets where they belong."""
    listen = Listen.parse(text)
    assert (listen.host, listen.port, str(listen)) == (host, port, shown)


@pytest.mark.parametrize("text", ["", "host", "host:", "::1:80", "[::1]80", "a:70000", "a:-1", "http://a:80", "a b:80"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """With the forms that are."""
    with pytest.raises(ValueError, match=r"this is not an address: write HOST:PORT"):
        Listen.parse(text)


def test_origins_are_origins() -> None:
    """A scheme and an authority in lower case, nothing after them."""
    Listen(allowed_origins=("https://a.example", "http://[::1]:3000", "vscode-webview://abc"))
    for wrong in ("*", "null", "https://A.example", "https://a.example/", "a.example"):
        with pytest.raises(ValueError, match="allowed_origins"):
            Listen(allowed_origins=(wrong,))


@pytest.mark.parametrize("settings", [Limits, Sessions])
def test_no_bound_can_be_switched_off(settings: type[Limits] | type[Sessions]) -> None:
    """Zero, negative, infinite and absurd values are refused for every key."""
    adapter = TypeAdapter(settings)
    for name, field in settings.__dataclass_fields__.items():
        for value in (0, -1, float("inf"), float("nan"), None, 1e15):
            if value is None is field.default:
                continue  # derived from what the process may open
            with pytest.raises(ValidationError):
                adapter.validate_python({name: value})


def test_unknown_keys_are_refused() -> None:
    """A misspelt bound would be a bound that is not there."""
    with pytest.raises(ValidationError, match="Unexpected keyword"):
        TypeAdapter(Limits).validate_python({"max_body": 1})
