"""The MCP client that made a call, as the action may talk back to it.

Two ways to ask, by era: a 2025-era client is sent requests while its call waits; a 2026-era client gets them as the answer to its
request and makes the request again with the answers (``rounds``).
Rule: nobody is asked for what they did not declare. Log messages go to those who asked for them, at the level they asked for.
Source: MCP specification 2025-11-25, "Elicitation", "Sampling", "Roots", "Logging"; 2026-07-28, "Multi round-trip requests".
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, cast, get_args

import anyio
import mcp_types as t
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from pydantic import BaseModel, ValidationError

from cra_mcp.actions.client import Answer, Capability, LogLevel, Question
from cra_mcp.errors import AskError
from cra_mcp.faces.mcp.connection import RequestContext, can_fill_forms, is_modern
from cra_mcp.words import visible_lines

_LEVELS: Final[tuple[str, ...]] = get_args(t.LoggingLevel)
_DEFAULT_LEVEL: Final = "info"
_LEVEL_STATE: Final = "cra.log_level"
_GONE = (anyio.ClosedResourceError, anyio.BrokenResourceError, MCPError)

_RESULTS: Final[Mapping[Capability, type[BaseModel]]] = {
    "elicitation": t.ElicitResult,
    "sampling": t.CreateMessageResult,
    "roots": t.ListRootsResult,
}


class RequestClient:
    """What any request's client can be told. It can't be asked."""

    def __init__(self, ctx: RequestContext) -> None:
        self.ctx = ctx

    def can(self, capability: Capability) -> bool:
        """See ``Client``."""
        return declares(self.ctx, capability)

    async def progress(self, done: float, total: float | None, message: str | None) -> None:
        """See ``Client``."""
        try:
            await self.ctx.session.report_progress(done, total, message)
        except _GONE:
            return

    async def log(self, level: LogLevel, data: object, logger: str | None) -> None:
        """See ``Client``."""
        wanted = _wanted_level(self.ctx)
        if wanted is None or level not in _LEVELS or _LEVELS.index(level) < _LEVELS.index(wanted):
            return
        params = t.LoggingMessageNotificationParams(level=level, data=data, logger=logger)
        try:
            await self.ctx.session.send_notification(
                t.LoggingMessageNotification(params=params), related_request_id=self.ctx.request_id
            )
        except _GONE:
            return

    async def release(self) -> None:
        """See ``Client``."""
        if self.ctx.close_sse_stream is not None:
            await self.ctx.close_sse_stream()

    async def ask(self, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
        """See ``Client``."""
        raise unsupported(next(iter(questions.values())).capability)


class LiveClient(RequestClient):
    """A 2025-era client: asked on the connection the call came by, one thing after the other."""

    def can(self, capability: Capability) -> bool:
        """See ``Client``."""
        return self.ctx.session.can_send_request and declares(self.ctx, capability)

    async def ask(self, questions: Mapping[str, Question]) -> Mapping[str, Answer]:
        """See ``Client``."""
        return {key: await self._ask(question) for key, question in questions.items()}

    async def _ask(self, question: Question) -> Answer:
        request = request_of(question)
        try:
            result = await self.ctx.session.send_request(
                request,
                _RESULTS[question.capability],
                metadata=ServerMessageMetadata(related_request_id=self.ctx.request_id),
            )
        except MCPError as error:
            raise AskError("ask_unanswered", f"the client did not answer ({error.error.code})") from error
        except ValidationError as error:
            raise AskError("ask_invalid", "the client's answer has the wrong form") from error
        return wire_form(result)


def client_of(ctx: RequestContext) -> RequestClient:
    """The client of a request, as far as it can be reached while the request waits."""
    return RequestClient(ctx) if is_modern(ctx) else LiveClient(ctx)


def declares(ctx: RequestContext, capability: Capability) -> bool:
    """Whether the client says it can be asked for this."""
    if capability == "elicitation":
        return can_fill_forms(ctx)
    capabilities = ctx.session.client_capabilities
    return capabilities is not None and getattr(capabilities, capability) is not None


def request_of(question: Question) -> t.InputRequest:
    """A question as the request it is in MCP.

    Raises:
        AskError: ``ask_invalid``.
    """
    try:
        return _REQUESTS[question.capability](question.params)
    except ValidationError as error:
        raise AskError("ask_invalid", f"the question is not what {question.capability} takes") from error


def answer_to(question: Question, response: t.InputResponse | None) -> Answer | None:
    """A client's response, if it answers this kind of question."""
    return wire_form(response) if isinstance(response, _RESULTS[question.capability]) else None


def unsupported(capability: Capability) -> AskError:
    """A client lacks what is asked for."""
    return AskError("ask_unsupported", f"the client does not support {capability}", capability=capability)


def wire_form(model: BaseModel) -> Answer:
    """As MCP writes it."""
    return model.model_dump(by_alias=True, mode="json", exclude_none=True)


async def set_level(ctx: RequestContext, params: t.SetLevelRequestParams) -> t.EmptyResult:
    """What a 2025-era client wants to be told from now on."""
    _state(ctx)[_LEVEL_STATE] = params.level
    return t.EmptyResult()


def _wanted_level(ctx: RequestContext) -> str | None:
    """The lowest level the client wants; None: none at all, which is what a 2026-era client says by saying nothing."""
    if not is_modern(ctx):
        return _state(ctx).get(_LEVEL_STATE, _DEFAULT_LEVEL)
    level = (ctx.meta or {}).get(t.LOG_LEVEL_META_KEY)
    return level if level in _LEVELS else None


def _state(ctx: RequestContext) -> dict[str, Any]:
    """What is kept of a connection: the SDK has no public way to it, so its version is pinned."""
    return ctx.session._connection.state  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


def _elicit(params: Mapping[str, object]) -> t.InputRequest:
    """A form as a person may be shown it: nothing in its texts is raw that steers the reader or that nobody sees."""
    form = {**params, "mode": "form"}
    if isinstance(message := params.get("message"), str):
        form["message"] = visible_lines(message)
    if "requestedSchema" in params:
        form["requestedSchema"] = _legible(params["requestedSchema"])
    return t.ElicitRequest(params=t.ElicitRequestFormParams.model_validate(form))


def _legible(schema: object) -> object:
    """The schema of a form, with its titles and descriptions made visible; values and names stay as they are."""
    if isinstance(schema, list):
        return [_legible(each) for each in cast("list[object]", schema)]
    if not isinstance(schema, dict):
        return schema
    members = cast("dict[str, object]", schema)
    return {
        name: visible_lines(each) if name in _SHOWN and isinstance(each, str) else _legible(each)
        for name, each in members.items()
    }


def _sample(params: Mapping[str, object]) -> t.InputRequest:
    return t.CreateMessageRequest(params=t.CreateMessageRequestParams.model_validate(params))


def _roots(_params: Mapping[str, object]) -> t.InputRequest:
    return t.ListRootsRequest()


_SHOWN: Final = frozenset({"title", "description"})
_REQUESTS: Final[Mapping[Capability, Callable[[Mapping[str, Any]], t.InputRequest]]] = {
    "elicitation": _elicit,
    "sampling": _sample,
    "roots": _roots,
}
