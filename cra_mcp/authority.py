"""Hosts and ports, in ``Host`` headers and in the URLs of settings: one reading, by the grammar.

Rule: what RFC 3986 has no production for is refused, never trimmed to something that fits; user names and non-ASCII names are
refused too, since programs read them differently. Source: RFC 3986, 3.2.2 and 3.2.3; RFC 9110, 7.2.
"""

import ipaddress
import re
from collections.abc import Collection
from typing import Final
from urllib.parse import SplitResult, urlsplit

_AUTHORITY: Final = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._~-]+)(?::(?P<port>[0-9]{1,5}))?")
_PLAIN: Final = re.compile(r"[\x21-\x7e]+")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_MAX_HOST: Final = 255
_MAX_PORT: Final = 65_535


def split_authority(text: str) -> tuple[str, int | None]:
    """The host of ``HOST`` or ``HOST:PORT``, in lower case (an IPv6 address in brackets and its shortest form), and its port.

    Raises:
        ValueError: it is neither.
    """
    found = _AUTHORITY.fullmatch(text.lower())
    if found is None:
        raise ValueError("not a host name or address, with a port or none")
    host, port = found["host"], int(found["port"]) if found["port"] else None
    if port is not None and not 0 < port <= _MAX_PORT:
        raise ValueError("there is no such port")
    if host.startswith("["):
        return f"[{ipaddress.IPv6Address(host[1:-1])}]", port
    labels = host.removesuffix(".").split(".")
    if len(host) > _MAX_HOST or not all(labels):
        raise ValueError("not a host name")
    if _NUMBER.fullmatch(labels[-1]):
        ipaddress.IPv4Address(host)
    return host, port


def split_url(text: str, schemes: Collection[str]) -> SplitResult:
    """A URL of one of ``schemes`` that names a host, without a user or a password.

    Raises:
        ValueError: it is none.
    """
    if _PLAIN.fullmatch(text) is None:
        raise ValueError("a URL is printable ASCII without spaces")
    parts = urlsplit(text)
    if parts.scheme not in schemes:
        raise ValueError("not a URL of this kind")
    split_authority(parts.netloc)
    return parts
