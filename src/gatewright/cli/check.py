"""`gatewright check` and `gatewright schema`: what a configuration says, and what one may say.

Contract: reads the file, starts nothing, shows no secret.
"""

import json
from pathlib import Path

import yaml

from gatewright.cli.report import read_config, say
from gatewright.cli.show import effective
from gatewright.config_schema import schema


def check(file: Path, *, as_json: bool) -> None:
    """Print the effective configuration. Raises `CommandError` with everything that is wrong."""
    loaded = read_config(file)
    shown = effective(loaded.config, loaded.templates)
    if as_json:
        say(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    count = len(loaded.config.backends)
    say(f"# {file} is valid: {count} backend{'' if count == 1 else 's'}. In force, secrets masked:")
    say(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=120).rstrip())


def print_schema() -> None:
    """Print the JSON Schema of the configuration file."""
    say(json.dumps(schema(), indent=2, ensure_ascii=False))
