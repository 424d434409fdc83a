"""Calls that ask a 2026-era client something: they wait between its requests.

An action asks; the request is answered with ``input_required``, and the action waits where it is. The client makes its request
again with the answers, and the action goes on. It runs once, however many rounds it takes: policy decided once, an approval or
a limit was charged once, and nothing it did is done twice.
Rule: what a client brings back is for exactly the call that asked, once. The action's timeout bounds the waiting.
Source: MCP specification 2026-07-28, "Multi round-trip requests"; specs/mcp.md, "Talking back".
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

import anyio
import mcp_types as t

from cra_mcp.actions.client import Answer, Capability, Client, Question
from cra_mcp.errors import AskError
from cra_mcp.faces.mcp.clients import RequestClient, answer_to, request_of
from cra_mcp.faces.mcp.connection import RequestContext
from cra_mcp.gate.call import ExecutionOutcome

STATE_PREFIX: Final = "round:"
"""How the state of a call that asks begins; the one of an approval is its id."""

_MAX_WAITING_PER_SESSION: Final = 8

Carry = Callable[[Client], Awaitable[ExecutionOutcome]]
Owner = tuple[str, str, str, frozenset[str]]
"""Session id, method, name and roles: what a call is made under."""


class Request(Protocol):
    """What the three requests that can take several rounds have in common."""

    input_responses: t.InputResponses | None
    request_state: str | None


class Rounds:
    """The calls of a server that wait for answers."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Round] = {}
        self._running: set[asyncio.Task[ExecutionOutcome]] = set()

    async def begin(
        self, ctx: RequestContext, owner: Owner, request: Request, carry: Carry
    ) -> ExecutionOutcome | t.InputRequiredResult:
        """Have a call carried out until it ends or asks. What the request answers already is not asked.

        Raises:
            CRAError: as ``carry`` does.
        """
        current = _Round(self, owner, request.input_responses or {})
        current.task = asyncio.create_task(_outcome(carry, current))
        self._running.add(current.task)
        current.task.add_done_callback(self._ended)
        return await self._turn(current, ctx)

    async def go_on(
        self, ctx: RequestContext, owner: Owner, request: Request, record: Callable[[Sequence[str]], None]
    ) -> ExecutionOutcome | t.InputRequiredResult:
        """Go on with a call that asked, now that the request brings answers.

        Args:
            ctx: the request.
            owner: what it is made under.
            request: its parameters.
            record: stores that answers have come, by their keys, before the call gets them.

        Raises:
            AskError: ``ask_unanswered``: the call has ended, or isn't this caller's.
            CRAError: as ``record`` and the ``carry`` it began with do.
        """
        current = self._waiting.get(request.request_state or "")
        if current is None or current.owner != owner:
            raise AskError(
                "ask_unanswered",
                "the call that these answers are for has ended",
                hint="make the call again, without requestState",
            )
        given = request.input_responses or {}
        record(sorted(given))
        self._waiting.pop(request.request_state or "")
        current.answered(given)
        return await self._turn(current, ctx)

    async def aclose(self) -> None:
        """End the calls that wait; each records that it was cancelled."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        if tasks:
            with anyio.CancelScope(shield=True):
                await asyncio.wait(tasks)

    def is_full(self, session_id: str) -> bool:
        """Whether a session has as many calls waiting as it may."""
        theirs = sum(1 for each in self._waiting.values() if each.owner[0] == session_id)
        return theirs >= _MAX_WAITING_PER_SESSION

    def _ended(self, task: asyncio.Task[ExecutionOutcome]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # a call nobody came back for: what it raised has been recorded

    async def _turn(self, current: "_Round", ctx: RequestContext) -> ExecutionOutcome | t.InputRequiredResult:
        """Until the call has ended or asks something."""
        task = current.task
        assert task is not None  # noqa: S101 - made with it
        current.speaks_to(ctx)
        asks = asyncio.ensure_future(current.asks.wait())
        try:
            await asyncio.wait({task, asks}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # The client gave the request up, and with it the call.
            task.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait({task})
            raise
        finally:
            asks.cancel()
            current.speaks_to(None)
        if task.done():
            return task.result()
        state = STATE_PREFIX + secrets.token_urlsafe(16)
        self._waiting[state] = current
        task.add_done_callback(lambda _: self._waiting.pop(state, None))
        return t.InputRequiredResult(input_requests=current.requests(), request_state=state)


class _Round:
    """One such call: the client, as its action gets it."""

    def __init__(self, rounds: Rounds, owner: Owner, given: t.InputResponses) -> None:
        self.owner = owner
        self.task: asyncio.Task[ExecutionOutcome] | None = None
        self.asks = asyncio.Event()
        self._rounds = rounds
        self._client: RequestClient | None = None
        self._can: Mapping[Capability, bool] = {}
        self._given = dict(given)
        self._open: dict[str, Question] = {}
        self._answered = asyncio.Event()
        self._asking = anyio.Lock()

    def speaks_to(self, ctx: RequestContext | None) -> None:
        """Which request is open; None between two."""
        self._client = RequestClient(ctx) if ctx is not None else None
        if self._client is not None:
            self._can = {each: self._client.can(each) for each in ("elicitation", "sampling", "roots")}

    def requests(self) -> t.InputRequests:
        """What is asked now."""
        return {key: request_of(question) for key, question in self._open.items()}

    def answered(self, given: t.InputResponses) -> None:
        """Answers have come."""
        self._given.update(given)
        self.asks.clear()
        self._answered.set()

    # --- what the action uses --------------------------------------------------------------------------------------

    def can(self, capability: Capability) -> bool:
        return self._can.get(capability, False)

    async def progress(self, done: float, total: float | None, message: str | None) -> None:
        if self._client is not None:
            await self._client.progress(done, total, message)

    async def log(self, level: t.LoggingLevel, data: object, logger: str | None) -> None:
        if self._client is not None:
            await self._client.log(level, data, logger)

    async def release(self) -> None:
        return

    async def ask(self, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
        for question in questions.values():
            request_of(question)
        async with self._asking:
            answers: dict[str, Answer] = {}
            while True:
                for key, question in questions.items():
                    answer = answer_to(question, self._given.pop(key, None))
                    if answer is not None:
                        answers[key] = answer
                self._open = {key: question for key, question in questions.items() if key not in answers}
                if not self._open:
                    return answers
                if self._rounds.is_full(self.owner[0]):
                    raise AskError(
                        "ask_unanswered",
                        f"{_MAX_WAITING_PER_SESSION} calls of this session wait for answers already",
                        hint="answer them first",
                    )
                self._answered.clear()
                self.asks.set()
                await self._answered.wait()


async def _outcome(carry: Carry, client: Client) -> ExecutionOutcome:
    return await carry(client)
