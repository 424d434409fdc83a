"""Host and Origin checks: only pages that belong here, and clients that mean this server, are answered.

A web page can make its own name resolve to this machine, and then send requests here with the user's browser (DNS rebinding); the
Host header still carries the page's name, and Origin its origin.
What is no authority by RFC 3986 is nobody's name, whatever it begins with.
Source: MCP specification, "Streamable HTTP", security warning; RFC 9110, 7.2; RFC 6454, 7.
"""

from collections.abc import Iterable
from contextlib import suppress

from starlette.types import ASGIApp, Receive, Scope, Send

from cra_mcp.authority import split_authority, split_url
from cra_mcp.errors import SettingsError
from cra_mcp.faces.mcp.http.answers import Refusal

_WRONG_HOST = Refusal(421, "wrong_host", "this server is not called that", "start it with --allowed-host for this name")
_WRONG_ORIGIN = Refusal(
    403, "wrong_origin", "pages of this origin may not call this server", "start it with --allowed-origin for it"
)


class CheckOrigin:
    """Refuses requests to other hosts with 421, and from foreign origins with 403. Everything but HTTP is not answered at all.

    Args:
        app: what is protected.
        hosts: names the server answers to: ``name`` (any port) or ``name:port``.
        origins: origins whose pages may call, besides the server's own.

    Raises:
        SettingsError: one of them can't be used.
    """

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str], origins: Iterable[str]) -> None:
        self._app = app
        self._hosts = frozenset(_checked_host(host) for host in hosts)
        self._origins = frozenset(checked_origin(origin) for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        origins = [value for name, value in scope["headers"] if name == b"origin"]
        if len(hosts) != 1 or not self._is_ours(host := hosts[0].decode("latin-1").lower()):
            await _WRONG_HOST.send(scope, receive, send)
        elif len(origins) > 1 or (origins and not self._may_call(origins[0].decode("latin-1").lower(), host)):
            await _WRONG_ORIGIN.send(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        try:
            name, port = split_authority(host)
        except ValueError:
            return False
        return name in self._hosts or (port is not None and f"{name}:{port}" in self._hosts)

    def _may_call(self, origin: str, host: str) -> bool:
        # The host has been found to be ours, so a page of the same one came from here.
        return origin in self._origins or origin in {f"http://{host}", f"https://{host}"}


def checked_origin(origin: str) -> str:
    """An origin as browsers write it.

    Raises:
        SettingsError: it isn't one.
    """
    lowered = origin.lower()
    with suppress(ValueError):
        parts = split_url(lowered, {"http", "https"})
        if lowered == f"{parts.scheme}://{parts.netloc}":
            return lowered
    raise SettingsError(
        f"{origin.rpartition('@')[2][:100]!r} is not a web origin",
        hint="write scheme, host and port only: https://app.example.com:8443",
    )


def _checked_host(host: str) -> str:
    try:
        name, port = split_authority(host)
    except ValueError:
        raise SettingsError(
            f"{host.rpartition('@')[2][:100]!r} is not a host name",
            hint="write a name, with a port if only that one is meant",
        ) from None
    return name if port is None else f"{name}:{port}"
