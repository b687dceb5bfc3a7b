"""Questions: an outcome that needs answers, for a client that can only be asked by requests.

A modern backend ends a call with InputRequired; a handshake client knows no such result. So the questions are put to
the client on its own stream, all at once, and the call is made again with the answers, until the backend is content.
Every other call passes untouched. Source: basic/patterns/mrtr of 2026-07-28; DESIGN section 5.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Mapping
from typing import Final, final

from gatewright.call import Call, Failure, Handler, InputRequired, Json, Outcome, Result
from gatewright.errors import BackendGarbage, GatewayError, MissingCapability, ProtocolError
from gatewright.protocol import questions
from gatewright.protocol.questions import Question
from gatewright.protocol.revisions import Era

NOBODY: Final[Mapping[str, Mapping[Era, bool | None]]] = {}
MAX_ROUNDS: Final = 16
"""Rounds of questions in one call: a person gave up long before, a backend in a loop did not."""


@final
class Questions:
    """Turns InputRequired outcomes into questions and retries, where the client is of the handshake era."""

    def __init__(self, speaks: Mapping[str, Mapping[Era, bool | None]] = NOBODY) -> None:
        """`speaks`: the eras of each backend, as far as they are known, now. One that speaks the client's own asks by
        requests: none of its outcomes is a question."""
        self._speaks = speaks

    def __call__(self, call: Call, proceed: Handler) -> Awaitable[Outcome]:
        """Go on until the outcome is a result or a failure. Raises MissingCapability, BackendGarbage."""
        revision = call.client.revision
        if revision.has_result_type:
            return proceed(call)
        speaks = None if call.target is None else self._speaks.get(call.target.backend.name)
        return proceed(call) if speaks is not None and speaks[revision.era] else self._settled(call, proceed)

    async def _settled(self, call: Call, proceed: Handler) -> Outcome:
        outcome = await proceed(call)
        if not isinstance(outcome, InputRequired):
            return outcome
        first = call.params
        for _ in range(MAX_ROUNDS):
            try:
                asked, state = questions.read_required(outcome.value)
            except ProtocolError as error:
                raise BackendGarbage(str(error)) from error
            answers = await _answers(call, asked)
            if isinstance(answers, Failure):
                return answers
            call.params = questions.retried(first, answers, state)
            outcome = await proceed(call)
            if not isinstance(outcome, InputRequired):
                return outcome
        raise BackendGarbage(f"the backend asked {MAX_ROUNDS} times and was not content")


async def _answers(call: Call, asked: dict[str, Question]) -> dict[str, Json] | Failure:
    """The client's answers by key, or the first error it answered with: an error cannot be brought in a retry."""
    for question in asked.values():
        if not questions.is_askable(call.client.capabilities, question):
            raise MissingCapability(f"the client cannot be asked {question.method}", questions.needed(question))
    try:
        async with asyncio.TaskGroup() as group:  # one that cannot be put takes the others back
            asking = {key: group.create_task(_ask(call, question)) for key, question in asked.items()}
    except BaseExceptionGroup as group_of_errors:  # no `except*`: early 3.11 wraps what is raised in one in a group
        refused, others = group_of_errors.split(GatewayError)
        if refused is None or others is not None:
            raise
        raise _first(refused) from None
    answers: dict[str, Json] = {}
    for key, task in asking.items():
        outcome = task.result()
        if isinstance(outcome, Failure):
            return outcome
        answers[key] = outcome.value
    return answers


async def _ask(call: Call, question: Question) -> Result | Failure:
    return await call.reply.ask(question.method, questions.handshake_params(question, secrets.token_urlsafe(12)))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """One of the errors of a group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
