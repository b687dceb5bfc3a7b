"""Which origins may reach the listener."""

import pytest

from gatewright.inbound.origins import Origins

OWN = [f"{scheme}://{host}:8080" for scheme in ("http", "https") for host in ("localhost", "127.0.0.1", "[::1]")]


@pytest.mark.parametrize("origin", [*OWN, "HTTP://LOCALHOST:8080"])
def test_its_own_loopback_origins_are_let_in(origin: str) -> None:
    """Under every loopback name, with its own port."""
    assert Origins((), 8080).is_allowed(origin.encode())


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "localhost:8080",
        "http://localhost",
        "http://localhost:80",
        "http://localhost:08080",
        "http://localhost:8080/",
        "http://localhost:8080 ",
        "http://localhost:8080, http://evil.example",
        "http://localhost.:8080",
        "http://user@localhost:8080",
        "http://localhost:8080@evil.example",
        "http://localhost:8080.evil.example",
        "http://evil.example:8080",
        "http://127.0.0.2:8080",
        "http://127.1:8080",
        "http://2130706433:8080",
        "http://[::ffff:127.0.0.1]:8080",
        "http://::1:8080",
        "http://0.0.0.0:8080",
        "ws://localhost:8080",
        "chrome-extension://localhost:8080",
        "http://l\xf6calhost:8080",
    ],
)
def test_every_other_is_not(origin: str) -> None:
    """Neither strangers nor other writings of loopback."""
    assert not Origins((), 8080).is_allowed(origin.encode("latin-1"))


@pytest.mark.parametrize(("port", "origin"), [(80, "http://localhost"), (443, "https://localhost")])
def test_a_default_port_is_not_written(port: int, origin: str) -> None:
    """Browsers leave it out."""
    origins = Origins((), port)
    assert origins.is_allowed(origin.encode())
    assert not origins.is_allowed(f"{origin}:{port}".encode())


def test_named_origins_are_let_in() -> None:
    """Exactly as they are named."""
    origins = Origins(("https://app.example", "https://[2001:db8::1]:4443"), 8080)
    assert origins.is_allowed(b"https://app.example")
    assert origins.is_allowed(b"https://[2001:db8::1]:4443")
    assert not origins.is_allowed(b"http://app.example")
    assert not origins.is_allowed(b"https://app.example:8443")
    assert not origins.is_allowed(b"https://sub.app.example")
