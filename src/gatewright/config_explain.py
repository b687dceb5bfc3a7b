"""What is wrong with a configuration, in words and with its place.

Contract: pure. Turns the validation library's errors into `Problem`s: the place in the file, the path as the writer
knows it, and a message that says what to write. Values are never repeated.
"""

from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gatewright.backend.settings import BackendSettings
from gatewright.config_clients import CLIENT_KEYS
from gatewright.config_tree import Mapping, Path, Problem, locate, locate_key
from gatewright.inbound.settings import Limits, Listen, Sessions
from gatewright.routing.settings import Routing
from gatewright.stores.settings import Store

_TOP = (
    "admin",
    "backends",
    "drain_delay_s",
    "drain_idle_s",
    "drain_s",
    "gateway_id",
    "limits",
    "listen",
    "log",
    "mcpServers",
    "routing",
    "servers",
    "sessions",
    "store",
    "watchdog_s",
    "workers",
)


def _names(settings: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(settings))


KEYS: dict[str, tuple[str, ...]] = {
    "": _TOP,
    "listen": _names(Listen),
    "admin": _names(Listen),
    "limits": _names(Limits),
    "sessions": _names(Sessions),
    "routing": _names(Routing),
    "store": _names(Store),
    "log": ("format", "level"),
    "backends": _names(BackendSettings),
}
"""The keys of each section; under `backends`, those of one backend."""

_ELSEWHERE = {
    "address": "listen",
    "bind": "listen",
    "env_vars": "env",
    "environment": "env",
    "host": "listen",
    "log_level": "log.level",
    "port": "listen",
    "prefix_separator": "routing.separator",
    "redis": "store",
    "timeout": "timeout_s",
}
"""What people write for what is called otherwise here."""

_MESSAGES = {
    "bool_parsing": "write true or false",
    "bool_type": "write true or false",
    "dataclass_type": "write a mapping of keys here",
    "dict_type": "write a mapping of keys here",
    "mapping_type": "write a mapping of keys here",
    "finite_number": "write a finite number",
    "float_parsing": "write a number",
    "float_type": "write a number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "write a whole number",
    "int_parsing": "write a whole number",
    "int_parsing_size": "write a smaller number",
    "int_type": "write a whole number",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must match {pattern}",
    "string_type": "write text, in quotes if need be",
    "tuple_type": "write a list",
}


def key_advice(path: Path) -> str | None:
    """What was probably meant by the unknown key that ends `path`; None when nothing comes near."""
    section = str(path[0]) if len(path) > 1 else ""
    key = str(next(reversed(path)))
    known = KEYS.get(section, ())
    if close := get_close_matches(key, known, n=1, cutoff=0.7) or get_close_matches(
        key.lower(), known, n=1, cutoff=0.7
    ):
        return f'did you mean "{close[0]}"?'
    if key in _ELSEWHERE and (section == "backends") == (_ELSEWHERE[key] in KEYS["backends"]):
        return f'did you mean "{_ELSEWHERE[key]}"?'
    for other, keys in KEYS.items():
        if other not in ("", section, "listen", "admin", "backends") and key in keys and section != "backends":
            return f'it belongs under "{other}"'
    if section == "backends" and (close := get_close_matches(key, sorted(CLIENT_KEYS), n=1, cutoff=0.8)):
        return f'did you mean "{close[0]}"?'
    return None


def explain(
    error: ValidationError, tree: Mapping, *, file: str, section: str, with_whole: bool = True
) -> list[Problem]:
    """Every error as a problem; `section` is what the file calls the backends. Without `with_whole`, what is wrong
    with the configuration as a whole is left out: it says again what was found in a part."""
    found = []
    for detail in error.errors(include_url=False, include_input=False):
        if not detail["loc"] and not with_whole:
            continue
        path, message, is_key = _told(detail, tree)
        mark = locate_key(tree, path) if is_key else locate(tree, path)
        shown = (section, *path[1:]) if path[:1] == ("backends",) else path
        found.append(Problem(file, mark, shown, message))
    return found


def _told(detail: ErrorDetails, tree: Mapping) -> tuple[Path, str, bool]:
    """Path, message, and whether the place is the key rather than the value."""
    path: Path = tuple(detail["loc"])
    kind = detail["type"]
    context = detail.get("ctx", {})
    if kind == "unexpected_keyword_argument":
        advice = key_advice(path)
        known = ", ".join(KEYS.get(str(path[0]) if len(path) > 1 else "", ()))
        return path, f"unknown key; {advice}" if advice else f"unknown key; known are {known}", True
    if kind == "value_error":
        return _refused(path, str(context["error"]), tree)
    template = _MESSAGES.get(kind)
    return path, template.format(**context) if template else detail["msg"].lower(), False


def _refused(path: Path, message: str, tree: Mapping) -> tuple[Path, str, bool]:
    """A settings class refused its values. Its message opens with the key at fault, if one alone is: go there."""
    words = message.replace(":", " ").split(maxsplit=1)
    keys = tuple(words[0].split(".")) if words else ()
    mark = locate(tree, path)
    inner = (*path, *keys)
    found = locate_key(tree, inner)
    if keys and found != mark and _has(tree, inner):
        return inner, message.removeprefix(words[0]).lstrip(": "), False
    return path, message, False


def _has(tree: Mapping, path: Path) -> bool:
    node: object = tree
    for part in path:
        entry = node.find(str(part)) if isinstance(node, Mapping) else None
        if entry is None:
            return False
        node = entry.value
    return True
