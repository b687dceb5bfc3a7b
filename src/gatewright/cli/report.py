"""What commands say: results to stdout, problems to stderr, and the exit codes.

Contract: exit code 0 is success, 1 a failure while running (a port that is taken, a demonstration without an answer),
2 a configuration or command line that is wrong; with 2, nothing was bound or started.
"""

import os
import sys
from pathlib import Path

from gatewright.config import ConfigError, Loaded, load_with_notes

FAILED = 1
WRONG = 2


class CommandError(Exception):
    """Ends the command with that message on stderr and that exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def say(text: str = "") -> None:
    """One line (or more) on stdout, at once: whoever started us may be waiting for it."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def warn(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def read_config(file: Path) -> Loaded:
    """The configuration in that file; its warnings go to stderr. Raises `CommandError` with every problem."""
    try:
        loaded = load_with_notes(file, os.environ)
    except ConfigError as error:
        count = len(error.problems)
        head = f"gatewright: {count} problem{'s' if count > 1 else ''} in the configuration"
        raise CommandError("\n".join([head, *(f"  {problem}" for problem in error.problems)]), WRONG) from None
    for warning in loaded.warnings:
        warn(f"warning: {warning}")
    return loaded
