"""What a Python function is given to talk back to whoever called it.

Rule: the client lives on the event loop of the server, the function on another thread. Everything crosses over here, and nothing
does any more once the call has ended. Source: specs/atlas.md, "Talking back".
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine, Mapping, Sequence
from typing import TypeVar, cast

from cra_mcp.actions.client import Answer, Capability, Client, LogLevel, Question
from cra_mcp.errors import AskError

T = TypeVar("T")

_ELICITATION = "elicitation"
_SAMPLING = "sampling"
_ROOTS = "roots"


class Bridge:
    """The way from a function's thread to the client of its call. Made on the server's event loop."""

    def __init__(self, client: Client | None, *, action_id: str, session_id: str, execution_id: str) -> None:
        self.client = client
        self.action_id = action_id
        self.session_id = session_id
        self.execution_id = execution_id
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._under_way: set[concurrent.futures.Future[object]] = set()
        self._open = True

    def start(self, work: Coroutine[object, object, T]) -> concurrent.futures.Future[T]:
        """Carry out ``work`` on the server's event loop. Callable from any thread."""
        with self._lock:
            if not self._open:
                work.close()
                raise _over()
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
            self._under_way.add(cast("concurrent.futures.Future[object]", future))
        future.add_done_callback(self._forget)
        return future

    def close(self) -> None:
        """The call has ended: end what is under way for it."""
        with self._lock:
            self._open = False
            left = list(self._under_way)
        for future in left:
            future.cancel()

    def _forget(self, future: concurrent.futures.Future[T]) -> None:
        with self._lock:
            self._under_way.discard(cast("concurrent.futures.Future[object]", future))


class _Told:
    """What both kinds of context can say of the call."""

    __slots__ = ("_bridge",)

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    @property
    def action_id(self) -> str:
        """The action."""
        return self._bridge.action_id

    @property
    def session_id(self) -> str:
        """The session the call belongs to."""
        return self._bridge.session_id

    @property
    def execution_id(self) -> str:
        """This call; the trace's events of it have it."""
        return self._bridge.execution_id

    def can(self, capability: Capability) -> bool:
        """Whether the client can be asked for ``elicitation``, ``sampling`` or ``roots``."""
        client = self._bridge.client
        return client is not None and client.can(capability)


class CallContext(_Told):
    """Given to asynchronous functions.

    Whoever asks, asks before it acts: a client may be asked for the same answers again, by a call that begins anew.
    """

    __slots__ = ()

    async def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Tell the client how far the action is."""
        await self._wait(_progress(self._bridge.client, done, total, message))

    async def log(self, level: LogLevel, data: object, logger: str | None = None) -> None:
        """Send the client a log message, if it wants them. Not part of the trace."""
        await self._wait(_log(self._bridge.client, level, data, logger))

    async def release(self) -> None:
        """Let go of the connection for a long wait, where the client can come back for the outcome."""
        await self._wait(_release(self._bridge.client))

    async def elicit(self, message: str, schema: Mapping[str, object], *, key: str = "answer") -> Answer:
        """Have the person fill in a form.

        Args:
            message: what it is for.
            schema: a flat object of texts, numbers, booleans and choices (JSON Schema).
            key: name of the question among those of this call.

        Returns:
            ``{"action": "accept" | "decline" | "cancel", "content": {...}}``; accepted content fits the schema.

        Raises:
            AskError: there is no answer.
        """
        return (await self.ask({key: elicitation(message, schema)}))[key]

    async def sample(
        self, prompt: str | Sequence[Mapping[str, object]], *, max_tokens: int, key: str = "sample"
    ) -> Answer:
        """Have the client's model answer: ``{"role", "content", "model", "stopReason"}``. Raises as ``elicit``."""
        return (await self.ask({key: sampling(prompt, max_tokens=max_tokens)}))[key]

    async def roots(self, *, key: str = "roots") -> Answer:
        """The folders the client works in: ``{"roots": [{"uri", "name"}]}``. Raises as ``elicit``."""
        return (await self.ask({key: roots()}))[key]

    async def ask(self, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
        """Several questions at once, answers by the same keys. Raises as ``elicit``."""
        return await self._wait(_ask(self._bridge.client, questions))

    async def _wait(self, work: Coroutine[object, object, T]) -> T:
        return await asyncio.wrap_future(self._bridge.start(work))


class BlockingCallContext(_Told):
    """Given to synchronous functions: as ``CallContext``, and every method waits."""

    __slots__ = ()

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """As ``CallContext.progress``."""
        self._wait(_progress(self._bridge.client, done, total, message))

    def log(self, level: LogLevel, data: object, logger: str | None = None) -> None:
        """As ``CallContext.log``."""
        self._wait(_log(self._bridge.client, level, data, logger))

    def release(self) -> None:
        """As ``CallContext.release``."""
        self._wait(_release(self._bridge.client))

    def elicit(self, message: str, schema: Mapping[str, object], *, key: str = "answer") -> Answer:
        """As ``CallContext.elicit``."""
        return self.ask({key: elicitation(message, schema)})[key]

    def sample(self, prompt: str | Sequence[Mapping[str, object]], *, max_tokens: int, key: str = "sample") -> Answer:
        """As ``CallContext.sample``."""
        return self.ask({key: sampling(prompt, max_tokens=max_tokens)})[key]

    def roots(self, *, key: str = "roots") -> Answer:
        """As ``CallContext.roots``."""
        return self.ask({key: roots()})[key]

    def ask(self, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
        """As ``CallContext.ask``."""
        return self._wait(_ask(self._bridge.client, questions))

    def _wait(self, work: Coroutine[object, object, T]) -> T:
        try:
            return self._bridge.start(work).result()
        except concurrent.futures.CancelledError:
            raise _over() from None


def elicitation(message: str, schema: Mapping[str, object]) -> Question:
    """A form for the person, as ``ask`` takes it."""
    return Question(_ELICITATION, {"message": message, "requestedSchema": dict(schema)})


def sampling(prompt: str | Sequence[Mapping[str, object]], *, max_tokens: int) -> Question:
    """A question for the client's model, as ``ask`` takes it: a text, or messages in wire form."""
    messages: Sequence[object] = (
        [{"role": "user", "content": {"type": "text", "text": prompt}}] if isinstance(prompt, str) else list(prompt)
    )
    return Question(_SAMPLING, {"messages": messages, "maxTokens": max_tokens})


def roots() -> Question:
    """The client's folders, as ``ask`` takes it."""
    return Question(_ROOTS, {})


async def _progress(client: Client | None, done: float, total: float | None, message: str | None) -> None:
    if client is not None:
        await client.progress(done, total, message)


async def _log(client: Client | None, level: LogLevel, data: object, logger: str | None) -> None:
    if client is not None:
        await client.log(level, data, logger)


async def _release(client: Client | None) -> None:
    if client is not None:
        await client.release()


async def _ask(client: Client | None, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
    if client is None:
        first = next(iter(questions.values()), None)
        raise AskError(
            "ask_unsupported",
            "this call has no client that could be asked",
            capability=first.capability if first is not None else None,
        )
    return await client.ask(questions)


def _over() -> AskError:
    return AskError("ask_unanswered", "the call has ended")
