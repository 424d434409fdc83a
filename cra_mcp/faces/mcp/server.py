"""The MCP server: handlers over a runtime, on the SDK's low-level server (which takes schemas as they are).

Rule: handlers translate; the runtime decides. No exception's text reaches the wire. Source: specs/mcp.md.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import mcp_types as t
from mcp.server.caching import CacheHint
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

import cra_mcp
from cra_mcp.atlas.names import is_own_uri
from cra_mcp.auth.principal import Principal
from cra_mcp.auth.roles import roles_of
from cra_mcp.canonical import lossy
from cra_mcp.errors import CRAError
from cra_mcp.faces.mcp import app
from cra_mcp.faces.mcp.calls import Calls
from cra_mcp.faces.mcp.clients import set_level
from cra_mcp.faces.mcp.connection import RequestContext
from cra_mcp.faces.mcp.content import as_they_came
from cra_mcp.faces.mcp.context_prompts import ContextPrompts
from cra_mcp.faces.mcp.control import ControlTools, Which
from cra_mcp.faces.mcp.listening import Listening
from cra_mcp.faces.mcp.news import News
from cra_mcp.faces.mcp.published import REFUSED, PublishedPrompts, PublishedResources
from cra_mcp.faces.mcp.request_ids import DUPLICATE, is_duplicate
from cra_mcp.faces.mcp.resources import NO_RESOURCE, Resources, completion, not_found
from cra_mcp.faces.mcp.sessions import SessionFinder, SessionHolder
from cra_mcp.faces.mcp.subscriptions import Subscriptions
from cra_mcp.faces.mcp.tools import ActionTools
from cra_mcp.faces.mcp.tracing import name_request
from cra_mcp.faces.mcp.watchable import Watchable
from cra_mcp.runtime import Runtime
from cra_mcp.runtime.watching import Change

_LIST_TTL_MS = 5_000
_MAX_SUBSCRIPTIONS = 512
_CALLS = ("tools/call", "prompts/get")
_log = logging.getLogger("cra_mcp.mcp")

Next = Callable[[Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How a server presents a runtime."""

    agent_id: str | None = None
    goal: str = ""
    control_tools: Which = "default"


