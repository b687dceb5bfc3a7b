"""The documents are true: examples load or run as they are printed, and links and paths lead somewhere.

Shell examples: `gatewright check` runs beside the document's own configuration, `gatewright serve` is checked with the
file it names, `curl` goes to a running demonstration, `make` and `scripts/` are looked up. A command of any other kind
fails the test, so that nobody adds an example that nothing executes.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from typing_extensions import override

from cli.commands import line_of, run, running
from gatewright.cli import snippets
from gatewright.config import parse

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "changelog.d/*.md", "fuzz/*.md", "bench/*.md", "tests/*/README.md")
    for path in ROOT.glob(pattern)
)
KINDS = ("security", "removed", "changed", "added", "fixed")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]\n]+\]\(([^)\s]+)\)")
OWN_PATH = re.compile(r"`((?:\.ci|bench|changelog\.d|docs|fuzz|scripts|src|tests)/[\w./-]*\w/?)(?: [^`]*)?`")
MADE_LATER = ("bench/results", "fuzz/found", "fuzz/crashes")
"""Folders that running things makes; git does not have them."""


@dataclass(frozen=True)
class Example:
    """One fenced block."""

    path: Path
    line: int
    language: str
    text: str

    @override
    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def examples(*languages: str) -> list[Example]:
    """Every fenced block in these languages."""
    found = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for block in FENCE.finditer(text):
            if block[1] in languages:
                found.append(Example(path, text.count("\n", 0, block.start()) + 1, block[1], block[2]))
    return found


def commands(example: Example) -> Iterator[list[str]]:
    """The commands of a shell example as words; one may go over several lines, comments are left out."""
    held = ""
    for line in example.text.splitlines():
        held += line.removesuffix("\\") if line.endswith("\\") else line + "\n"
        if line.endswith("\\"):
            continue
        try:
            words = shlex.split(held, comments=True)
        except ValueError:
            continue  # inside quotes
        held = ""
        if words:
            yield words
    assert not held, f"{example}: a command without an end"


def configuration_beside(example: Example) -> str:
    """The YAML example of the same document."""
    return next(other.text for other in examples("yaml") if other.path == example.path)


SHELL = [pytest.param(one, words, id=f"{one} {words[0]}") for one in examples("sh") for words in commands(one)]


def of_kind(kind: str) -> list[Any]:
    """The shell commands whose program is of that name."""
    return [one for one in SHELL if Path(str(one.values[1][0])).name == kind]  # type: ignore[index]


@pytest.mark.parametrize("example", examples("yaml"), ids=str)
def test_a_yaml_example_is_a_configuration(example: Example) -> None:
    """With an empty environment, and with something behind it."""
    assert parse(example.text, file=str(example), environ={}, folder=ROOT).config.backends


@pytest.mark.parametrize("example", examples("json", "jsonc"), ids=str)
def test_a_json_example_is_a_configuration(example: Example) -> None:
    """What is pasted into a client names a server that our own loader reads too."""
    assert parse(example.text, file=str(example), environ={}, folder=ROOT).config.backends


def test_every_block_is_of_a_language_that_is_executed_here() -> None:
    """A block without a language is output or a drawing."""
    known = {"", "yaml", "json", "jsonc", "sh"}
    found = [
        f"{path.name}: {block[1]}"
        for path in DOCUMENTS
        for block in FENCE.finditer(path.read_text())
        if block[1] not in known
    ]
    assert not found


@pytest.mark.parametrize(("example", "words"), SHELL)
def test_a_shell_example_is_of_a_kind_that_is_executed_here(example: Example, words: list[str]) -> None:
    """The tests below run it."""
    name = Path(words[0]).name
    assert name in ("gatewright", "make", "curl") or words[0].startswith("scripts/"), f"{example}: {words}"


@pytest.mark.parametrize(("example", "words"), of_kind("gatewright"))
def test_a_gatewright_command_runs(example: Example, words: list[str], tmp_path: Path) -> None:
    """`serve` is checked instead, with the same file: from the document, or an MCP client's."""
    (tmp_path / "gatewright.yaml").write_text(configuration_beside(example))
    project = tmp_path / "project"
    project.mkdir()
    project.joinpath(".mcp.json").write_text(snippets.mcp_json("http://127.0.0.1:9000/mcp"))
    arguments = [word.replace("~", str(tmp_path)) for word in words[1:]]
    if arguments[0] == "serve":
        arguments[0] = "check"
    ended = run(*arguments, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, ""), f"{example}: {ended.stderr}"


@pytest.fixture(scope="module")
def demonstration() -> Iterator[str]:
    """The host and port of a running `gatewright demo`."""
    with running("demo", "--listen", "127.0.0.1:0") as child:
        yield urlsplit(line_of(child).rsplit(" ", 1)[1]).netloc


@pytest.mark.parametrize(("example", "words"), of_kind("curl"))
def test_a_curl_command_gets_an_answer(example: Example, words: list[str], demonstration: str) -> None:
    """The same method, path, headers and body, sent to the demonstration."""
    url = urlsplit(next(word for word in words if word.startswith("http")))
    options = list(pairwise(words))
    headers = dict(value.split(": ", 1) for option, value in options if option == "-H")
    body = next(value for option, value in options if option == "-d")
    connection = http.client.HTTPConnection(demonstration, timeout=20)
    try:
        connection.request("POST", url.path, body, headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
    finally:
        connection.close()
    assert response.status == 200, answer
    assert answer["result"]["content"], example
    assert not answer["result"].get("isError")


@pytest.mark.parametrize(("example", "words"), of_kind("make"))
def test_a_make_target_exists(example: Example, words: list[str]) -> None:
    """In the Makefile of the repository."""
    targets = re.findall(r"^([a-z ]+):(?: |$)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert words[1] in {name for line in targets for name in line.split()}, example


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """To a file that is there, and to a heading that is in it."""
    for target in LINK.findall(re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)):
        if urlsplit(target).scheme:
            continue
        name, _, heading = target.partition("#")
        there = path.parent / name if name else path
        assert there.exists(), f"{path.name} links to {target}"
        assert not heading or heading in headings(there), f"{path.name} links to {target}"


def headings(path: Path) -> set[str]:
    """The anchors of a document's headings, as forges make them."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_in_the_repository_exist(path: Path) -> None:
    """What stands in backticks and looks like one of our files is one; a script can be run."""
    for name in OWN_PATH.findall(path.read_text()):
        if name.startswith(MADE_LATER) or "/a/" in name:
            continue
        assert (ROOT / name).exists(), f"{path.name} names {name}"
        assert not name.startswith("scripts/") or os.access(ROOT / name, os.X_OK), f"{name} cannot be run"


def test_every_document_is_in_the_index() -> None:
    """docs/README.md lists its neighbours, so that nothing is found by luck only."""
    linked = set(LINK.findall((ROOT / "docs" / "README.md").read_text()))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} <= linked


def test_set_up_lines_are_those_that_the_demonstration_prints() -> None:
    """One wording everywhere."""
    line = snippets.claude_code("http://127.0.0.1:8080/mcp")
    for name in ("README.md", "docs/getting-started.md"):
        assert f"`{line}`" in (ROOT / name).read_text(), name


def test_changelog_fragments_have_the_form_they_describe() -> None:
    """`<slug>.<kind>.md`, a few sentences."""
    for path in (ROOT / "changelog.d").iterdir():
        if path.name == "README.md":
            continue
        assert re.fullmatch(rf"[a-z0-9-]+\.({'|'.join(KINDS)})\.md", path.name), path.name
        assert path.read_text().strip()
