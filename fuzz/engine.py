"""Runs a fuzz target: coverage-guided by atheris where it is installed, else by plain mutation of the corpus.

A target is a function of bytes that raises when a property is broken. The corpus is replayed first. An input that
breaks a property, or takes longer than a second, is kept in `fuzz/crashes/` and ends the run with status 1.

    python fuzz/fuzz_sse.py [--seconds N] [--seed N] [FILE...]    with FILEs: those alone, once each
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

try:
    import atheris
except ImportError:
    atheris = None

ROOT = Path(__file__).parent
MAX_INPUT_BYTES = 64 * 1024
MAX_INPUT_S = 1.0


def instrumented() -> contextlib.AbstractContextManager[object]:
    """Wrap a target's imports in this, so that atheris sees their branches."""
    return contextlib.nullcontext() if atheris is None else atheris.instrument_imports()


def run(name: str, check: Callable[[bytes], None], words: Sequence[bytes]) -> None:
    """Fuzz `check` from `fuzz/corpus/<name>/`; `words` are what the format is made of. Exits the process."""
    parser = argparse.ArgumentParser(description=f"Fuzz {name}.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("files", nargs="*", type=Path)
    options = parser.parse_args()
    corpus = [path.read_bytes() for path in options.files or sorted((ROOT / "corpus" / name).iterdir())]
    for data in corpus:
        _try(name, check, data)
    if options.files:
        print(f"{name}: {len(corpus)} inputs replayed")
    elif atheris is None:
        _mutate(name, check, corpus, words, options)
    else:
        _guide(name, check, words, options)


def _try(name: str, check: Callable[[bytes], None], data: bytes) -> None:
    began = time.perf_counter()
    try:
        check(data)
        if time.perf_counter() - began > MAX_INPUT_S:
            raise TimeoutError(f"took longer than {MAX_INPUT_S} s")
    except BaseException:
        path = ROOT / "crashes" / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        print(f"{name}: broken by {path} ({data[:200]!r})", file=sys.stderr)
        raise


def _guide(name: str, check: Callable[[bytes], None], words: Sequence[bytes], options: argparse.Namespace) -> None:
    found = ROOT / "found" / name
    found.mkdir(parents=True, exist_ok=True)
    dictionary = found.parent / f"{name}.dict"
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in words))
    flags = [
        f"-max_total_time={int(options.seconds)}",
        f"-seed={options.seed}",
        f"-dict={dictionary}",
        f"-artifact_prefix={ROOT}/crashes/{name}-",
        "-max_len=4096",
        "-print_final_stats=1",
    ]
    (ROOT / "crashes").mkdir(exist_ok=True)
    atheris.Setup([sys.argv[0], *flags, str(found), str(ROOT / "corpus" / name)], lambda data: _try(name, check, data))
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _mutate(
    name: str, check: Callable[[bytes], None], corpus: list[bytes], words: Sequence[bytes], options: argparse.Namespace
) -> None:
    chance = random.Random(options.seed)
    until = time.monotonic() + options.seconds
    count = 0
    while time.monotonic() < until:
        for _ in range(200):
            data = chance.choice(corpus)
            for _ in range(chance.randint(1, 8)):
                data = _mutated(chance, data, corpus, words)
            _try(name, check, data[:MAX_INPUT_BYTES])
            count += 1
    print(f"{name}: {count} inputs in {options.seconds:g} s, seed {options.seed}, nothing broken")


def _mutated(chance: random.Random, data: bytes, corpus: list[bytes], words: Sequence[bytes]) -> bytes:
    at = chance.randint(0, len(data))
    end = min(len(data), at + chance.randint(0, 16))
    match chance.randrange(6):
        case 0:
            return data[:at] + chance.choice(words) + data[at:]
        case 1:
            return data[:at] + data[end:]
        case 2:
            return data[:end] + data[at:end] * chance.choice((1, 1, 2, 50)) + data[end:]
        case 3:
            return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
        case 4:
            other = chance.choice(corpus)
            return data[:at] + other[chance.randint(0, len(other)) :]
        case _:
            return data[:at] + chance.choice(words) + data[end:]
