"""Where an HTTP request goes: scheme, host and port, always literal.

Rule: one reading of a host and no other. What different parsers read differently (user names, octal or short IPv4
addresses, backslashes, non-ASCII names) is refused, not repaired.
Source: RFC 3986, 3.2; RFC 1123, 2.1; RFC 9110, 4.2; WHATWG URL, 3.5 (a host whose last label is a number).
"""

import ipaddress
import re
from dataclasses import dataclass

_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#{}\\\x00-\x20\x7f]*)(?P<rest>.*)", re.DOTALL)
_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[0-9a-zA-Z.-]+)(?::(?P<port>[0-9]{1,5}))?")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_MAX_NAME = 253
_MAX_PORT = 65_535
_PORTS = {"http": 80, "https": 443}


class OriginError(ValueError):
    """Not the start of an HTTP URL. The message shows no values."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port.

    Attributes:
        scheme: ``http`` or ``https``.
        host: a lower-case name, or an address in its shortest form and without brackets.
        port: 1-65535.
    """

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """As it stands in a ``Host`` header: brackets round IPv6, the port unless it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def split_url(url: str) -> tuple[Origin, str]:
    """The origin of a URL or URL template, and the rest of it, which begins with ``/``, ``?``, ``#``, ``{`` or is empty.

    Raises:
        OriginError: it does not begin with a scheme and a literal authority.
    """
    found = _URL.fullmatch(url)
    if found is None:
        raise OriginError("must begin with http:// or https:// and a host")
    host, port = _split_authority(found["authority"])
    if found["rest"].startswith(("{", "}")) and not found["rest"].startswith(("{/", "{?")):
        raise OriginError("no parameter may choose the host or the port: put / after the host")
    return Origin(found["scheme"], host, port or _PORTS[found["scheme"]]), found["rest"]


def split_host(text: str) -> tuple[str, int | None]:
    """``HOST`` or ``HOST:PORT``; None where no port is said.

    Raises:
        OriginError: it is neither.
    """
    return _split_authority(text)


def _split_authority(text: str) -> tuple[str, int | None]:
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        raise OriginError("the host must be a plain name or an address, without user name, and with a port or none")
    port = int(found["port"]) if found["port"] else None
    if port is not None and not 1 <= port <= _MAX_PORT:
        raise OriginError("there is no such port")
    return _host(found["host"]), port


def _host(text: str) -> str:
    if text.startswith("["):
        try:
            address = ipaddress.IPv6Address(text[1:-1])
        except ValueError:
            raise OriginError("not an IPv6 address") from None
        # RFC 5952, section 5; Python before 3.13 writes the last 32 bits in hexadecimal.
        return f"::ffff:{address.ipv4_mapped}" if address.ipv4_mapped is not None else str(address)
    host = text.lower().removesuffix(".")
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise OriginError("not an IPv4 address: write four decimal numbers") from None
    if len(host) > _MAX_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise OriginError("not a host name: letters, digits and hyphens between dots (write others in Punycode)")
    return host
