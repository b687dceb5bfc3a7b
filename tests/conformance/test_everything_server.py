"""The fixture itself: every tool works for clients of both eras, and a server of one era is one."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError

from conformance.client_adapter import answer_form, answer_roots, answer_sampling
from conformance.processes import FIXTURE, running
from conformance.suite import TESTS

Server = str | StdioServerParameters

pytestmark = [pytest.mark.conformance, pytest.mark.anyio]
CALLS_TIMEOUT_S = 15.0


@pytest.fixture
def anyio_backend() -> str:
    """The SDK's clients are tested on asyncio."""
    return "asyncio"


@pytest.fixture(params=["http", "stdio"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """The fixture, restricted to the era that the test names in its parameter `era`."""
    era: str = request.getfixturevalue("era")
    if request.param == "stdio":
        yield StdioServerParameters(command=sys.executable, args=[*FIXTURE[1:], "--stdio", "--era", era], cwd=TESTS)
        return
    with running((*FIXTURE, "--http", "0", "--era", era), tmp_path / "fixture.log") as url:
        yield url


async def failures(server: Server, mode: str) -> set[str]:
    """The tools whose call does not end in a plain result, called by a client that answers every question."""
    failed = set()
    with anyio.fail_after(CALLS_TIMEOUT_S):
        async with Client(
            server,
            mode=mode,
            elicitation_callback=answer_form,
            sampling_callback=answer_sampling,
            list_roots_callback=answer_roots,
        ) as client:
            for tool in (await client.list_tools()).tools:
                arguments = dict.fromkeys(tool.input_schema.get("required", []), "x")
                if (await client.call_tool(tool.name, arguments)).is_error:
                    failed.add(tool.name)
            assert (await client.get_prompt("test_input_required_result_prompt")).messages
    return failed


@pytest.mark.parametrize(
    ("era", "mode"), [("both", "auto"), ("both", "legacy"), ("modern", "auto"), ("handshake", "auto")]
)
async def test_every_tool_answers_clients_of_the_era(server: Server, era: str, mode: str) -> None:
    """All questions are asked and answered as the era does it; only the tool that must fail fails."""
    assert await failures(server, mode) == {"test_error_handling"}


@pytest.mark.parametrize("era", ["modern"])
async def test_a_modern_server_refuses_the_handshake(server: Server, era: str) -> None:
    """A client that insists on `initialize` is told that its version is not supported."""
    with pytest.raises((MCPError, ExceptionGroup)) as refused:
        await failures(server, "legacy")
    assert "2026-07-28 only" in "".join(traceback.format_exception(refused.value))
