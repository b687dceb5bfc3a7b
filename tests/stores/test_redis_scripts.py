"""Every script names its keys: a Cluster finds its node by them. What they do is in the contract of stores."""

from __future__ import annotations

import re

from gatewright.stores import redis_scripts
from gatewright.stores.redis_scripts import Script

SCRIPTS = {name: value for name, value in vars(redis_scripts).items() if isinstance(value, Script)}


def test_scripts_touch_only_the_keys_they_are_given() -> None:
    """Each command in one has a key of KEYS; none builds a name of its own."""
    assert len(SCRIPTS) >= 12
    for name, script in SCRIPTS.items():
        calls = re.findall(r"redis\.call\('(\w+)'(?:, ([^,)]+))?", script.text.decode())
        assert calls, name
        assert all(key.startswith("KEYS[") for command, key in calls if command != "TIME"), name


def test_a_script_is_known_by_its_digest() -> None:
    """As Redis computes it."""
    assert Script("\nreturn 1\n").sha == "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
