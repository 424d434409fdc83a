"""What is read as a host: by the grammar, and the same wherever one is configured or sent."""

import ipaddress
import json
import re
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cra_mcp.atlas.loader import load_atlas_text
from cra_mcp.atlas.model import Upstream
from cra_mcp.auth.bearer import Resource
from cra_mcp.auth.jwks import UrlSource
from cra_mcp.authority import split_authority
from cra_mcp.errors import AtlasInvalidError, CRAError
from cra_mcp.execution.upstream import target_of
from cra_mcp.faces.mcp.http.origin import CheckOrigin, checked_origin
from cra_mcp.trace import sinks
from cra_mcp.trace.export import sinks as exports
from cra_mcp.trace.timestamping import authority_url

NONE = [
    "[::1]evil",
    "[::1]:80evil",
    "[::1]@evil",
    "[::1",
    "::1",
    "[]",
    "[127.0.0.1]",
    "[::1%25eth0]",
    "localhost:@evil",
    "localhost@evil",
    "user:secret@localhost",
    "localhost:80:80",
    "localhost:80@evil",
    "localhost:eighty",
    "localhost:-1",
    "localhost:0",
    "localhost:65536",
    "localhost:",
    "127.0.0.1:80 evil",
    "127.0.0.1 evil",
    "localhost evil",
    " localhost",
    "localhost ",
    "localhost\t",
    "localhost\x00",
    "localhost\\evil",
    "localhost,evil",
    "local..host",
    ".localhost",
    ".",
    "",
    "127.1",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "256.0.0.1",
    "lоcalhost",  # noqa: RUF001 - a Cyrillic letter
    "localhost\u2028",
    "a" * 256,
]
SOME = ["localhost", "LocalHost:80", "127.0.0.1:8765", "[::1]", "[0:0:0:0:0:0:0:1]:8", "a_b.example:1", "mcp.example."]

# RFC 3986, appendix A, without what is refused besides: user names, percent-encoding, sub-delims, future address forms.
_REG_NAME = re.compile(r"[A-Za-z0-9._~-]{1,255}")


def literally(text: str) -> bool:
    """Whether a text is HOST or HOST:PORT, read character by character."""
    if text.startswith("["):
        inside, mark, rest = text[1:].partition("]")
        try:
            ipaddress.IPv6Address(inside)
        except ValueError:
            return False
        good = bool(mark) and "%" not in inside
    else:
        name, mark, port = text.partition(":")
        rest = mark + port
        labels = name.removesuffix(".").split(".")
        good = _REG_NAME.fullmatch(name) is not None and all(labels)
        if good and re.fullmatch("[0-9]+|0[xX][0-9a-fA-F]*", labels[-1]):
            parts = name.split(".")
            good = len(parts) == 4 and all(p.isdigit() and str(int(p)) == p and int(p) < 256 for p in parts)
    if not rest:
        return good
    number = rest[1:]
    return good and rest[0] == ":" and re.fullmatch("[0-9]{1,5}", number) is not None and 0 < int(number) < 65_536


PIECES = st.sampled_from(
    [*NONE, *SOME, "[", "]", ":", "@", ".", "80", "::1", "x", "é", " ", "\n", "/", "%41", "127.0.0.1"]
)


@given(st.lists(PIECES, max_size=4).map("".join) | st.text(max_size=12))
@example("1.2.3.4.")
@example("a.")
def test_an_authority_is_what_the_grammar_says(text: str) -> None:
    try:
        host, port = split_authority(text)
    except ValueError:
        assert not literally(text) or text.endswith(".") or ".:" in text, text
        return
    assert literally(text) or text.endswith(".") or ".:" in text, text
    assert host == host.lower()
    assert split_authority(host if port is None else f"{host}:{port}") == (host, port), (
        "reading it again changes nothing"
    )


def status_of(
    host: str, *, hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]", "a_b.example", "mcp.example.")
) -> int:
    """What the server's door answers to a request for a host."""
    found: list[int] = []

    async def app(_scope: object, _receive: object, send: Callable[..., object]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[misc]

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            found.append(message["status"])  # type: ignore[arg-type]

    door = CheckOrigin(app, hosts=hosts, origins=())  # type: ignore[arg-type]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", host.encode("utf-8"))]}
    anyio.run(door, scope, receive, send)
    return found[0]


@pytest.mark.parametrize("host", NONE)
def test_what_is_no_authority_is_not_our_name(host: str) -> None:
    assert status_of(host) == 421


@pytest.mark.parametrize("host", SOME)
def test_our_names_are_ours_in_any_form(host: str) -> None:
    assert status_of(host) == 200
    assert status_of("evil.example:80") == 421


def test_a_name_with_a_port_is_meant_with_that_port_only() -> None:
    hosts = ("mcp.example:443", "[::1]:8765")
    for host, status in (
        ("mcp.example:443", 200),
        ("MCP.example:443", 200),
        ("mcp.example", 421),
        ("mcp.example:80", 421),
        ("[0::1]:8765", 200),
        ("[::1]", 421),
    ):
        assert status_of(host, hosts=hosts) == status, host


def _atlas(url: str) -> None:
    manifest = {
        "atlas_version": "1.0",
        "atlas_id": "com.example.up",
        "version": "1.0.0",
        "name": "n",
        "description": "d",
        "upstreams": {"up": {"url": url}},
    }
    load_atlas_text(json.dumps(manifest))


READERS: dict[str, Callable[[str], object]] = {
    "allowed host": lambda host: CheckOrigin(None, hosts=(host,), origins=()),  # type: ignore[arg-type]
    "origin": lambda host: checked_origin(f"https://{host}"),
    "public url": lambda host: Resource(f"https://{host}/mcp"),
    "key set": lambda host: UrlSource(f"https://{host}/jwks"),
    "time-stamping authority": lambda host: authority_url(f"https://{host}/tsa"),
    "copies of checkpoints": lambda host: sinks.sink_of(f"https://{host}/x", {}),
    "copies to syslog": lambda host: sinks.sink_of(f"syslog+tcp://{host}", {}),
    "collector": lambda host: exports.sink_of(f"otlp+https://{host}/", {}),
    "syslog collector": lambda host: exports.sink_of(f"syslog+tcp://{host}", {}),
    "upstream": lambda host: _atlas(f"https://{host}/mcp"),
    "upstream from a variable": lambda host: target_of(
        Upstream("up", url="https://${env:UP}/mcp"), root=Path("/"), environ={"UP": host}
    ),
}


@pytest.mark.parametrize("host", [*NONE, "local\nhost", "localhost\r"])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_authority_is_refused_wherever_one_is_set(reader: str, host: str) -> None:
    with pytest.raises(CRAError) as refused:
        READERS[reader](host)
    assert refused.value.code in {
        "invalid_settings",
        "invalid_export",
        "atlas_invalid",
        "upstream_unavailable",
    } or isinstance(refused.value, AtlasInvalidError)
    assert "user:secret" not in str(refused.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8765", "[::1]:8", "a-b.example:1"])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_one_is_taken(reader: str, host: str) -> None:
    READERS[reader](host)
