"""`python -m conformance.client_adapter URL`: what the conformance suite grades as a client.

Between the suite's mock server at URL and one client of the official SDK stands a gateway whose only backend is that
mock, so what the mock sees is the gateway's own client. `CONFORMANCE_VIA=direct` leaves the gateway out (that is how
the baselines are made), `CONFORMANCE_CLIENT_ERA=handshake|modern` chooses how the SDK client speaks to the gateway; by
default as the mock's revision does. The scenario, its revision and its data come in `MCP_CONFORMANCE_*`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
from mcp.client.client import Client
from mcp.client.context import ClientRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from conformance.processes import gateway

BACKEND = "mock"
# Below the suite's own limit, so that a hanging call ends with a trace of where it hung.
CALL_TIMEOUT_S = 15.0
RUN_TIMEOUT_S = 30.0

Drive = Callable[[Client], Awaitable[None]]

_STAND_INS: Mapping[str, Any] = {"string": "x", "integer": 0, "number": 0, "boolean": False, "object": {}, "array": []}


async def answer_form(context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
    """Accept, with the schema's defaults (SEP-1034) and `True` for a boolean without one."""
    schema = params.requested_schema if isinstance(params, types.ElicitRequestFormParams) else {}
    content: dict[str, Any] = {}
    for name, declared in schema.get("properties", {}).items():
        if "default" in declared:
            content[name] = declared["default"]
        elif declared.get("type") == "boolean":
            content[name] = True
    return types.ElicitResult(action="accept", content=content)


async def answer_sampling(
    context: ClientRequestContext, params: types.CreateMessageRequestParams
) -> types.CreateMessageResult:
    """A model's answer."""
    block = types.TextContent(type="text", text="An answer")
    return types.CreateMessageResult(role="assistant", content=block, model="none")


async def answer_roots(context: ClientRequestContext) -> types.ListRootsResult:
    """One root."""
    return types.ListRootsResult(roots=[types.Root.model_validate({"uri": "file:///srv/project", "name": "project"})])


async def list_tools(client: Client) -> None:
    """Connect and list."""
    await client.list_tools()


async def add_numbers(client: Client) -> None:
    """List and call the one tool."""
    await client.list_tools()
    await client.call_tool("add_numbers", {"a": 5, "b": 3})


async def call_every_tool(client: Client) -> None:
    """List and call all that is listed; a mock that refuses one of them is not our failure."""
    for tool in (await client.list_tools()).tools:
        properties = tool.input_schema.get("properties", {})
        required = tool.input_schema.get("required", [])
        arguments = {name: _STAND_INS.get(properties.get(name, {}).get("type"), "x") for name in required}
        try:
            await client.call_tool(tool.name, arguments)
        except MCPError as refused:
            print(f"{tool.name}: {refused}", file=sys.stderr)


async def use_everything(client: Client) -> None:
    """Every request that carries a name: tools, resources and prompts."""
    await call_every_tool(client)
    for resource in (await client.list_resources()).resources:
        await client.read_resource(str(resource.uri))
    for prompt in (await client.list_prompts()).prompts:
        await client.get_prompt(prompt.name)


async def replay_calls(client: Client) -> None:
    """The calls that the scenario hands over, with exactly its arguments."""
    await client.list_tools()
    for call in json.loads(os.environ["MCP_CONFORMANCE_CONTEXT"])["toolCalls"]:
        await client.call_tool(call["name"], call["arguments"])


async def answer_questions(client: Client) -> None:
    """Calls that ask back, with an unrelated one between them."""
    await client.list_tools()
    for name in ("test_mrtr_echo_state", "test_mrtr_unrelated", "test_mrtr_no_state", "test_mrtr_no_result_type"):
        await client.call_tool(name, {})


async def echo_schema(client: Client) -> None:
    """Send back the schema of the listed tool as it was understood."""
    listed = (await client.list_tools()).tools
    schema = next(tool.input_schema for tool in listed if tool.name == "json_schema_2020_12_tool")
    await client.call_tool("json_schema_echo", {"schema": schema})


DRIVES: Mapping[str, Drive] = {
    "initialize": list_tools,
    "tools_call": add_numbers,
    "sse-retry": call_every_tool,
    "elicitation-sep1034-client-defaults": call_every_tool,
    "request-metadata": list_tools,
    "sep-2322-client-request-state": answer_questions,
    "http-standard-headers": use_everything,
    "http-custom-headers": replay_calls,
    "http-invalid-tool-headers": call_every_tool,
    "json-schema-ref-no-deref": list_tools,
    "json-schema-2020-12-preservation": echo_schema,
}


def client_mode() -> str:
    """How the SDK client speaks: `legacy` is its word for the handshake era."""
    revision = os.environ["MCP_CONFORMANCE_PROTOCOL_VERSION"]
    native = "modern" if revision in MODERN_PROTOCOL_VERSIONS else "handshake"
    return "auto" if os.environ.get("CONFORMANCE_CLIENT_ERA", native) == "modern" else "legacy"


async def drive(url: str, scenario: str) -> None:
    """Run the scenario's calls against `url`."""
    with anyio.fail_after(RUN_TIMEOUT_S):
        async with Client(
            url,
            mode=client_mode(),
            read_timeout_seconds=CALL_TIMEOUT_S,
            elicitation_callback=answer_form,
            sampling_callback=answer_sampling,
            list_roots_callback=answer_roots,
        ) as client:
            await DRIVES[scenario](client)


def main() -> None:
    """Put a gateway before the mock and drive a client through it; show the gateway's log if that fails."""
    url = sys.argv[1]
    scenario = os.environ["MCP_CONFORMANCE_SCENARIO"]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if os.environ.get("CONFORMANCE_VIA") != "direct":
            base = stack.enter_context(gateway({BACKEND: {"url": url}}, directory))
            url = f"{base}/mcp/{BACKEND}"
        try:
            anyio.run(drive, url, scenario)
        except BaseException:
            log = directory / "gateway.log"
            if log.exists():
                print(log.read_text()[-4000:], file=sys.stderr)
            raise


if __name__ == "__main__":
    main()