class GovernedServer(Server[Principal]):
    """The low-level server with our handlers. It announces list changes on every transport.

    Args:
        runtime: what is served.
        options: how it is presented.
        sessions: which session a request belongs to; the transport's.
        max_subscriptions: streams of changes that one principal of the 2026 era can have open.
    """

    def __init__(
        self,
        runtime: Runtime,
        options: ServeOptions,
        sessions: SessionFinder,
        *,
        max_subscriptions: int = _MAX_SUBSCRIPTIONS,
    ) -> None:
        self._runtime = runtime
        self._control_tools: Which = options.control_tools
        self._sessions = sessions
        self._calls = Calls(runtime, sessions)
        self._actions = ActionTools(runtime, self._calls)
        self._control = ControlTools(runtime, sessions, options.control_tools)
        self._prompts = PublishedPrompts(runtime, self._calls)
        self._packs = ContextPrompts(runtime, sessions)
        self._resources = Resources(runtime, sessions)
        self._published = PublishedResources(runtime, self._calls)
        news, watchable = News(runtime), Watchable(runtime, self._published)
        self.subscriptions = Subscriptions(news, watchable)
        self.listening = Listening(news, watchable, max_of_one=max_subscriptions)
        local = local_principal(runtime, options)

        @asynccontextmanager
        async def started_by(_server: Server[Principal]) -> AsyncGenerator[Principal]:
            try:
                yield local
            finally:
                await self.aclose()

        private = CacheHint(ttl_ms=_LIST_TTL_MS, scope="private")
        fresh = CacheHint(ttl_ms=0, scope="private")
        super().__init__(
            "cra-mcp",
            version=cra_mcp.__version__,
            title="CRA governance runtime",
            description="Lets an agent see and do only what policy allows, and records every call.",
            instructions=_instructions(runtime, options.control_tools),
            lifespan=started_by,
            # Without it the SDK lists all tools before every call of the 2026 era, to look for header annotations.
            get_tool_input_schema=self._actions.header_annotations,
            cache_hints={
                "tools/list": private,
                "prompts/list": private,
                "resources/list": private,
                "resources/templates/list": private,
                "resources/read": fresh,
                "server/discover": private,
            },
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_prompts=self._list_prompts,
            on_get_prompt=self._get_prompt,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
            on_subscribe_resource=self.subscriptions.subscribe,
            on_unsubscribe_resource=self.subscriptions.unsubscribe,
            on_subscriptions_listen=self.listening.listen,
            on_completion=self._complete,
        )
        runtime.watch(self._instruct)
        self.extensions[app.EXTENSION] = {}
        self.add_request_handler("logging/setLevel", t.SetLevelRequestParams, set_level)
        ttl = float(runtime.config.approval_ttl_s)
        self._seal = RequestStateBoundary(RequestStateSecurity.ephemeral(ttl=ttl), default_audience=self.name)
        self.middleware.append(self._refuse_duplicate)
        self.middleware.append(self._unsealed)
        self.middleware.append(self._record_rejected)
        self.middleware.append(as_they_came)
        self.middleware.insert(0, _keep_text_in)

    async def aclose(self) -> None:
        """End the subscriptions, and the calls that wait for answers of their client."""
        await self.listening.aclose()
        await self._calls.aclose()

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        """The SDK's, with the changes announced that are sent: whoever has read a list is told."""
        changes = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
        return super().create_initialization_options(
            notification_options or changes, experimental_capabilities, extensions
        )

    async def _list_tools(self, ctx: RequestContext, _params: t.PaginatedRequestParams | None) -> t.ListToolsResult:
        self.subscriptions.listed(ctx)
        tools = [*self._control.listing(ctx), *self._actions.listing(ctx)]
        return t.ListToolsResult(tools=sorted(tools, key=lambda tool: tool.name), ttl_ms=self._ttl_ms())

    async def _call_tool(
        self, ctx: RequestContext, params: t.CallToolRequestParams
    ) -> t.CallToolResult | t.InputRequiredResult:
        if self._control.has(ctx, params.name):
            return await self._control.call(ctx, params.name, params.arguments)
        return await self._actions.call(ctx, params)

    async def _list_prompts(self, ctx: RequestContext, _params: t.PaginatedRequestParams | None) -> t.ListPromptsResult:
        self.subscriptions.listed(ctx)
        published = self._prompts.listing(ctx)
        taken = {prompt.name for prompt in published}
        packs = [prompt for prompt in self._packs.listing(ctx) if prompt.name not in taken]
        prompts = sorted([*published, *packs], key=lambda prompt: prompt.name)
        return t.ListPromptsResult(prompts=prompts, ttl_ms=self._ttl_ms())

    async def _get_prompt(
        self, ctx: RequestContext, params: t.GetPromptRequestParams
    ) -> t.GetPromptResult | t.InputRequiredResult:
        try:
            found = (
                await self._prompts.get(ctx, params)
                or self._packs.get(ctx, params)
                or await self._prompts.get(ctx, params, unseen=True)
            )
        except CRAError as error:
            raise MCPError(code=REFUSED, message=error.message, data={"error": error.code}) from error
        if found is None:
            raise MCPError(code=t.INVALID_PARAMS, message=f"Unknown prompt: {lossy(params.name[:100])}")
        return found

    async def _list_resources(
        self, ctx: RequestContext, params: t.PaginatedRequestParams | None
    ) -> t.ListResourcesResult:
        self.subscriptions.listed(ctx)
        more = [*self._published.listing(ctx), *await self._resources.newest(ctx)]
        resources, cursor = self._resources.listing(ctx, params.cursor if params is not None else None, more)
        return t.ListResourcesResult(resources=resources, next_cursor=cursor, ttl_ms=self._ttl_ms())

    async def _list_templates(
        self, ctx: RequestContext, params: t.PaginatedRequestParams | None
    ) -> t.ListResourceTemplatesResult:
        more = self._published.templates(ctx)
        templates, cursor = self._resources.templates(params.cursor if params is not None else None, more)
        return t.ListResourceTemplatesResult(resource_templates=templates, next_cursor=cursor, ttl_ms=self._ttl_ms())

    async def _read_resource(
        self, ctx: RequestContext, params: t.ReadResourceRequestParams
    ) -> t.ReadResourceResult | t.InputRequiredResult:
        if is_own_uri(str(params.uri)):
            return await self._resources.read(ctx, str(params.uri))
        found = await self._published.read(ctx, params)
        if found is None:
            raise not_found(ctx, str(params.uri), NO_RESOURCE)
        return found

    def _ttl_ms(self) -> int:
        """How long a list holds: changes of atlases are told, the hour is not."""
        return self._runtime.unchanged_for_ms(_LIST_TTL_MS)

    def _instruct(self, change: Change) -> None:
        if change.kind == "catalogue":
            self.instructions = _instructions(self._runtime, self._control_tools)

    async def _complete(self, ctx: RequestContext, params: t.CompleteRequestParams) -> t.CompleteResult:
        if isinstance(params.ref, t.PromptReference):
            values = self._prompts.completions(ctx, params.ref.name, params.argument.name)
            return t.CompleteResult(completion=completion(values, params.argument.value))
        return t.CompleteResult(completion=self._resources.complete(ctx, params))

    async def _refuse_duplicate(self, ctx: RequestContext, call_next: Next) -> Any:
        """A request that nothing tells from another one under way is not carried out; a call leaves an event."""
        name_request(ctx.request_id)
        if not is_duplicate(ctx.request_id):
            return await call_next(ctx)
        if self._is_call(ctx):
            self._record_error(ctx, DUPLICATE, f"a {ctx.method} had the id of a request that is under way")
        hint = "give each request an id of its own, and send this one again"
        raise MCPError(
            code=t.INVALID_REQUEST,
            message="this connection has a request with this id under way",
            data={"error": DUPLICATE, "hint": hint},
        )

    async def _unsealed(self, ctx: RequestContext, call_next: Next) -> Any:
        """Open the sealed state of a repeated request; a call whose seal is broken leaves an event."""
        opened = False

        async def within(inner: RequestContext) -> Any:
            nonlocal opened
            opened = True
            return await call_next(inner)

        try:
            return await self._seal(ctx, within)
        except MCPError:
            if not opened and self._is_call(ctx):
                self._record_error(ctx, "invalid_request", f"the requestState of {ctx.method} is not one of ours")
            raise

    async def _record_rejected(self, ctx: RequestContext, call_next: Next) -> Any:
        """A call the protocol layer refuses (no name, arguments that are no object) leaves an event too."""
        try:
            return await call_next(ctx)
        except ValidationError:
            if self._is_call(ctx):
                self._record_error(ctx, "invalid_request", f"the parameters of {ctx.method} do not fit the protocol")
            raise
        except MCPError:
            raise
        except Exception as error:
            _log.exception("handler failed", extra={"method": ctx.method})
            self._record_error(ctx, "internal_error", f"handler of {ctx.method} failed ({type(error).__name__})")
            raise MCPError(code=t.INTERNAL_ERROR, message="Internal server error") from error

    def _is_call(self, ctx: RequestContext) -> bool:
        uri = (ctx.params or {}).get("uri")
        return ctx.method in _CALLS or (ctx.method == "resources/read" and isinstance(uri, str) and not is_own_uri(uri))

    def _record_error(self, ctx: RequestContext, code: str, message: str) -> None:
        self.record_error(lambda: self._sessions.of(ctx), code, message)

    def record_error(self, holder: Callable[[], SessionHolder], code: str, message: str) -> None:
        """Record what kept a message from being taken as a request."""
        try:
            session = holder().current()
            payload = {"error_code": code, "error_message": message}
            self._runtime.record(session.session_id, "error.occurred", payload)
        except CRAError as error:
            _log.warning("could not record an error: %s", error.code)


async def _keep_text_in(ctx: RequestContext, call_next: Next) -> Any:
    """The last word on errors: transports of the 2025 era put any other exception's text on the wire, and it may hold anything."""
    try:
        return await call_next(ctx)
    except (MCPError, ValidationError):
        raise
    except Exception as error:
        _log.exception("handling failed", extra={"method": ctx.method})
        raise MCPError(code=t.INTERNAL_ERROR, message="Internal server error") from error


def local_principal(runtime: Runtime, options: ServeOptions) -> Principal:
    """Whoever started this process."""
    config = runtime.config
    return Principal(
        config.subject,
        tenant=config.tenant,
        roles=roles_of(config.roles),
        agent_id=options.agent_id or config.agent_id,
    )


def _instructions(runtime: Runtime, control: Which) -> str:
    names = ", ".join(atlas.name for atlas in runtime.atlases()) or "no atlas"
    lines = [
        f"Tools of this server are governed: {names}. Policy decides every call and each one is recorded.",
        "A refusal says which policy refused and why; don't retry what is denied. Some calls need a person's approval.",
    ]
    if control != "none":
        lines.append("Begin with cra_start_session and your goal; cra_request_context gives the documents for it.")
    return "\n".join(lines)
