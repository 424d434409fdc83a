"""Running the app: listening, saying so, and stopping.

Source: specs/mcp.md, "Over HTTP".
"""

import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import anyio
import uvicorn

from cra_mcp.auth.principal import Authenticator
from cra_mcp.faces.mcp.http.app import MCP_PATH, SSE_PATH, HttpApp
from cra_mcp.faces.mcp.http.options import HttpOptions, bind
from cra_mcp.faces.mcp.server import ServeOptions
from cra_mcp.faces.mcp.stopping import stop_requested
from cra_mcp.runtime import Runtime


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
    on_ready: Callable[[Listening], None] | None = None,
) -> None:
    """Serve over HTTP until the process is asked to stop (SIGTERM, SIGINT).

    Args:
        runtime: what is served; open.
        options: how it is presented.
        http: where it listens, and whom it answers.
        authenticator: who callers are; None: everybody is anonymous.
        on_ready: told once connections are taken.

    Raises:
        SettingsError: the address can't be bound, or must not be without authentication.
    """
    http.check(authenticated=authenticator is not None)
    app = HttpApp(runtime, options, http, authenticator=authenticator)
    sockets = bind(http.host, http.port)
    server = _Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=http.limits.keep_alive_s,
            timeout_graceful_shutdown=1,
        )
    )
    with stop_requested() as asked:
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, sockets)
            await server.ready.wait()
            if on_ready is not None:
                on_ready(Listening(http.host or "localhost", sockets[0].getsockname()[1]))
            await asked.wait()
            app.stop()
            server.should_exit = True


class _Server(uvicorn.Server):
    """Uvicorn's, which leaves signals to us and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = anyio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield
