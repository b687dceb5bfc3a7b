"""Tools and the prompt that ask the client something before they answer (elicitation, sampling, roots).

The scenarios of the handshake revisions and those of 2026-07-28 name different tools; every one of them works in both
eras, because `Exchange.ask` knows how each era is asked.
"""

from __future__ import annotations

import json
from typing import Any

import mcp_types as types

from conformance.everything.content_tools import text
from conformance.everything.exchange import Answer, Exchange, Question

ToolReply = types.CallToolResult | types.InputRequiredResult

PROMPT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"prompt": {"type": "string", "description": "What to ask the model"}},
    "required": ["prompt"],
}
MESSAGE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"message": {"type": "string", "description": "What to show the user"}},
    "required": ["message"],
}
DEFAULTS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "User name", "default": "John Doe"},
        "age": {"type": "integer", "description": "User age", "default": 30},
        "score": {"type": "number", "description": "User score", "default": 95.5},
        "status": {
            "type": "string",
            "description": "User status",
            "enum": ["active", "inactive", "pending"],
            "default": "active",
        },
        "verified": {"type": "boolean", "description": "Verification status", "default": True},
    },
    "required": [],
}
_TITLED = [{"const": f"value{n}", "title": f"{word} Option"} for n, word in enumerate(("First", "Second", "Third"), 1)]
ENUMS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
        "titledSingle": {"type": "string", "oneOf": _TITLED},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": ["option1", "option2", "option3"]}},
        "titledMulti": {"type": "array", "items": {"anyOf": _TITLED}},
    },
    "required": [],
}


def _form(message: str, **properties: str) -> types.ElicitRequest:
    """A form question: each keyword is a required property and its JSON type."""
    schema = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in properties.items()},
        "required": list(properties),
    }
    return _elicit(message, schema)


def _elicit(message: str, schema: dict[str, Any]) -> types.ElicitRequest:
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def _sample(prompt: str, max_tokens: int) -> types.CreateMessageRequest:
    message = types.SamplingMessage(role="user", content=text(prompt))
    return types.CreateMessageRequest(
        params=types.CreateMessageRequestParams(messages=[message], max_tokens=max_tokens)
    )


def _describe(answer: Answer) -> str:
    """An answer in words, so that a test can see that it arrived whole."""
    match answer:
        case types.ElicitResult():
            return f"action={answer.action}, content={json.dumps(answer.content or {}, sort_keys=True)}"
        case types.ListRootsResult():
            return ", ".join(str(root.uri) for root in answer.roots)
        case types.CreateMessageResult(content=types.TextContent() as block):
            return block.text
    return "(not text)"


async def _relay(exchange: Exchange, question: Question, key: str, lead: str) -> ToolReply:
    """Ask one question and answer with what came back."""
    answers = await exchange.ask({key: question})
    if isinstance(answers, types.InputRequiredResult):
        return answers
    return types.CallToolResult(content=[text(f"{lead}{_describe(answers[key])}")])


async def sampling(exchange: Exchange) -> ToolReply:
    """Passes a prompt to the client's model."""
    question = _sample(str(exchange.arguments["prompt"]), 100)
    return await _relay(exchange, question, "completion", "LLM response: ")


async def elicitation(exchange: Exchange) -> ToolReply:
    """Asks the client's user for a name and an address."""
    question = _form(str(exchange.arguments["message"]), username="string", email="string")
    return await _relay(exchange, question, "user", "User response: ")


async def elicitation_defaults(exchange: Exchange) -> ToolReply:
    """Asks with a default for every primitive type (SEP-1034)."""
    question = _elicit("Please provide user information", DEFAULTS_SCHEMA)
    return await _relay(exchange, question, "user", "Elicitation completed: ")


async def elicitation_enums(exchange: Exchange) -> ToolReply:
    """Asks with every kind of enumeration (SEP-1330)."""
    question = _elicit("Please select values", ENUMS_SCHEMA)
    return await _relay(exchange, question, "user", "Elicitation completed: ")


async def streaming_elicitation(exchange: Exchange) -> ToolReply:
    """Asks from a call that already streams: a modern server may not send the question as a request."""
    await exchange.progress(0, 1)
    return await _relay(exchange, _form("What is your name?", name="string"), "user_name", "Hello: ")


