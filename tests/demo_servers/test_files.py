"""Files: listed, read and searched below one folder and never outside; as a real child process."""

import sys
from pathlib import Path

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from demo_servers.conversation import Conversation
from gatewright.demo_servers.files import MAX_FILE_BYTES, MAX_HITS, build, main

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files, a link that leads out, and a secret beside it."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("Hello\nworld\n")
    (root / "sub" / "b.txt").write_text("hello again\n")
    (root / "binary").write_bytes(b"\xff\x00")
    (root / "large").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    (tmp_path / "secret").write_text("hello c4nary\n")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "out").symlink_to(tmp_path)
    return root


async def test_files_are_listed_read_and_searched(folder: Path) -> None:
    """By tool and as resources."""
    async with Conversation(build(folder)) as talk:
        assert await talk.text("list") == ("a.txt\nbinary\nlarge\nsub/b.txt", False)
        assert await talk.text("read", name="sub/b.txt") == ("hello again\n", False)
        assert await talk.text("grep", text="HELLO") == ("a.txt:1: Hello\nsub/b.txt:1: hello again", False)
        assert await talk.text("grep", text="absent") == ("Nothing found.", False)
        assert await talk.text("grep", text="") == ("text must not be empty", True)
        uris = [one["uri"] for one in (await talk.modern("resources/list"))["result"]["resources"]]
        assert uris[0] == "demo:///a.txt"
        read = (await talk.modern("resources/read", uri=uris[0]))["result"]["contents"][0]
        assert read["text"] == "Hello\nworld\n"


@pytest.mark.parametrize(
    "name", ["../secret", "link", "out/secret", "/etc/passwd", "sub/../../secret", "", ".", "sub", "a\x00", "x" * 5_000]
)
async def test_nothing_outside_the_folder_is_read(folder: Path, name: str) -> None:
    """Dots, links and absolute paths lead nowhere."""
    async with Conversation(build(folder)) as talk:
        told, is_error = await talk.text("read", name=name)
        assert is_error
        assert "c4nary" not in told
        assert (await talk.modern("resources/read", uri=f"demo:///{name}"))["error"]["code"] == -32602


@pytest.mark.parametrize(("name", "told"), [("binary", "is not text"), ("large", "is larger than")])
async def test_what_cannot_be_shown_as_text_is_refused(folder: Path, name: str, told: str) -> None:
    """With the reason."""
    async with Conversation(build(folder)) as talk:
        text, is_error = await talk.text("read", name=name)
        assert is_error
        assert told in text


async def test_a_search_stops_at_many_hits(folder: Path) -> None:
    """And says that there are more."""
    (folder / "many").write_text("needle\n" * (MAX_HITS + 1))
    async with Conversation(build(folder)) as talk:
        text, _ = await talk.text("grep", text="needle")
        assert text.splitlines()[-1] == "... and more"
        assert len(text.splitlines()) == MAX_HITS + 1


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_official_client_talks_to_it_as_a_child(folder: Path, mode: str) -> None:
    """In both eras, over real pipes, and it ends when its input does."""
    child = StdioServerParameters(command=sys.executable, args=["-m", "gatewright.demo_servers.files", str(folder)])
    async with Client(stdio_client(child), mode=mode) as client:
        listed = await client.list_tools()
        assert {tool.name for tool in listed.tools} == {"list", "read", "grep"}
        result = await client.call_tool("read", {"name": "a.txt"})
        assert result.content[0].text == "Hello\nworld\n"  # type: ignore[union-attr]


async def test_a_missing_folder_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and nothing on stdout, which belongs to the protocol."""
    assert main([]) == 2
    assert main([str(tmp_path / "none")]) == 2
    assert capsys.readouterr().out == ""
