"""Sends requests to HTTP services.

Rule: no request leaves for an address that is not public unless the atlas names its host and the operator allows it, and
no secret leaves for a host the atlas does not name. No proxy, cookie or password file of the environment is used.
Source: specs/atlas.md, "Executor: http".
"""

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import anyio.to_thread

from cra_mcp.atlas.model import Action, Atlas, HttpExecutor
from cra_mcp.atlas.origin import Origin, OriginError
from cra_mcp.errors import ExecutionError, SettingsError
from cra_mcp.execution.backend import BoundAction, Invocation, Result
from cra_mcp.execution.foreign_json import apart
from cra_mcp.execution.http_addresses import Hosts
from cra_mcp.json_bounds import INLINE_BYTES

if TYPE_CHECKING:
    from types import TracebackType

    import httpcore2

    from cra_mcp.execution.http_network import Resolve
    from cra_mcp.execution.http_request import RequestTemplate
    from cra_mcp.execution.http_secrets import Lookup, Secret

MAX_CONNECTIONS = 100
_MAX_IDLE = 20
_IDLE_S = 4.0  # under the 5 s after which many servers close: an idle connection is ours to close, not theirs


class HttpBackend:
    """Carries out actions of type ``http``.

    Inside ``async with`` connections are kept for the next request; a call from elsewhere (outside of it, or on another event
    loop) uses one of its own and closes it.

    Args:
        allow_private_hosts: ``HOST`` or ``HOST:PORT`` that may be at private addresses.
        ca_bundle: file of certificates that are trusted besides those of the operating system.
        environ: where secrets are looked up; None means this process's environment, as it is at the time of a call.
        resolve: names to addresses; None means the operating system's.
        network: what connects to addresses; None means sockets.
        lookup: where secrets in a keyring are looked up; None means the keyring of the operating system.

    Raises:
        SettingsError: a host is not one.
    """

    executor_type: ClassVar[str] = "http"

    def __init__(
        self,
        *,
        allow_private_hosts: Iterable[str] = (),
        ca_bundle: Path | None = None,
        environ: Mapping[str, str] | None = None,
        resolve: "Resolve | None" = None,
        network: "httpcore2.AsyncNetworkBackend | None" = None,
        lookup: "Lookup | None" = None,
    ) -> None:
        try:
            self._allowed = Hosts.of(allow_private_hosts)
        except OriginError as error:
            raise SettingsError(
                f"allow_private_hosts: {error}", hint="write HOST or HOST:PORT, as in localhost:8080"
            ) from error
        self._ca_bundle = ca_bundle
        self._environ = os.environ if environ is None else environ
        self._resolve = resolve
        self._network = network
        self._lookup = lookup
        self._trust: ssl.SSLContext | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pool: httpcore2.AsyncConnectionPool | None = None

    async def __aenter__(self) -> Self:
        """Keep connections of this event loop from now on."""
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: "TracebackType | None",
    ) -> None:
        """Close them."""
        await self.aclose()

    def bind(self, action: Action, atlas: Atlas) -> BoundAction:
        """Tie ``action`` to its endpoint."""
        from cra_mcp.execution.http_request import (  # noqa: PLC0415 - only programs that send requests wait for it
            RequestTemplate,
            RequestTemplateError,
        )

        del atlas
        executor = action.executor
        if not isinstance(executor, HttpExecutor):
            raise ExecutionError("no_executor", f"{action.action_id} has no executor of type http")
        try:
            template = RequestTemplate(executor, action.parameters_schema)
            allow_hosts = Hosts.of(executor.allow_hosts)
        except (RequestTemplateError, OriginError) as error:
            raise ExecutionError("no_executor", f"the executor of {action.action_id} can't be used: {error}") from error
        retries = executor.retries if action.idempotent else 0

        async def run(invocation: Invocation) -> Result:
            return await self._run(template, executor, allow_hosts, retries, invocation)

        return run

    async def aclose(self) -> None:
        """Close all connections that are kept."""
        pool, self._pool, self._loop = self._pool, None, None
        if pool is not None:
            await pool.aclose()

    async def _run(
        self,
        template: "RequestTemplate",
        executor: HttpExecutor,
        allow_hosts: Hosts,
        retries: int,
        invocation: Invocation,
    ) -> Result:
        from cra_mcp.execution.http_client import Bounds, send  # noqa: PLC0415 - httpcore2 only where requests are sent
        from cra_mcp.execution.http_response import to_result  # noqa: PLC0415 - as above
        from cra_mcp.execution.http_secrets import Mask, fetch_secrets, keyring_lookup  # noqa: PLC0415 - as above

        request = template.build(invocation.parameters, invocation.execution_id)
        secrets = await fetch_secrets(executor.secrets, self._environ, self._lookup or keyring_lookup)
        self._check_clear_text(template.origin, secrets)
        mask = Mask(secrets)
        bounds = Bounds(retries, executor.max_redirects, allow_hosts, executor.max_response_bytes)
        async with self._connections() as pool:
            answer, method = await send(pool, request, secrets, mask, bounds)
        made = partial(to_result, answer, method=method, pointer=executor.result, mask=mask)
        return made() if len(answer.body) <= INLINE_BYTES else await apart(made)

    def _check_clear_text(self, origin: Origin, secrets: "tuple[Secret, ...]") -> None:
        """Without TLS anybody on the way reads a secret: only on a network the operator has vouched for."""
        if secrets and origin.scheme != "https" and not self._allowed.has(origin.host, origin.port):
            raise ExecutionError(
                "address_refused",
                f"a secret would be sent to {origin.host} in clear text",
                hint="use https in the url of the executor",
            )

    @asynccontextmanager
    async def _connections(self) -> "AsyncGenerator[httpcore2.AsyncConnectionPool]":
        if self._loop is not asyncio.get_running_loop():
            async with await self._new_pool() as pool:
                yield pool
            return
        if self._pool is None:
            pool = await self._new_pool()
            self._pool = self._pool or pool  # another call may have been first; an unused pool holds nothing
        yield self._pool

    async def _new_pool(self) -> "httpcore2.AsyncConnectionPool":
        import httpcore2  # noqa: PLC0415 - 0.1 s; only where requests are sent

        from cra_mcp.execution.http_network import GuardedNetwork, resolve  # noqa: PLC0415 - as above

        if self._trust is None:
            self._trust = await anyio.to_thread.run_sync(_trust, self._ca_bundle)
        return httpcore2.AsyncConnectionPool(
            ssl_context=self._trust,
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=_MAX_IDLE,
            keepalive_expiry=_IDLE_S,
            network_backend=GuardedNetwork(self._allowed, resolve=self._resolve or resolve, network=self._network),
        )


def _trust(ca_bundle: Path | None) -> ssl.SSLContext:
    """What certificates are verified against: always, and with host names."""
    import httpcore2  # noqa: PLC0415 - as above

    context = httpcore2.default_ssl_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_bundle is not None:
        try:
            context.load_verify_locations(cafile=ca_bundle)
        except (OSError, ssl.SSLError) as error:
            raise ExecutionError(
                "missing_setting",
                "the file of certificates in http_ca_bundle can't be read",
                hint="name a file of certificates in PEM form in CRA_HTTP_CA_BUNDLE",
            ) from error
    return context
