"""What an action asks its caller's client for: checked, recorded, and passed on.

Rule: an action asks only for what its atlas says it may; the question is stored before it is sent, the answer before the action
gets it. The trace keeps hashes: what people and models answered stays out of it. Source: specs/carp.md, "Talking back".
"""

from collections.abc import Mapping
from typing import cast

import anyio

from cra_mcp.actions.client import Answer, Capability, Client, LogLevel, Question
from cra_mcp.atlas.model import Action, PythonExecutor
from cra_mcp.canonical import digest, lossy
from cra_mcp.errors import AskError
from cra_mcp.gate.attempt import Attempt, Recorder
from cra_mcp.schema_check import compile_schema

_MAX_QUESTIONS = 8
_MAX_KEY = 64
_MAX_QUESTION_BYTES = 65_536

_METHODS: Mapping[Capability, str] = {
    "elicitation": "elicitation/create",
    "sampling": "sampling/createMessage",
    "roots": "roots/list",
}


class RecordedClient:
    """The client of one call, as the action gets it.

    Args:
        client: the client itself.
        action: what is carried out for it.
        attempt: the call.
        recorder: where events go.
    """

    def __init__(self, client: Client, action: Action, attempt: Attempt, recorder: Recorder) -> None:
        executor = action.executor
        self._client = client
        self._asks = executor.asks if isinstance(executor, PythonExecutor) else frozenset[str]()
        self._action = action
        self._attempt = attempt
        self._recorder = recorder
        self._storing = anyio.Lock()

    def can(self, capability: Capability) -> bool:
        """Whether the action may ask for this, and the client says it can be asked."""
        return capability in self._asks and self._client.can(capability)

    async def progress(self, done: float, total: float | None, message: str | None) -> None:
        """Pass progress on."""
        await self._client.progress(done, total, message)

    async def log(self, level: LogLevel, data: object, logger: str | None) -> None:
        """Pass a log message on."""
        await self._client.log(level, lossy(data), logger)

    async def release(self) -> None:
        """Pass it on."""
        await self._client.release()

    async def ask(self, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
        """Ask, and record both sides.

        Raises:
            AskError: the action may not ask this, the client can't answer, or the answer has the wrong form.
            TraceUnavailableError: it could not be recorded, so it was not asked.
        """
        self._check(questions)
        asked = [
            {"key": key, "method": _METHODS[question.capability], "question_hash": digest(lossy(question.params))}
            for key, question in questions.items()
        ]
        await self._record("x.cra.client.asked", {"questions": asked})
        answers = await self._client.ask(questions)
        given = [
            {"key": key, "action": answers[key].get("action", "answer"), "answer_hash": digest(lossy(answers[key]))}
            for key in questions
        ]
        await self._record("x.cra.client.answered", {"answers": given})
        for key, question in questions.items():
            _check_answer(key, question, answers[key])
        return answers

    def _check(self, questions: Mapping[str, Question]) -> None:
        if not 0 < len(questions) <= _MAX_QUESTIONS:
            raise AskError("ask_invalid", f"an action asks for one to {_MAX_QUESTIONS} things at once")
        for key, question in questions.items():
            capability = question.capability
            if not 0 < len(key) <= _MAX_KEY or not key.isidentifier():
                raise AskError("ask_invalid", "the key of a question is a name of at most 64 letters, digits and _")
            if len(repr(question.params)) > _MAX_QUESTION_BYTES:
                raise AskError("ask_invalid", f"a question is at most {_MAX_QUESTION_BYTES} characters long")
            if capability not in self._asks:
                raise AskError(
                    "ask_undeclared",
                    f"{self._action.action_id} asks for {capability}, which its atlas does not declare",
                    hint=f"add {capability!r} to the executor's asks in the atlas",
                )
            if not self._client.can(capability):
                raise AskError(
                    "ask_unsupported",
                    f"{self._action.action_id} needs a client that supports {capability}",
                    capability=capability,
                    hint="call it from a host that does",
                )

    async def _record(self, event_type: str, payload: Mapping[str, object]) -> None:
        call = self._attempt.call
        async with self._storing:
            self._attempt.note(
                event_type, {"action_id": self._action.action_id, "execution_id": call.execution_id, **payload}
            )
            await self._recorder.store(self._attempt, durable=False)


def _check_answer(key: str, question: Question, answer: Answer) -> None:
    """Accepted content fits the schema it was asked with; the rest was checked where it arrived."""
    if question.capability != "elicitation" or answer.get("action") != "accept":
        return
    schema = cast("Mapping[str, object]", question.params["requestedSchema"])
    if not compile_schema(schema).is_valid(answer.get("content")):
        raise AskError("ask_invalid", f"the answer to {key} does not fit the form it was asked with")
