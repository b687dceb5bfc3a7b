"""Opening connections: TLS that is checked, TLS that is not, and what cannot be reached."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from typing_extensions import override

from backend.raw_server import Peer, response, serving, soon, until
from gatewright.backend.address import Address
from gatewright.backend.channel import HttpChannel
from gatewright.backend.origin import Origin
from gatewright.backend.settings import BackendSettings
from gatewright.errors import BackendUnavailable
from gatewright.outbox import Outbox

pytestmark = pytest.mark.anyio
ASK = b"POST /mcp HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n"


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The loop that serves, and the one to fall back on."""
    return "asyncio", {"use_uvloop": request.param}


@dataclass(frozen=True)
class Certificate:
    """A certificate that signs itself, in PEM files."""

    cert: Path
    key: Path

    @property
    def served(self) -> ssl.SSLContext:
        """As a server shows it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        return context


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where certificates are made."""
    if shutil.which("openssl") is None:
        pytest.skip("makes certificates with the openssl program")
    return tmp_path_factory.mktemp("tls")


def made(folder: Path, name: str, valid_for: str) -> Certificate:
    """A new certificate for that subject alternative name."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=test"),
            *("-addext", f"subjectAltName={valid_for}"),
        ],
        check=True,
        capture_output=True,
    )
    return Certificate(cert, key)


@pytest.fixture(scope="session")
def right(folder: Path) -> Certificate:
    """For the address that the tests connect to."""
    return made(folder, "right", "IP:127.0.0.1")


@pytest.fixture(scope="session")
def wrong(folder: Path) -> Certificate:
    """For another name."""
    return made(folder, "wrong", "DNS:elsewhere.example")


async def polite(peer: Peer) -> None:
    """Answers every request."""
    while True:
        await peer.hear()
        peer.say(response(b"1"))


async def asked(url: str, **changes: object) -> bytes:
    """The answer of a backend with these settings."""
    settings = BackendSettings(url=url, **changes)  # type: ignore[arg-type]
    channel = HttpChannel("b", Address(settings).origin, settings, Outbox(asyncio.get_running_loop().call_soon))
    try:
        return (await soon(channel.send(ASK))).body
    finally:
        await soon(channel.aclose())


async def test_a_backends_own_authority_is_trusted(right: Certificate) -> None:
    """A certificate that signs itself is good when its file is named."""
    async with serving(polite, right.served) as server:
        assert await asked(server.url, tls_ca=str(right.cert)) == b"1"


async def test_a_certificate_of_nobody_is_refused(right: Certificate) -> None:
    """The system's authorities do not know it: nothing was sent, and it says why."""
    async with serving(polite, right.served) as server:
        with pytest.raises(BackendUnavailable, match="certificate"):
            await asked(server.url)
        assert server.heard == []


async def test_a_certificate_for_another_host_is_refused(wrong: Certificate) -> None:
    """Even of a trusted authority."""
    async with serving(polite, wrong.served) as server:
        with pytest.raises(BackendUnavailable, match="certificate"):
            await asked(server.url, tls_ca=str(wrong.cert))
        assert server.heard == []


async def test_any_certificate_will_do_when_the_settings_say_so(wrong: Certificate) -> None:
    """For a laptop."""
    async with serving(polite, wrong.served) as server:
        assert await asked(server.url, tls_verify=False) == b"1"


async def test_a_large_answer_comes_over_tls(right: Certificate) -> None:
    """In many records."""

    async def talk(peer: Peer) -> None:
        await peer.hear()
        peer.say(response(b"x" * 1_000_000))
        await peer.hear()

    async with serving(talk, right.served) as server:
        assert await asked(server.url, tls_ca=str(right.cert)) == b"x" * 1_000_000


async def test_tls_with_a_peer_that_speaks_none_is_unavailable() -> None:
    """Whatever it says instead."""

    async def talk(peer: Peer) -> None:
        await peer.reader.read(1)
        peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serving(talk) as server:
        with pytest.raises(BackendUnavailable):
            await asked(server.url.replace("http:", "https:"), tls_verify=False)


async def test_a_peer_that_never_ends_the_handshake_is_given_up() -> None:
    """After connect_timeout_s, and its connection is closed."""
    async with serving(Peer.until_closed) as server:
        with pytest.raises(BackendUnavailable, match=r"within 0\.2 s"):
            await asked(server.url.replace("http:", "https:"), tls_verify=False, connect_timeout_s=0.2)
        await until(lambda: not server.open_peers)


async def test_nobody_there_is_unavailable() -> None:
    """And it says what is wrong, without an address."""
    async with serving(polite) as server:
        await server.stop()
        with pytest.raises(BackendUnavailable, match="refused") as caught:
            await asked(server.url)
        assert "127.0.0.1" not in caught.value.message


async def test_an_unknown_host_is_unavailable() -> None:
    """Names under .invalid never exist (RFC 6761)."""
    with pytest.raises(BackendUnavailable):
        await soon(Origin("nowhere.invalid", 80).open("b", asyncio.Protocol, 5.0))


@pytest.mark.parametrize("text", [None, "", "not a certificate"])
def test_a_file_of_authorities_that_is_none_is_named(tmp_path: Path, text: str | None) -> None:
    """Before anything is bound: whoever reads the message knows which key to mend."""
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    with pytest.raises(OSError, match=r"tls_ca .*ca\.pem"):
        Address(BackendSettings(url="https://h/", tls_ca=str(file)))


async def test_a_peer_that_vanishes_without_a_word_is_noticed() -> None:
    """The kernel probes silent connections: a stream that stands would wait for ever."""
    made: list[asyncio.BaseTransport] = []

    class Noting(asyncio.Protocol):
        @override
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)

    async with serving(polite) as server:
        await soon(Origin("127.0.0.1", server.port).open("b", Noting, 5.0))
        sock = made[0].get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        made[0].close()  # type: ignore[attr-defined]
