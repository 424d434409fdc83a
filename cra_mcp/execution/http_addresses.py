"""Which addresses a request may reach: the public ones, and those of hosts the operator has named.

Rule: an address is public only if nothing says otherwise, in the form it has and in every IPv4 address it carries inside.
A name never opens link-local addresses or those where clouds keep the credentials of a machine: only the address
itself, named by the operator, does. Pure.
Source: IANA IPv4 and IPv6 Special-Purpose Address Registries; RFC 6890, 6052, 4291, 3056, 4380, 5214.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from cra_mcp.atlas.origin import split_host

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Reach(Enum):
    """What kind of place an address leads to."""

    PUBLIC = "public"
    PRIVATE = "private"
    """This machine or the networks it is in: loopback, RFC 1918, RFC 6598, unique local."""

    GUARDED = "guarded"
    """Link-local, and what clouds answer with credentials on."""

    NEVER = "never"
    """Nothing a request can be meant for: multicast, unspecified, reserved, documentation, old tunnels."""


def _networks(*texts: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


_GUARDED = _networks(
    "169.254.0.0/16",  # link-local; instance metadata of most clouds
    "168.63.129.16/32",  # Azure's, in a public range
    "100.100.100.200/32",  # Alibaba Cloud's
    "192.0.0.192/32",  # Oracle Cloud's
    "fe80::/10",
    "fd00:ec2::254/128",  # AWS's
    "fd20:ce::254/128",  # Google Cloud's
)
_PRIVATE = _networks(
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "::1/128",
    "fc00::/7",
)
_NEVER = _networks(
    "0.0.0.0/8",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "2001::/23",  # Teredo, ORCHID and other protocols' own
    "2001:db8::/32",
    "2002::/16",
    "2620:4f:8000::/48",
    "3fff::/20",
)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)


def reach_of(text: str) -> Reach:
    """Where an address leads. A scope (``%eth0``) doesn't matter; what is no address leads nowhere."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return Reach.NEVER
    return _reach(address)


def _reach(address: Address) -> Reach:
    if isinstance(address, ipaddress.IPv6Address):
        inside = _inner(address)
        if inside is not None:
            return _reach(inside)
    for networks, reach in ((_GUARDED, Reach.GUARDED), (_PRIVATE, Reach.PRIVATE), (_NEVER, Reach.NEVER)):
        if any(address.version == network.version and address in network for network in networks):
            return reach
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
        return Reach.NEVER
    return Reach.PUBLIC


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that a mapped, translated (NAT64) or ISATAP address ends up at."""
    number = int(address)
    if address in _MAPPED or address in _TRANSLATED or (number >> 32) & 0xFFFFFFFF in _ISATAP:
        return ipaddress.IPv4Address(number & 0xFFFFFFFF)
    return None


@dataclass(frozen=True, slots=True)
class Hosts:
    """Hosts, each on one port or on all of them.

    ``Hosts.of(["localhost:8080", "10.0.0.7"])`` reads them.
    """

    entries: frozenset[tuple[str, int | None]] = frozenset()

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Hosts":
        """Read ``HOST`` and ``HOST:PORT``.

        Raises:
            OriginError: one is neither.
        """
        return cls(frozenset(split_host(text) for text in texts))

    def has(self, host: str, port: int) -> bool:
        """Whether one of them is ``host`` on ``port``."""
        return (host, port) in self.entries or (host, None) in self.entries


def may_reach(host: str, port: int, address: str, allowed: Hosts) -> bool:
    """Whether a request for ``host`` may be sent to ``address``, which ``host`` stands for at this moment."""
    match reach_of(address):
        case Reach.PUBLIC:
            return True
        case Reach.PRIVATE:
            return allowed.has(host, port)
        case Reach.GUARDED:
            return host == address and allowed.has(host, port)
        case Reach.NEVER:
            return False
