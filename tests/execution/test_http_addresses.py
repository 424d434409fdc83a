"""Which addresses a request may reach, in every form an address has."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cra_mcp.atlas.origin import OriginError
from cra_mcp.execution.http_addresses import Hosts, Reach, may_reach, reach_of

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "100.63.255.255",
    "100.128.0.1",
    "172.15.0.1",
    "172.32.0.1",
    "2606:4700::1111",
    "64:ff9b::808:808",
]
PRIVATE = [
    "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "::1",
    "fc00::1", "fdff::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1",
    "2606:4700::5efe:10.0.0.1", "2606:4700::200:5efe:192.168.0.1",
]  # fmt: skip
GUARDED = [
    "169.254.169.254", "169.254.170.2", "169.254.0.1", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "fd20:ce::254",
    "168.63.129.16", "100.100.100.200", "192.0.0.192", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe",
]  # fmt: skip
NEVER = [
    str(ipaddress.IPv4Address(0)), "0.1.2.3", "::", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1", "203.0.113.9", "192.88.99.1", "ff02::1", "fec0::1", "2001:db8::1", "2001::1", "2002:7f00:1::", "3fff::1",
    "64:ff9b:1::7f00:1", "::127.0.0.1", "::ffff:0.0.0.0", "::ffff:0:127.0.0.1", "100::1", "5f00::1", "", "localhost", "1.2.3",
]  # fmt: skip
EVERY = [
    *((text, Reach.PUBLIC) for text in PUBLIC),
    *((text, Reach.PRIVATE) for text in PRIVATE),
    *((text, Reach.GUARDED) for text in GUARDED),
    *((text, Reach.NEVER) for text in NEVER),
]


@pytest.mark.parametrize(("text", "reach"), EVERY)
def test_each_address_leads_where_the_registries_say(text: str, reach: Reach) -> None:
    assert reach_of(text) is reach


@given(st.integers(0, 2**32 - 1))
def test_what_python_calls_not_global_is_never_public(number: int) -> None:
    address = ipaddress.IPv4Address(number)
    if not address.is_global or address.is_multicast:
        assert reach_of(str(address)) is not Reach.PUBLIC


@given(st.integers(0, 2**32 - 1), st.sampled_from([0xFFFF << 32, 0x64_FF9B << 96]))
def test_an_address_inside_another_is_judged_as_itself(number: int, around: int) -> None:
    inside, outside = ipaddress.IPv4Address(number), ipaddress.IPv6Address(around | number)
    assert reach_of(str(outside)) is reach_of(str(inside))


def test_a_private_address_needs_its_host_on_its_port_to_be_allowed() -> None:
    allowed = Hosts.of(["desk.example:8080", "10.0.0.7", "[::1]:443"])
    assert may_reach("desk.example", 8080, "10.1.2.3", allowed)
    assert not may_reach("desk.example", 8081, "10.1.2.3", allowed)
    assert not may_reach("other.example", 8080, "10.1.2.3", allowed)
    assert may_reach("10.0.0.7", 1, "10.0.0.7", allowed)
    assert may_reach("::1", 443, "::1", allowed)
    assert may_reach("other.example", 443, "8.8.8.8", allowed)


@pytest.mark.parametrize("address", GUARDED)
def test_a_name_never_opens_where_machines_keep_their_credentials(address: str) -> None:
    assert not may_reach("desk.example", 80, address, Hosts.of(["desk.example"]))


def test_only_the_address_itself_opens_them() -> None:
    assert may_reach("169.254.169.254", 80, "169.254.169.254", Hosts.of(["169.254.169.254:80"]))
    assert not may_reach("169.254.169.254", 80, "169.254.169.254", Hosts.of(["169.254.169.253"]))


@pytest.mark.parametrize("address", NEVER)
def test_nothing_opens_what_is_meant_for_nobody(address: str) -> None:
    assert not may_reach("desk.example", 80, address, Hosts.of(["desk.example"]))
    assert not may_reach(address, 80, address, Hosts(frozenset({(address, None)})))


@pytest.mark.parametrize(
    "text", ["", "a b", "http://x", "x:0", "x:65536", "x:", "*.x", "u@x", "127.1", "0x7f.0.0.1", "x/y"]
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(OriginError):
        Hosts.of([text])
