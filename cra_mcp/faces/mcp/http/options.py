"""How the HTTP server is set up, and what it is refused to be.

Rule: whatever is not said keeps the server on this machine, for one principal, within bounds.
"""

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from cra_mcp.errors import SettingsError

_WILDCARDS: Final = {"", "0.0.0.0", "::"}  # noqa: S104 - what is asked about, not bound


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what callers can take up. All are per process.

    Attributes:
        max_body_bytes: of one request.
        max_connections: open at once; further ones are closed.
        max_sessions: MCP and governed sessions open at once, each.
        max_sessions_per_principal: of these, by one principal.
        max_streams: answers open at once that stay open by design: GET streams, SSE connections, subscriptions.
        max_streams_per_principal: of these, by one principal.
        requests_per_second: sustained rate of one principal; ``burst`` more at once.
        burst: requests a principal may make at once after a pause.
        failures_per_second: sustained rate of requests of one address whose credential is refused; ``failure_burst`` more at once.
        failure_burst: such requests an address may make at once after a pause.
        session_idle_s: seconds a session may go unused before it ends.
        receive_s: seconds a client has for the head of a request, and again for its body.
        send_s: seconds a client may leave an answer unread once buffers are full.
        keep_alive_s: seconds a connection may stay open between requests.
        recheck_s: seconds between looks at whether the credential of an open stream still holds.
        stop_s: seconds calls under way have to finish by themselves when the server stops.
    """

    max_body_bytes: int = 4_194_304
    max_connections: int = 8_192
    max_sessions: int = 2_048
    max_sessions_per_principal: int = 512
    max_streams: int = 2_048
    max_streams_per_principal: int = 512
    requests_per_second: float = 200.0
    burst: int = 400
    failures_per_second: float = 1.0
    failure_burst: int = 60
    session_idle_s: float = 1_800.0
    receive_s: float = 30.0
    send_s: float = 30.0
    keep_alive_s: int = 30
    recheck_s: float = 30.0
    stop_s: float = 0.25

    def __post_init__(self) -> None:
        """Refuse bounds that bound nothing or let nothing through.

        Raises:
            SettingsError: the first of them, by name.
        """
        for name in self.__slots__:
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise SettingsError(f"{name} must be a number above 0", hint=f"set CRA_HTTP_{name.upper()} to one")


def limits_from_environment(environ: Mapping[str, str]) -> Limits:
    """Bounds from ``CRA_HTTP_*`` variables (``CRA_HTTP_MAX_SESSIONS``); unset or empty ones keep their default.

    Raises:
        SettingsError: a variable has a value that can't be used; the message names it.
    """
    values: dict[str, Any] = {}
    for name, default in asdict(Limits()).items():
        variable = f"CRA_HTTP_{name.upper()}"
        text = environ.get(variable, "")
        if not text:
            continue
        try:
            values[name] = type(default)(text)
        except ValueError:
            raise SettingsError(
                f"{variable} has a value that can't be used", hint="give it a number or unset it"
            ) from None
    return Limits(**values)


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """Where the server listens, and whom it answers.

    Attributes:
        host: name or address to bind.
        port: 0 takes a free one.
        allowed_hosts: names that requests may be sent to, besides those of the address bound: ``name`` or ``name:port``.
        allowed_origins: web origins whose pages may call, besides the server's own: ``https://app.example.com``.
        allow_anonymous: answer callers without a credential on addresses other machines reach.
        limits: bounds.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    allow_anonymous: bool = False
    limits: Limits = field(default_factory=Limits)

    def hosts(self) -> tuple[str, ...]:
        """Every name the server answers to."""
        own: tuple[str, ...] = ()
        if is_loopback(self.host):
            own = ("localhost", "127.0.0.1", "[::1]")
        if self.host not in _WILDCARDS:
            address = self.host.partition("%")[0]  # clients leave the scope out
            own = (*own, f"[{address}]" if ":" in address else address)
        return (*own, *self.allowed_hosts)

    def check(self, *, authenticated: bool) -> None:
        """Refuse to be open to the network by accident.

        Args:
            authenticated: whether callers have to say who they are.

        Raises:
            SettingsError: ``insecure_binding`` or ``invalid_settings``.
        """
        if not authenticated and not self.allow_anonymous and not is_loopback(self.host):
            raise SettingsError(
                f"{self.host or 'the wildcard address'} can be reached from other machines, and callers need no credential",
                code="insecure_binding",
                hint="bind 127.0.0.1, set up authentication, or say --insecure-allow-anonymous",
            )
        if not self.hosts():
            raise SettingsError(
                "a server on all addresses must be told its names",
                hint="give --allowed-host for every name that clients use, such as --allowed-host mcp.example.com",
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets on every address of ``host``, all with the same port.

    Raises:
        SettingsError: the name has no address, or none of them can be bound.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise SettingsError(
            f"{host[:100]!r} is not a name or address of this machine", hint="give another --host"
        ) from error
    bound: list[socket.socket] = []
    failure: OSError | None = None
    for family, kind, protocol, _, address in dict.fromkeys(found):
        listener = socket.socket(family, kind, protocol)
        try:
            _prepare(listener, family)
            listener.bind((address[0], port, *address[2:]))
        except OSError as error:
            listener.close()
            failure = error
            continue
        port = port or listener.getsockname()[1]
        bound.append(listener)
    if not bound:
        raise SettingsError(
            f"port {port} of {host or 'all addresses'} can't be used: {failure.strerror if failure else 'no address'}",
            hint="choose another --port; 0 takes a free one",
        ) from failure
    return bound


def _prepare(listener: socket.socket, family: int) -> None:
    listener.setblocking(False)
    if hasattr(
        socket, "SO_EXCLUSIVEADDRUSE"
    ):  # Windows, where SO_REUSEADDR would let another program take the port over
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
