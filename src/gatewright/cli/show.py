"""An effective configuration as plain values, fit for a screen.

Contract: pure. Every `Secret` is masked; a value that came from `${...}` in an address or an argument is shown as it
stands in the file; arguments that look like credentials are masked. What it returns can be printed anywhere.
"""

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from gatewright.backend.settings import BackendSettings
from gatewright.config import Config
from gatewright.config_tree import Path, Plain
from gatewright.inbound.settings import Listen
from gatewright.secret import MASK, Secret
from gatewright.stores.settings import Store

_FLAG = r"(?i)--?[\w-]*(?:token|secret|passw(?:or)?d|credential|api[-_]?key|auth|key)"
_SECRET_PAIR = re.compile(_FLAG + r"[\w-]*=")
_SECRET_FLAG = re.compile(_FLAG + r"[\w-]*")
_FALLBACK = re.compile(r":-[^}]+\}")
_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")


def effective(config: Config, templates: Mapping[Path, str]) -> dict[str, Plain]:
    """Every key with the value in force; keys without a value (null) are left out, except a switched-off `admin`."""
    shown: dict[str, Plain] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        shown[field.name] = _plain(value)
    shown["backends"] = {name: _backend(name, value, templates) for name, value in config.backends.items()}
    return shown


def _backend(name: str, backend: BackendSettings, templates: Mapping[Path, str]) -> Plain:
    shown = _plain(backend)
    if not isinstance(shown, dict):
        return shown
    path: Path = ("backends", name)
    if backend.url is not None:
        template = templates.get((*path, "url"))
        shown["url"] = backend.shown if template is None else _template(template)
    if backend.args:
        shown["args"] = [*_arguments(backend.args, path, templates)]
    return {key: value for key, value in shown.items() if value not in (None, [], {})}


def _arguments(arguments: tuple[str, ...], path: Path, templates: Mapping[Path, str]) -> list[Plain]:
    shown: list[Plain] = []
    for index, argument in enumerate(arguments):
        follows_flag = index > 0 and _SECRET_FLAG.fullmatch(arguments[index - 1]) is not None
        if (template := templates.get((*path, "args", index))) is not None:
            shown.append(_template(template))
        elif pair := _SECRET_PAIR.match(argument):
            shown.append(pair[0] + MASK)
        elif follows_flag and not argument.startswith("-"):
            shown.append(MASK)
        else:
            shown.append(_USERINFO.sub(f"{MASK}@", argument))
    return shown


def _template(text: str) -> str:
    """`${NAME:-fallback}` without the fallback, and without what a query string or user part holds beside it."""
    return _USERINFO.sub(f"{MASK}@", _FALLBACK.sub(f":-{MASK}}}", text))


def _plain(value: Any) -> Plain:
    if isinstance(value, Secret):
        return MASK
    if isinstance(value, Listen) and not value.allowed_origins:
        return str(value)
    if isinstance(value, Store):
        return {**{field.name: _plain(getattr(value, field.name)) for field in fields(value)}, "url": value.shown}
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{type(value).__name__} has no place in a configuration")
