"""An effective configuration as plain values."""

from gatewright.backend.settings import BackendSettings
from gatewright.cli.show import effective
from gatewright.config import Config
from gatewright.inbound.settings import Listen
from gatewright.secret import Secret


def test_only_what_is_set_is_shown_of_a_backend() -> None:
    """Absent texts and empty lists are left out, a switched-off admin is not."""
    shown = effective(Config(admin=None, backends={"a": BackendSettings(command="x", description="d")}), {})
    backend = shown["backends"]["a"]  # type: ignore[index, call-overload]
    assert backend["command"] == "x"  # type: ignore[index, call-overload]
    assert not {"url", "args", "env", "headers", "cwd"} & set(backend)  # type: ignore[arg-type]
    assert shown["admin"] is None


def test_an_address_is_short_unless_it_has_origins() -> None:
    """As people write it."""
    listen = Listen(host="::1", port=1, allowed_origins=("https://a",))
    shown = effective(Config(listen=listen), {})
    assert shown["admin"] == "127.0.0.1:8081"
    assert shown["listen"] == {"host": "::1", "port": 1, "allowed_origins": ["https://a"]}


def test_a_template_is_shown_in_place_of_its_value_and_without_its_fallback() -> None:
    """The fallback may be a secret, and so may the user part of an address."""
    backend = BackendSettings(url="https://h/secret", headers={"a": Secret("s")})
    template = "https://h/${KEY:-secret}?x=${X}"
    shown = effective(Config(backends={"a": backend}), {("backends", "a", "url"): template})
    assert shown["backends"]["a"]["url"] == "https://h/${KEY:-********}?x=${X}"  # type: ignore[index, call-overload]
