"""Notes: kept, found, read as resources, dropped, bounded."""

import pytest

from demo_servers.conversation import Conversation
from gatewright.demo_servers.notes import MAX_NOTES, Notebook, build
from gatewright.demo_servers.server import ToolError, UnknownResourceError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_note_is_kept_found_read_and_dropped() -> None:
    """The whole life of one."""
    async with Conversation(build()) as talk:
        assert await talk.text("keep", title="Tea", text="Four minutes") == ("Kept as note://2.", False)
        assert await talk.text("search", words="FOUR tea") == ("note://2  Tea", False)
        assert await talk.text("list") == ("note://1  Welcome\nnote://2  Tea", False)
        read = (await talk.modern("resources/read", uri="note://2"))["result"]["contents"][0]
        assert read == {"uri": "note://2", "mimeType": "text/plain", "text": "Tea\n\nFour minutes"}
        assert await talk.text("drop", uri="note://2") == ("Dropped 'Tea'.", False)
        assert (await talk.modern("resources/read", uri="note://2"))["error"]["code"] == -32602
        assert await talk.text("drop", uri="note://2") == ("there is no note note://2", True)
        assert await talk.text("search", words="tea") == ("No notes.", False)


async def test_a_handshake_client_learns_of_a_missing_note_by_the_old_code() -> None:
    """-32002, as revisions up to 2025-11-25 say."""
    async with Conversation(build()) as talk:
        await talk.ask("initialize", {"protocolVersion": "2025-11-25"})
        assert (await talk.ask("resources/read", {"uri": "note://9"}))["error"]["code"] == -32002


async def test_connections_share_the_notes_of_one_server() -> None:
    """What one keeps, another finds."""
    server = build()
    async with Conversation(server) as one, Conversation(server) as two:
        await one.text("keep", title="Shared", text="x")
        assert await two.text("search", words="shared") == ("note://2  Shared", False)


async def test_the_digest_prompt_holds_the_notes() -> None:
    """All, or those with certain words."""
    async with Conversation(build()) as talk:
        listed = (await talk.modern("prompts/list"))["result"]["prompts"]
        assert [prompt["name"] for prompt in listed] == ["digest"]
        got = (await talk.modern("prompts/get", name="digest", arguments={"words": "gatewright"}))["result"]
        assert "## Welcome" in got["messages"][0]["content"]["text"]
        assert (await talk.modern("prompts/get", name="none"))["error"]["code"] == -32602


async def test_the_notebook_is_bounded() -> None:
    """In number and in length."""
    book = Notebook()
    for _ in range(MAX_NOTES):
        book.keep("t", "x")
    with pytest.raises(ToolError, match="full"):
        book.keep("t", "x")
    async with Conversation(build()) as talk:
        assert await talk.text("keep", title="x" * 201, text="y") == ("title is longer than 200 characters", True)


@pytest.mark.parametrize("uri", ["note://", "note://x", "note://01", "note://-1", "note://²", "file:///1", "note://1/"])
async def test_only_the_exact_address_of_a_note_is_one(uri: str) -> None:
    """One note, one URI."""
    book = Notebook()
    book.keep("t", "x")
    with pytest.raises(UnknownResourceError):
        book.read(uri)
