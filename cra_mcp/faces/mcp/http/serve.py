"""Running the app: listening, saying so, and stopping.

Source: specs/mcp.md, "Over HTTP".
"""

import gc
import logging
import socket
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import anyio
import uvicorn
from starlette.types import ASGIApp

from cra_mcp.auth.bearer import Resource
from cra_mcp.auth.principal import Authenticator
from cra_mcp.faces.mcp.http.app import MCP_PATH, SSE_PATH, HttpApp
from cra_mcp.faces.mcp.http.options import HttpOptions, bind
from cra_mcp.faces.mcp.http.protocol import bounded
from cra_mcp.faces.mcp.server import ServeOptions
from cra_mcp.faces.mcp.stopping import stop_requested
from cra_mcp.runtime import Runtime

_CLOSE_S: Final = 0.1
_FILES: Final = 65_536
_COLLECT_AFTER: Final = (20_000, 10, 10)


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a server answers."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The base of all its addresses."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def to_dict(self) -> dict[str, object]:
        """As plain JSON, for programs that start it."""
        return {"mcp": self.url + MCP_PATH, "sse": self.url + SSE_PATH, "host": self.host, "port": self.port}


async def serve_http(
    runtime: Runtime,
    options: ServeOptions,
    http: HttpOptions,
    *,
    authenticator: Authenticator | None = None,
    resource: Resource | None = None,
    protected: Mapping[str, ASGIApp] | None = None,
    on_ready: Callable[[Listening], None] | None = None,
) -> None:
    """Serve over HTTP until the process is asked to stop (SIGTERM, SIGINT).

    Args:
        runtime: what is served; open.
        options: how it is presented.
        http: where it listens, and whom it answers.
        authenticator: who callers are; None: everybody is anonymous.
        resource: this server as an OAuth resource, whose metadata it then answers; None: it has none.
        protected: further apps, by path, behind the same checks as MCP.
        on_ready: told once connections are taken.

    Raises:
        SettingsError: the address can't be bound, or must not be without authentication.
    """
    http.check(authenticated=authenticator is not None)
    app = HttpApp(runtime, options, http, authenticator=authenticator, resource=resource, protected=protected or {})
    sockets = bind(http.host, http.port)
    server = _Server(
        uvicorn.Config(
            app,
            http=bounded(http.limits),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=http.limits.keep_alive_s,
        ),
        app,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # below that it speaks of what any client can cause
    allow_many_files()
    with stop_requested() as asked:
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, sockets)
            await server.ready.wait()
            # What was imported and loaded stays for good. Out of the collector's sight it is not walked again and again under load.
            # Most of what is young is in use while hundreds of calls are under way: looking through it every 700 objects took a
            # fifth of the processor, and found next to nothing.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*_COLLECT_AFTER)
            if on_ready is not None:
                on_ready(Listening(http.host or "localhost", sockets[0].getsockname()[1]))
            await asked.wait()
            server.asked.set()


class _Server(uvicorn.Server):
    """Uvicorn's, with our way of stopping: at once, whatever clients do, and every outcome recorded."""

    def __init__(self, config: uvicorn.Config, app: HttpApp) -> None:
        super().__init__(config)
        self.ready = anyio.Event()
        self.asked = anyio.Event()
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        while not self.asked.is_set():
            await self.on_tick(0)  # the Date header
            with anyio.move_on_after(1):
                await self.asked.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        await self._app.stop()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with anyio.move_on_after(_CLOSE_S):
            while self.server_state.connections:  # noqa: ASYNC110 - uvicorn says it to nobody
                await anyio.sleep(_CLOSE_S / 20)
        for connection in list(self.server_state.connections):
            connection.transport.abort()  # it leaves our last words unread
        await self.lifespan.shutdown()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Signals are the business of whoever runs this."""
        yield


def allow_many_files() -> None:
    """Raise this process's bound on open files to what it may have: each connection and each session is one or two."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - not on Windows

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if most == resource.RLIM_INFINITY else min(_FILES, most)
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
