"""The only way to a socket: a name is resolved once, every address it stands for is checked, and one of those is connected to.

Rule: between the check and the connection nothing is resolved again, so what a name stands for a moment later doesn't
matter. Where one address of a name is forbidden, all are: an honest name does not lead to both sides.

Imports ``httpcore2``: loaded when the first request is made.
"""

import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import cast

import anyio
import httpcore2

from cra_mcp.errors import ExecutionError
from cra_mcp.execution.http_addresses import Hosts, may_reach

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""``(host, port)`` to the addresses the host stands for, best first; ``OSError`` if there are none."""

_ATTEMPT_S = 3.0
_LAST_ATTEMPT_S = 10.0


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, as the operating system knows them.

    Raises:
        OSError: there are none.
    """
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to checked addresses.

    Args:
        allowed: hosts that may be at private addresses.
        resolve: asked once a connection.
        network: what then connects, always to an address.
    """

    def __init__(
        self, allowed: Hosts, *, resolve: Resolve = resolve, network: httpcore2.AsyncNetworkBackend | None = None
    ) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._network = network or cast("httpcore2.AsyncNetworkBackend", httpcore2.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to an address of ``host``.

        Raises:
            ExecutionError: ``address_refused``.
            httpcore2.ConnectError: it has no address, or none can be connected to.
        """
        del timeout, local_address
        addresses = await self._checked(host, port)
        for address in addresses[:-1]:
            try:
                return await self._network.connect_tcp(address, port, timeout=_ATTEMPT_S, socket_options=socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return await self._network.connect_tcp(
            addresses[-1], port, timeout=_LAST_ATTEMPT_S, socket_options=socket_options
        )

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """No request goes to a socket of this machine.

        Raises:
            httpcore2.ConnectError: always.
        """
        del path, timeout, socket_options
        raise httpcore2.ConnectError

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await anyio.sleep(seconds)

    async def _checked(self, host: str, port: int) -> Sequence[str]:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError from error
        if not addresses:
            raise httpcore2.ConnectError
        for address in addresses:
            if not may_reach(host, port, address, self._allowed):
                raise ExecutionError(
                    "address_refused",
                    f"{host} stands for an address that is not public, so no request is sent to it",
                    hint=f"the operator can allow it: --allow-private-host {host}:{port}, or CRA_ALLOW_PRIVATE_HOSTS",
                )
        return addresses