async def input_elicitation(exchange: Exchange) -> ToolReply:
    """Asks for a name and greets it."""
    answers = await exchange.ask({"user_name": _form("What is your name?", name="string")})
    if isinstance(answers, types.InputRequiredResult):
        return answers
    answer = answers["user_name"]
    name = (answer.content or {}).get("name", "stranger") if isinstance(answer, types.ElicitResult) else "stranger"
    return types.CallToolResult(content=[text(f"Hello, {name}!")])


async def input_sampling(exchange: Exchange) -> ToolReply:
    """Asks the client's model for the capital of France."""
    question = _sample("What is the capital of France?", 100)
    return await _relay(exchange, question, "capital_question", "The model said: ")


async def input_list_roots(exchange: Exchange) -> ToolReply:
    """Asks for the client's roots and names them."""
    return await _relay(exchange, types.ListRootsRequest(), "client_roots", "Roots: ")


async def input_request_state(exchange: Exchange) -> ToolReply:
    """Asks for a confirmation and wants its own state back with the answer."""
    state = "nonce-of-the-first-round"
    answers = await exchange.ask({"confirm": _form("Please confirm", ok="boolean")}, state=state)
    if isinstance(answers, types.InputRequiredResult):
        return answers
    if exchange.is_modern and exchange.params.request_state != state:
        return types.CallToolResult(content=[text("state-lost")], is_error=True)
    return types.CallToolResult(content=[text("state-ok")])


async def input_multiple(exchange: Exchange) -> ToolReply:
    """Asks for a form, a completion and the roots in one round."""
    questions: dict[str, Question] = {
        "user_name": _form("What is your name?", name="string"),
        "greeting": _sample("Generate a greeting", 50),
        "client_roots": types.ListRootsRequest(),
    }
    answers = await exchange.ask(questions, state="waiting-for-three")
    if isinstance(answers, types.InputRequiredResult):
        return answers
    return types.CallToolResult(content=[text("; ".join(f"{key}: {_describe(answers[key])}" for key in questions))])


async def input_multi_round(exchange: Exchange) -> ToolReply:
    """Asks for a name, and then, knowing it, for a colour; the state carries the name from round to round."""
    first = {"step1": _form("Step 1: What is your name?", name="string")}
    second = {"step2": _form("Step 2: What is your favorite color?", color="string")}
    state = json.loads(exchange.params.request_state or "{}")
    if "name" not in state:
        answers = await exchange.ask(first, state=json.dumps({"round": 1}))
        if isinstance(answers, types.InputRequiredResult):
            return answers
        state = {"round": 2, "name": _field(answers["step1"], "name")}
        if exchange.is_modern:
            return types.InputRequiredResult(input_requests=dict(second), request_state=json.dumps(state))
    answers = await exchange.ask(second, state=json.dumps(state))
    if isinstance(answers, types.InputRequiredResult):
        return answers
    return types.CallToolResult(content=[text(f"{state['name']} likes {_field(answers['step2'], 'color')}")])


def _field(answer: Answer, name: str) -> str:
    content = answer.content if isinstance(answer, types.ElicitResult) else None
    return str((content or {}).get(name, "nobody"))


async def input_tampered_state(exchange: Exchange) -> ToolReply:
    """Asks with a sealed state; a retry with a changed one is refused before it gets here."""
    return await input_request_state(exchange)


async def input_capabilities(exchange: Exchange) -> ToolReply:
    """Asks only for what the client has declared."""
    offers: dict[str, tuple[str, Question]] = {
        "sample": ("sampling", _sample("Say hello", 50)),
        "ask": ("elicitation", _form("What is your name?", name="string")),
        "roots": ("roots", types.ListRootsRequest()),
    }
    questions = {key: question for key, (capability, question) in offers.items() if exchange.declares(capability)}
    answers = await exchange.ask(questions, state="gated-by-capabilities")
    if isinstance(answers, types.InputRequiredResult):
        return answers
    return types.CallToolResult(content=[text(f"Answered: {', '.join(sorted(answers)) or 'nothing was asked'}")])


async def missing_capability(exchange: Exchange) -> ToolReply:
    """Refuses a client without sampling by a JSON-RPC error."""
    exchange.require("sampling")
    return types.CallToolResult(content=[text("The client declared sampling")])


async def input_prompt(exchange: Exchange) -> types.GetPromptResult | types.InputRequiredResult:
    """The prompt that wants to know its context first."""
    question = _form("What context should the prompt use?", context="string")
    answers = await exchange.ask({"user_context": question})
    if isinstance(answers, types.InputRequiredResult):
        return answers
    body = text(f"Use the following context: {_field(answers['user_context'], 'context')}")
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=body)])
