"""Tokens: what an issuer signed for this server, for now, and nothing else."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from cra_mcp.auth.jwks import FileSource, KeySet, KeysUnavailableError, UrlSource, read_keys
from cra_mcp.auth.tokens import TokenRules, TokenVerifier
from cra_mcp.errors import SettingsError

pytestmark = pytest.mark.anyio
ISSUER, AUDIENCE = "https://issuer.example", "https://cra.example/mcp"
RSA = rsa.generate_private_key(65_537, 2_048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
OTHER = rsa.generate_private_key(65_537, 2_048)
KEYS: dict[str, tuple[Any, Any]] = {
    "RS256": (RSA, RSAAlgorithm),
    "ES256": (EC, ECAlgorithm),
    "EdDSA": (ED, OKPAlgorithm),
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def jwk(algorithm: str, key_id: str | None = None, private: Any = None, **more: object) -> dict[str, object]:
    key, kind = KEYS[algorithm]
    found = json.loads(kind.to_jwk((private or key).public_key()))
    found.pop("key_ops", None)
    return {**found, **({"kid": key_id} if key_id else {}), **more}


def key_set(*keys: dict[str, object]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


ALL = key_set(*(jwk(algorithm, algorithm) for algorithm in KEYS))


def claims(**change: object) -> dict[str, object]:
    now = int(time.time())
    made = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now + 60, "iat": now, **change}
    return {name: value for name, value in made.items() if value is not None}


def signed(
    algorithm: str = "RS256", key: Any = None, headers: dict[str, object] | None = None, **change: object
) -> str:
    return jwt.encode(
        claims(**change), key or KEYS[algorithm][0], algorithm, headers={"kid": algorithm, **(headers or {})}
    )


@dataclass
class Source:
    """A key set in memory, and how often it was read."""

    data: bytes | None = ALL
    reads: int = 0

    async def read(self) -> bytes:
        self.reads += 1
        if self.data is None:
            raise KeysUnavailableError("gone")
        return self.data


@dataclass
class Ticking:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    source: Source = field(default_factory=Source)
    clock: Ticking = field(default_factory=Ticking)

    def __post_init__(self) -> None:
        self.verifier = TokenVerifier(TokenRules(ISSUER, AUDIENCE), KeySet(self.source, self.clock))

    async def subject(self, token: str) -> str | None:
        principal = await self.verifier.check(token)
        return principal.subject if principal is not None else None


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("algorithm", KEYS)
async def test_a_good_token_is_its_principal(world: World, algorithm: str) -> None:
    token = signed(algorithm, tenant="acme", roles=["auditor", "root"], scope="read write", client_id="bot")
    principal = await world.verifier.check(token)
    assert principal is not None
    assert principal.to_dict() == {
        "subject": "ann",
        "tenant": "acme",
        "roles": ["auditor"],
        "scopes": ["read", "write"],
        "agent_id": "bot",
        "credential": "jwt",
        "issuer": "https://issuer.example",
    }


async def test_a_token_without_roles_is_an_agents_and_one_with_none_we_know_may_do_nothing(world: World) -> None:
    plain, nothing = await world.verifier.check(signed()), await world.verifier.check(signed(roles="admin"))
    assert plain is not None
    assert (plain.roles, plain.tenant, plain.agent_id) == ({"agent"}, "default", "ann")
    assert nothing is not None
    assert nothing.roles == frozenset()


@pytest.mark.parametrize(
    "change",
    [
        {"exp": int(time.time()) - 3_600},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": int(time.time()) + 3_600},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "https://other.example/mcp"},
        {"aud": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 300},
        {"sub": 5},
        {"tenant": 7},
        {"tenant": ""},
        {"client_id": ["a"]},
    ],
)
async def test_a_token_that_is_not_for_us_or_not_for_now_is_refused(world: World, change: dict[str, object]) -> None:
    key = RSA
    made = claims(**change)
    token = _encode({"alg": "RS256", "kid": "RS256", "typ": "JWT"}, made, lambda data: _rs256(key, data))
    assert await world.subject(token) is None


async def test_a_forged_token_is_refused(world: World) -> None:
    assert await world.subject(signed(key=OTHER)) is None
    head, body, tail = signed().split(".")
    assert await world.subject(f"{head}.{_b64(json.dumps(claims(sub='eve')).encode())}.{tail}") is None
    assert await world.subject(f"{head}.{body}.") is None
    assert await world.subject(f"{head}.{body}.{tail}") == "ann"


async def test_no_token_chooses_how_it_is_checked(world: World) -> None:
    public = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    made = claims(sub="eve")
    for secret in (public, public.strip(), json.dumps(jwk("RS256")).encode()):
        token = _encode(
            {"alg": "HS256", "kid": "RS256", "typ": "JWT"},
            made,
            lambda data, secret=secret: hmac.new(secret, data, hashlib.sha256).digest(),
        )
        assert await world.subject(token) is None
    for name in ("none", "None", "NONE", "", "RS512", "PS256"):
        assert await world.subject(_encode({"alg": name, "kid": "RS256", "typ": "JWT"}, made, lambda _: b"")) is None
    # A key of one kind does not serve a token that says it is of another.
    swapped = _encode({"alg": "ES256", "kid": "RS256", "typ": "JWT"}, made, lambda data: _rs256(RSA, data))
    assert await world.subject(swapped) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"kid": "../../etc/passwd"},
        {"kid": "unknown"},
        {"kid": "x" * 10_000},
        {"kid": 5},
        {"kid": ""},
        {"crit": ["exp"]},
        {"typ": "secevent+jwt"},
        {"jku": "https://evil.example/keys", "kid": "evil"},
        {"jwk": {}, "kid": "evil"},
    ],
)
async def test_headers_that_want_something_else_are_refused(world: World, headers: dict[str, object]) -> None:
    token = _encode({"alg": "RS256", "typ": "JWT", "kid": "RS256", **headers}, claims(), lambda data: _rs256(RSA, data))
    assert await world.subject(token) is None


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "é.é.é", "x" * 20_000, "null.null.null", "e30.e30.e30"])
async def test_what_is_no_token_is_refused(world: World, token: str) -> None:
    assert await world.subject(token) is None
    assert world.source.reads == 0


async def test_a_token_without_key_id_needs_a_set_with_one_fitting_key(world: World) -> None:
    token = jwt.encode(claims(), RSA, "RS256")
    assert await world.subject(token) == "ann"
    world.source.data = key_set(jwk("RS256", "one"), jwk("RS256", "two", OTHER))
    world.clock.now += 301
    assert await world.subject(token) is None


async def test_a_new_key_is_found_without_a_restart_and_without_letting_tokens_make_us_ask(world: World) -> None:
    assert await world.subject(signed()) == "ann"
    fresh = jwt.encode(claims(), OTHER, "RS256", headers={"kid": "new"})
    world.source.data = key_set(jwk("RS256", "new", OTHER))
    for _ in range(50):
        assert await world.subject(fresh) is None
    assert world.source.reads == 1
    world.clock.now += 16
    assert await world.subject(fresh) == "ann"
    assert await world.subject(signed()) is None
    assert world.source.reads == 2


async def test_known_keys_serve_on_for_a_while_when_the_source_is_down_then_nobody_is_let_in(world: World) -> None:
    assert await world.subject(signed()) == "ann"
    world.source.data = None
    world.clock.now += 3_599
    assert await world.subject(signed()) == "ann"
    world.clock.now += 20
    with pytest.raises(KeysUnavailableError):
        await world.subject(signed())


async def test_without_a_key_set_nobody_is_let_in() -> None:
    world = World(Source(None))
    for _ in range(2):
        with pytest.raises(KeysUnavailableError):
            await world.subject(signed())


def test_keys_that_must_not_check_tokens_are_left_out() -> None:
    small = rsa.generate_private_key(65_537, 1_024)  # noqa: S505 - what is refused
    data = key_set(
        jwk("RS256", "enc", use="enc"),
        jwk("RS256", "wrong", alg="RS512"),
        jwk("RS256", "small", small),
        {"kty": "oct", "k": "c2VjcmV0", "kid": "oct", "alg": "HS256"},
        {"kty": "EC", "crv": "P-384", "kid": "curve", "x": "AA", "y": "AA"},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        {"kty": ["RSA"], "crv": {}, "kid": "odd"},
        jwk("EdDSA", "good", alg="EdDSA", use="sig"),
    )
    assert [key.key_id for key in read_keys(data)] == ["good"]


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"keys": 5}', b"\xff", b'{"keys": [], "keys": []}'])
def test_what_is_no_key_set_is_refused(data: bytes) -> None:
    with pytest.raises(KeysUnavailableError):
        read_keys(data)


@pytest.mark.parametrize("url", ["http://issuer.example/keys", "ftp://localhost/x", "https://", "file:///etc/passwd"])
def test_a_key_set_comes_over_tls_or_from_this_machine(url: str) -> None:
    with pytest.raises(SettingsError):
        UrlSource(url)


async def test_a_key_set_in_a_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with pytest.raises(KeysUnavailableError):
        await FileSource(path).read()
    path.write_bytes(ALL)
    assert await FileSource(path).read() == ALL


class Issuer(BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, tuple[int, bytes]]] = {
        "/keys": (200, ALL),
        "/huge": (200, b" " * 2_000_000),
        "/gone": (404, b""),
        "/moved": (302, b""),
    }

    def do_GET(self) -> None:
        status, body = self.answers[self.path]
        self.send_response(status)
        if status == 302:
            self.send_header("location", "/keys")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def issuer() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Issuer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


async def test_a_key_set_is_fetched(issuer: str) -> None:
    assert await UrlSource(f"{issuer}/keys").read() == ALL
    for path in ("huge", "gone", "moved"):
        with pytest.raises(KeysUnavailableError):
            await UrlSource(f"{issuer}/{path}").read()
    with pytest.raises(KeysUnavailableError):
        await UrlSource("http://127.0.0.1:9/keys").read()


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _rs256(key: rsa.RSAPrivateKey, data: bytes) -> bytes:
    return RSAAlgorithm(RSAAlgorithm.SHA256).sign(data, key)


def _encode(header: dict[str, object], payload: dict[str, object], sign: Any) -> str:
    """A token of any content: libraries refuse to make bad ones."""
    text = f"{_b64(json.dumps(header).encode())}.{_b64(json.dumps(payload).encode())}"
    return f"{text}.{_b64(sign(text.encode()))}"
