"""The app: routes, and what every request passes on its way.

In this order: the Host and Origin check, for every path; then, for all that speaks MCP: whether that address has been guessing,
who is calling, and how much.
Health answers need no credential and say nothing but that.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import anyio
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from cra_mcp.auth.bearer import METADATA_PATH, Resource
from cra_mcp.auth.principal import Authenticator, Binding, Principal
from cra_mcp.faces.mcp.http.answers import AnswerRefused
from cra_mcp.faces.mcp.http.identity import Authenticate
from cra_mcp.faces.mcp.http.limits import Failures, LimitBody, LimitStreams, Rate
from cra_mcp.faces.mcp.http.options import HttpOptions
from cra_mcp.faces.mcp.http.origin import CheckOrigin
from cra_mcp.faces.mcp.http.readiness import Readiness
from cra_mcp.faces.mcp.http.sessions import HttpSessions
from cra_mcp.faces.mcp.http.sse import MESSAGES_PATH, SseTransport
from cra_mcp.faces.mcp.http.streamable import StreamableHttp
from cra_mcp.faces.mcp.http.under_way import UnderWay
from cra_mcp.faces.mcp.server import GovernedServer, ServeOptions, local_principal
from cra_mcp.runtime import Runtime

MCP_PATH = "/mcp"
SSE_PATH = "/sse"
_SHORTEST_SWEEP_S = 1.0
_LONGEST_SWEEP_S = 10.0


class HttpApp:
    """The ASGI app of one server; its lifespan is the server's.

    Args:
        runtime: what is served; the caller opens and closes it.
        options: how it is presented.
        http: where it listens, and whom it answers.
        authenticator: who callers are; None: everybody is anonymous.
        resource: whose metadata is answered, without a credential; None: there is none.
        protected: further apps, by path, behind the same checks as MCP.
    """

    def __init__(
        self,
        runtime: Runtime,
        options: ServeOptions,
        http: HttpOptions,
        *,
        authenticator: Authenticator | None = None,
        resource: Resource | None = None,
        protected: Mapping[str, ASGIApp] | None = None,
    ) -> None:
        self._sessions = HttpSessions(runtime, options.goal, http.limits)
        server = GovernedServer(
            runtime, options, self._sessions, max_subscriptions=http.limits.max_streams_per_principal
        )
        self._end_subscriptions = server.listening.aclose
        self._streamable = StreamableHttp(server, self._sessions, http.limits)
        sse = SseTransport(server, self._sessions)
        local = local_principal(runtime, options)
        self._anonymous = Principal(
            "anonymous", tenant=local.tenant, agent_id=local.agent_id, roles=local.roles, credential="anonymous"
        )
        self._authenticator = authenticator
        self._limits = http.limits
        self._open_streams: Counter[Binding] = Counter()
        self._under_way = UnderWay(http.limits.stop_s)
        self._rate = Rate(http.limits)
        self._failures = Failures(http.limits)
        self._readiness = Readiness(runtime)
        self._mcp = _checked(self._protected(self._streamable), http)
        others = Starlette(
            routes=[
                Route("/healthz", self._health, methods=["GET"]),
                Route("/readyz", self._ready, methods=["GET"]),
                *_metadata(resource),
                *(Route(path, _Endpoint(self._protected(each))) for path, each in (protected or {}).items()),
                Route(SSE_PATH, _Endpoint(self._protected(sse.stream)), methods=["GET"]),
                Route(MESSAGES_PATH, _Endpoint(self._protected(sse.post)), methods=["POST"]),
            ],
            lifespan=self._lifespan,
        )
        self._others = _checked(others, http)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        # Nearly everything is for this one path, which needs no more than what is asked of every request.
        mcp = scope["type"] == "http" and scope["path"] == MCP_PATH
        await (self._mcp if mcp else self._others)(scope, receive, send)

    async def stop(self) -> None:
        """Take no request any more, and end those under way."""
        await self._under_way.close(self._end_subscriptions)
        await self._streamable.end_sessions()
        await self._under_way.cancel()

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncGenerator[None]:
        async with anyio.create_task_group() as group:
            group.start_soon(self._end_idle_sessions)
            try:
                async with self._streamable.run():
                    yield
            finally:
                self._sessions.stop()
                group.cancel_scope.cancel()

    async def _end_idle_sessions(self) -> None:
        while True:
            wait_s = self._sessions.end_idle()
            self._sessions.collect()
            await anyio.sleep(min(max(wait_s, _SHORTEST_SWEEP_S), _LONGEST_SWEEP_S))

    def _protected(self, app: ASGIApp) -> ASGIApp:
        """An app behind what every MCP request passes; the last named here is passed first."""
        app = LimitBody(app, self._limits)
        app = LimitStreams(app, self._limits, self._open_streams)
        app = self._rate.over(app)
        app = Authenticate(
            app, authenticator=self._authenticator, anonymous=self._anonymous, recheck_s=self._limits.recheck_s
        )
        if self._authenticator is not None:
            app = self._failures.over(app)
        app = AnswerRefused(app)
        return self._under_way.over(app)

    async def _health(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers={"cache-control": "no-store"})

    async def _ready(self, _request: Request) -> Response:
        said = {"status": "ready"}
        if self._under_way.stopping:
            said = {"status": "stopping"}
        elif (code := await self._readiness.problem()) is not None:
            reason = self._readiness.reason
            said = {"status": "not_ready", "error": code, **({"reason": reason} if reason is not None else {})}
        return JSONResponse(said, 200 if said["status"] == "ready" else 503, headers={"cache-control": "no-store"})


class _Endpoint:
    """An app as an endpoint: Starlette takes functions for handlers of requests, and objects for apps."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _metadata(resource: Resource | None) -> list[BaseRoute]:
    """Where clients look for it: under the path of the resource, and without one (RFC 9728, section 3.1)."""
    if resource is None:
        return []
    document = resource.metadata()

    async def answer(_request: Request) -> Response:
        return JSONResponse(document, headers={"cache-control": "max-age=300"})

    return [Route(path, answer, methods=["GET"]) for path in dict.fromkeys((resource.metadata_path, METADATA_PATH))]


def _checked(app: ASGIApp, http: HttpOptions) -> ASGIApp:
    """An app that answers to its own names only, and tells browsers which pages may call."""
    if http.allowed_origins:
        app = CORSMiddleware(
            app,
            allow_origins=[origin.lower() for origin in http.allowed_origins],
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["Mcp-Session-Id", "MCP-Protocol-Version", "WWW-Authenticate", "Retry-After"],
        )
    return CheckOrigin(app, hosts=http.hosts(), origins=http.allowed_origins)
