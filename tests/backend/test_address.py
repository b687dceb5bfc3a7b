"""What every request to an HTTP backend begins with."""

from __future__ import annotations

import ssl

import pytest

from gatewright.backend.address import Address
from gatewright.backend.settings import BackendSettings
from gatewright.secret import Secret


@pytest.mark.parametrize(
    ("url", "host", "port", "authority", "target"),
    [
        ("http://h/mcp", "h", 80, "h", "/mcp"),
        ("http://h:80", "h", 80, "h", "/"),
        ("http://h:8080/a/b?c=d&e", "h", 8080, "h:8080", "/a/b?c=d&e"),
        ("https://h/", "h", 443, "h", "/"),
        ("https://h:80/", "h", 80, "h:80", "/"),
        ("http://[::1]:81/x", "::1", 81, "[::1]:81", "/x"),
        ("https://[::1]/x", "::1", 443, "[::1]", "/x"),
    ],
)
def test_an_address_is_split_once(url: str, host: str, port: int, authority: str, target: str) -> None:
    """Host and port to connect to, authority and target to write; a default port is not written."""
    address = Address(BackendSettings(url=url))
    assert (address.origin.host, address.origin.port, address.target) == (host, port, target)
    assert (address.origin.tls is not None) == url.startswith("https")
    lines = address.head("GET").decode().split("\r\n")
    assert lines[0] == f"GET {target} HTTP/1.1"
    assert f"host: {authority}" in lines


def test_a_head_carries_the_configured_headers() -> None:
    """Ours, theirs and the request's own, each on a line of its own; the target may be another."""
    address = Address(BackendSettings(url="http://h/sse", headers={"X-Key": Secret("k\xfcy")}))
    head = address.head("POST", "accept: */*\r\n", target="/messages?s=1")
    assert head == (
        b"POST /messages?s=1 HTTP/1.1\r\nhost: h\r\nuser-agent: gatewright\r\naccept-encoding: identity\r\n"
        b"X-Key: k\xfcy\r\naccept: */*\r\n"
    )


def test_certificates_are_checked_unless_told_otherwise() -> None:
    """Name and chain by default; `tls_verify: false` accepts any."""
    strict = Address(BackendSettings(url="https://h/")).origin.tls
    lax = Address(BackendSettings(url="https://h/", tls_verify=False)).origin.tls
    assert strict is not None
    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert lax is not None
    assert (lax.verify_mode, lax.check_hostname) == (ssl.CERT_NONE, False)
