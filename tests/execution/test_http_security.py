"""Requests go where the atlas and the operator say, and secrets go nowhere else: real services on loopback under made-up names."""

import base64
import datetime
import inspect
import ipaddress
import json
import logging
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpcore2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cra_mcp.atlas.model import HttpBody, HttpExecutor, SecretReference
from cra_mcp.errors import ExecutionError, SettingsError
from cra_mcp.execution.backend import Result
from cra_mcp.execution.http_endpoint import HttpBackend
from tests.execution.http_service import Handler, Service, serving

pytestmark = pytest.mark.anyio

TOKEN = "s3cr3t/tok+en=0123456789"  # noqa: S105 - made up
BEARER = SecretReference("Authorization", env="TOKEN", prefix="Bearer ")
NAMES = ("a.test", "b.test", "c.test")


@dataclass
class Resolver:
    """Names to addresses as a test says; each call of a name takes the next answer, the last one stays."""

    answers: dict[str, list[Sequence[str]]]
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answers = self.answers[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]


class Wire(httpcore2.AsyncNetworkBackend):
    """Takes down which address it was to connect to, and connects to loopback."""

    def __init__(self) -> None:
        self.connected: list[str] = []
        self._sockets = httpcore2.AnyIOBackend()

    async def connect_tcp(self, host: str, port: int, **more: object) -> httpcore2.AsyncNetworkStream:
        self.connected.append(host)
        return await self._sockets.connect_tcp("127.0.0.1", port)


def backend(
    *, allow: Sequence[str] = NAMES, answers: Mapping[str, Sequence[Sequence[str]]] | None = None, **more: object
) -> HttpBackend:
    """A back end for which ``a.test`` and the like are this machine, which the operator allows."""
    known = {
        **{name: [["127.0.0.1"]] for name in NAMES},
        **{name: list(each) for name, each in (answers or {}).items()},
    }
    options: dict[str, object] = {"resolve": Resolver(known), "environ": {"TOKEN": TOKEN}, **more}
    return HttpBackend(allow_private_hosts=allow, **options)  # type: ignore[arg-type]


async def call(kit, sender: HttpBackend, executor: HttpExecutor, parameters=None, **fields: object) -> Result:
    properties = {name: {} for name in parameters or {}}
    action = kit.action(executor, {"type": "object", "properties": properties}, **fields)
    return await kit.call(sender, action, parameters=parameters)


async def refused(kit, sender: HttpBackend, executor: HttpExecutor, code: str, **fields: object) -> ExecutionError:
    with pytest.raises(ExecutionError) as caught:
        await call(kit, sender, executor, **fields)
    assert caught.value.code == code
    assert TOKEN not in f"{caught.value!r} {caught.value.message} {caught.value.hint}"
    return caught.value


# --- addresses ---------------------------------------------------------------------------------------------------------


async def test_this_machine_is_not_reached_unless_the_operator_allows_it(kit, service: Service) -> None:
    executor = HttpExecutor("GET", f"{service.url}/")
    error = await refused(kit, HttpBackend(), executor, "address_refused")
    assert f"127.0.0.1:{service.port}" in (error.hint or "")
    assert service.asked == []
    assert (await call(kit, HttpBackend(allow_private_hosts=[f"127.0.0.1:{service.port}"]), executor)).value == {
        "ok": True
    }


async def test_a_name_of_this_machine_is_not_reached_either(kit, service: Service) -> None:
    await refused(kit, HttpBackend(), HttpExecutor("GET", f"{service.at('localhost')}/"), "address_refused")
    assert service.asked == []


async def test_allowing_one_host_allows_no_other_name_of_the_same_address(kit, service: Service) -> None:
    await refused(kit, backend(allow=["a.test"]), HttpExecutor("GET", f"{service.at('b.test')}/"), "address_refused")
    assert service.asked == []


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "168.63.129.16", "10.0.0.1", "0.1.2.3", "[::1]", "[fd00:ec2::254]", "[::ffff:7f00:1]"],
)
async def test_addresses_in_the_url_are_checked_too(kit, address: str) -> None:
    wire = Wire()
    await refused(kit, HttpBackend(network=wire), HttpExecutor("GET", f"http://{address}/"), "address_refused")
    assert wire.connected == []


async def test_the_address_that_was_checked_is_the_one_connected_to(kit, service: Service) -> None:
    wire, resolver = Wire(), Resolver({"rebind.test": [["93.184.215.14"], ["127.0.0.1"]]})
    async with HttpBackend(resolve=resolver, network=wire) as sender:
        assert (await call(kit, sender, HttpExecutor("GET", f"{service.at('rebind.test')}/"))).value == {"ok": True}
    assert wire.connected == ["93.184.215.14"]
    assert resolver.asked == ["rebind.test"]


async def test_a_name_that_turns_to_this_machine_later_is_refused_then(kit, service: Service) -> None:
    service.answer = lambda handler: handler.json(1, connection="close")
    wire, resolver = Wire(), Resolver({"rebind.test": [["93.184.215.14"], ["127.0.0.1"]]})
    executor = HttpExecutor("GET", f"{service.at('rebind.test')}/")
    async with HttpBackend(resolve=resolver, network=wire) as sender:
        await call(kit, sender, executor)
        await refused(kit, sender, executor, "address_refused")
    assert wire.connected == ["93.184.215.14"]


@pytest.mark.parametrize("answers", [["93.184.215.14", "127.0.0.1"], ["127.0.0.1", "93.184.215.14"]])
async def test_a_name_with_one_forbidden_address_is_refused_as_a_whole(kit, service: Service, answers) -> None:
    wire = Wire()
    sender = HttpBackend(resolve=Resolver({"both.test": [answers]}), network=wire)
    await refused(kit, sender, HttpExecutor("GET", f"{service.at('both.test')}/"), "address_refused")
    assert wire.connected == []


async def test_the_next_address_is_tried_where_one_does_not_answer(kit, service: Service) -> None:
    sender = backend(answers={"a.test": [["127.0.0.2", "127.0.0.1"]]})
    assert (await call(kit, sender, HttpExecutor("GET", f"{service.at('a.test')}/"))).value == {"ok": True}


async def test_a_name_that_stands_for_nothing_is_unavailable(kit) -> None:
    async def nowhere(host: str, port: int) -> Sequence[str]:
        raise OSError

    await refused(kit, HttpBackend(resolve=nowhere), HttpExecutor("GET", "https://x.test/"), "upstream_unavailable")


async def test_no_proxy_of_the_environment_is_used(kit, service: Service, monkeypatch) -> None:
    with serving() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert (await call(kit, backend(), HttpExecutor("GET", f"{service.at('a.test')}/"))).value == {"ok": True}
        assert proxy.asked == []


def test_a_host_the_operator_misspells_is_refused_at_the_start() -> None:
    with pytest.raises(SettingsError):
        HttpBackend(allow_private_hosts=["http://localhost"])


# --- TLS ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Authority:
    """A certificate authority made for the test. ``bundle`` is its own certificate."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    name: x509.Name

    @property
    def bundle(self) -> Path:
        return self.folder / "ca.pem"

    def context(self, *names: str) -> ssl.SSLContext:
        """What a server needs to be trusted under ``names``."""
        key = ec.generate_private_key(ec.SECP256R1())
        path = self.folder / "server.pem"
        alternatives = [x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names]
        certificate = _signed(self, x509.Name([]), key, x509.SubjectAlternativeName(alternatives), critical=True)
        path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def _signed(authority: Authority, subject: x509.Name, key, extension, *, critical: bool) -> x509.Certificate:
    """A certificate as strict checking wants it (RFC 5280), which Python 3.13 does by default."""
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(extension, critical=critical)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    if isinstance(extension, x509.BasicConstraints):
        uses = dict.fromkeys(inspect.signature(x509.KeyUsage).parameters, False)
        builder = builder.add_extension(x509.KeyUsage(**{**uses, "key_cert_sign": True}), critical=True)
    return builder.sign(authority.key, hashes.SHA256())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(
        tmp_path,
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")]),
    )
    root = _signed(made, made.name, made.key, x509.BasicConstraints(ca=True, path_length=0), critical=True)
    made.bundle.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    return made


@pytest.fixture
def secure(authority: Authority) -> Iterator[Service]:
    with serving(authority.context("a.test", "127.0.0.1")) as service:
        yield service


async def test_an_authority_of_the_operator_is_trusted(kit, authority: Authority, secure: Service) -> None:
    for url in (secure.at("a.test"), secure.url):
        sender = backend(
            allow=["a.test", "127.0.0.1"], ca_bundle=authority.bundle, answers={"127.0.0.1": [["127.0.0.1"]]}
        )
        assert (await call(kit, sender, HttpExecutor("GET", f"{url}/"))).value == {"ok": True}


async def test_an_authority_nobody_named_is_not(kit, secure: Service) -> None:
    error = await refused(kit, backend(), HttpExecutor("GET", f"{secure.at('a.test')}/"), "upstream_unavailable")
    assert "certificate" in error.message
    assert secure.asked == []


async def test_a_certificate_for_another_name_is_not_accepted(kit, authority: Authority, secure: Service) -> None:
    sender = backend(ca_bundle=authority.bundle)
    await refused(kit, sender, HttpExecutor("GET", f"{secure.at('b.test')}/"), "upstream_unavailable", idempotent=True)
    assert secure.asked == []
    assert secure.connections == 1  # what a retry can't mend is not tried again


async def test_a_bundle_that_can_not_be_read_is_a_missing_setting(kit, tmp_path: Path) -> None:
    sender = backend(ca_bundle=tmp_path / "none.pem")
    await refused(kit, sender, HttpExecutor("GET", "https://a.test/"), "missing_setting")


# --- redirects ---------------------------------------------------------------------------------------------------------


def leading(to: str, status: int = 302):
    """Answers ``/`` with a redirect and all else with what was asked."""

    def answer(handler: Handler) -> None:
        if handler.path == "/":
            handler.reply(status, location=to)
        else:
            handler.json({"method": handler.command, "body": handler.asked.body.decode(), "path": handler.path})

    return answer


async def test_no_redirect_is_followed_by_default(kit, service: Service) -> None:
    service.answer = leading("/next")
    await refused(kit, backend(), HttpExecutor("GET", f"{service.at('a.test')}/"), "redirect_refused")
    assert len(service.asked) == 1


async def test_redirects_end_at_their_limit(kit, service: Service) -> None:
    service.answer = lambda handler: handler.reply(302, location="/again")
    await refused(kit, backend(), HttpExecutor("GET", f"{service.at('a.test')}/", max_redirects=3), "redirect_refused")
    assert len(service.asked) == 4


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
        (302, "PUT", "PUT"),
        (303, "DELETE", "GET"),
        (302, "GET", "GET"),
    ],
)
async def test_methods_change_as_http_says(kit, service: Service, status, method, then) -> None:
    service.answer = leading("/next", status)
    sent = None if method in ("GET", "DELETE") else HttpBody({"a": 1})
    body = '{"a":1}' if then in ("POST", "PUT") else ""
    executor = HttpExecutor(method, f"{service.at('a.test')}/", body=sent, max_redirects=1)
    assert (await call(kit, backend(), executor)).value == {"method": then, "body": body, "path": "/next"}
    assert ("content-type" in service.asked[1].headers) is bool(body)


async def test_a_redirect_to_another_host_needs_that_host_in_the_atlas(kit, service: Service) -> None:
    service.answer = leading(f"{service.at('b.test')}/next")
    executor = HttpExecutor("GET", f"{service.at('a.test')}/", max_redirects=1)
    await refused(kit, backend(), executor, "redirect_refused")
    assert len(service.asked) == 1
    named = HttpExecutor("GET", f"{service.at('a.test')}/", max_redirects=1, allow_hosts=(f"b.test:{service.port}",))
    assert (await call(kit, backend(), named)).value["path"] == "/next"
    assert service.asked[-1].headers["host"] == f"b.test:{service.port}"


async def test_a_redirect_to_a_private_address_needs_the_operator_too(kit, service: Service) -> None:
    service.answer = leading(f"{service.at('b.test')}/next")
    executor = HttpExecutor("GET", f"{service.at('a.test')}/", max_redirects=1, allow_hosts=("b.test",))
    await refused(kit, backend(allow=["a.test"]), executor, "address_refused")
    assert len(service.asked) == 1


async def test_a_redirect_to_another_port_is_one_to_another_place(kit, service: Service) -> None:
    with serving() as other:
        service.answer = leading(f"{other.at('a.test')}/next")
        executor = HttpExecutor("GET", f"{service.at('a.test')}/", max_redirects=1)
        await refused(kit, backend(), executor, "redirect_refused")
        assert other.asked == []


async def test_no_redirect_leads_from_https_to_http(
    kit, authority: Authority, secure: Service, service: Service
) -> None:
    secure.answer = leading(f"{service.at('a.test')}/next")
    executor = HttpExecutor("GET", f"{secure.at('a.test')}/", max_redirects=1, allow_hosts=("a.test",))
    await refused(kit, backend(ca_bundle=authority.bundle), executor, "redirect_refused")
    assert service.asked == []


@pytest.mark.parametrize(
    "location",
    [
        "", "file:///etc/passwd", "javascript:alert(1)", "gopher://a.test/", "http://user:pw@a.test/", "http://a.test\\@b.test/",
        "http:///x", "http://0x7f000001/", "http://127.1/", "http://[::1/", "http://a.test:99999/", "/a b", "/\u00e9",
    ],
)  # fmt: skip
async def test_a_redirect_to_what_is_no_plain_url_is_refused(kit, service: Service, location: str) -> None:
    service.answer = leading(location)
    executor = HttpExecutor("GET", f"{service.at('a.test')}/", max_redirects=1, allow_hosts=("a.test", "127.0.0.1"))
    await refused(kit, backend(), executor, "redirect_refused")
    assert len(service.asked) == 1


# --- secrets -----------------------------------------------------------------------------------------------------------


async def test_a_secret_is_sent_as_its_reference_says(kit, service: Service) -> None:
    environ = {"TOKEN": TOKEN, "LOGIN": "user:pass word", "KEY": "k&y=1"}
    secrets = (
        BEARER,
        SecretReference("X-Login", env="LOGIN", prefix="Basic ", encode="base64"),
        SecretReference("api key", env="KEY", place="query"),
    )
    await call(kit, backend(environ=environ), HttpExecutor("GET", f"{service.at('a.test')}/x?a=b", secrets=secrets))
    asked = service.asked[0]
    assert asked.headers["authorization"] == f"Bearer {TOKEN}"
    assert asked.headers["x-login"] == "Basic " + base64.b64encode(b"user:pass word").decode()
    assert asked.target == "/x?a=b&api%20key=k%26y%3D1"


async def test_a_secret_stays_in_the_first_place_when_a_redirect_leads_elsewhere(kit, service: Service) -> None:
    def answer(handler: Handler) -> None:
        hops = {"/": "/here", "/here": f"{service.at('b.test')}/there", "/there": f"{service.at('a.test')}/back"}
        to = hops.get(handler.path)
        handler.reply(302, location=to) if to else handler.json("end")

    service.answer = answer
    executor = HttpExecutor(
        "GET",
        f"{service.at('a.test')}/",
        headers={"X-Own": "1"},
        secrets=(BEARER,),
        max_redirects=5,
        allow_hosts=("b.test",),
    )
    assert (await call(kit, backend(), executor)).value == "end"
    sent = {asked.target: asked.headers.get("authorization") for asked in service.asked}
    assert sent == {"/": f"Bearer {TOKEN}", "/here": f"Bearer {TOKEN}", "/there": None, "/back": None}
    assert ["x-own" in asked.headers for asked in service.asked] == [True, True, False, False]


async def test_a_secret_the_service_puts_into_a_redirect_goes_to_no_other_host(kit, service: Service) -> None:
    service.answer = lambda handler: handler.reply(302, location=f"{service.at('b.test')}/?t={TOKEN}")
    executor = HttpExecutor(
        "GET", f"{service.at('a.test')}/", secrets=(BEARER,), max_redirects=1, allow_hosts=("b.test",)
    )
    await refused(kit, backend(), executor, "redirect_refused")
    assert len(service.asked) == 1


async def test_a_secret_is_not_sent_in_clear_text_to_a_network_nobody_vouched_for(kit, service: Service) -> None:
    wire = Wire()
    sender = HttpBackend(resolve=Resolver({"x.test": [["93.184.215.14"]]}), network=wire, environ={"TOKEN": TOKEN})
    await refused(kit, sender, HttpExecutor("GET", f"{service.at('x.test')}/", secrets=(BEARER,)), "address_refused")
    assert wire.connected == []


@pytest.mark.parametrize("value", [None, "", "a\r\nX-Evil: 1", "zq\n", " zq", "a\x00b", "\u00e9"])
async def test_a_secret_that_is_missing_or_can_not_be_sent_is_named_and_never_shown(kit, service, value) -> None:
    environ = {} if value is None else {"TOKEN": value}
    executor = HttpExecutor("GET", f"{service.at('a.test')}/", secrets=(BEARER,))
    error = await refused(kit, backend(environ=environ), executor, "missing_setting")
    assert "TOKEN" in error.message
    assert not value or value not in f"{error.message}{error.hint}"
    assert service.asked == []


async def test_a_secret_of_a_keyring_is_looked_up_there(kit, service: Service) -> None:
    async def lookup(name: str, entry: str) -> str | None:
        return {"desk": {"api/key": TOKEN}}[name].get(entry)

    for entry, code in (("desk/api/key", None), ("desk/none", "missing_setting")):
        executor = HttpExecutor("GET", f"{service.at('a.test')}/", secrets=(SecretReference("X-Key", keyring=entry),))
        if code is None:
            await call(kit, backend(lookup=lookup), executor)
        else:
            await refused(kit, backend(lookup=lookup), executor, code)
    assert [asked.headers["x-key"] for asked in service.asked] == [TOKEN]


async def test_the_keyring_of_the_system_is_used(kit, service: Service) -> None:
    import keyring  # noqa: PLC0415 - an extra
    from keyring.backend import KeyringBackend  # noqa: PLC0415

    class Ring(KeyringBackend):
        priority = 1  # type: ignore[assignment]

        def set_password(self, service: str, username: str, password: str) -> None: ...

        def get_password(self, service: str, username: str) -> str | None:
            if username == "locked":
                raise RuntimeError(TOKEN)
            return TOKEN if (service, username) == ("desk", "key") else None

    before = keyring.get_keyring()
    keyring.set_keyring(Ring())
    try:
        executor = HttpExecutor(
            "GET", f"{service.at('a.test')}/", secrets=(SecretReference("X-Key", keyring="desk/key"),)
        )
        await call(kit, backend(), executor)
        locked = HttpExecutor(
            "GET", f"{service.at('a.test')}/", secrets=(SecretReference("X-Key", keyring="desk/locked"),)
        )
        await refused(kit, backend(), locked, "missing_setting")
    finally:
        keyring.set_keyring(before)
    assert [asked.headers["x-key"] for asked in service.asked] == [TOKEN]


def echoes() -> dict[str, object]:
    encoded = base64.b64encode(TOKEN.encode()).decode()
    return {
        "json": lambda h: h.json({"got": [f"x {TOKEN} y"], TOKEN: 1, "deep": {"b": encoded}, "n": None}),
        "escaped": lambda h: h.raw(_response(json.dumps({"a": TOKEN}).replace("s", "\\u0073").encode())),
        "text": lambda h: h.reply(200, f"{TOKEN} {TOKEN.replace('/', '%2F')}".encode(), content_type="text/plain"),
        "error": lambda h: h.reply(401, f"bad token {TOKEN}".encode(), content_type="text/plain"),
        "long error": lambda h: h.reply(400, b"x" * 1_995 + TOKEN.encode() * 9, content_type="text/plain"),
        "cut error": lambda h: h.reply(400, b"y" + TOKEN.encode() * 9_000, content_type="text/plain"),
        "json error": lambda h: h.json({"error": f'"{TOKEN}"'}, status=403),
        "image": lambda h: h.reply(200, b"\x89PNG" + TOKEN.encode(), content_type="image/png"),
        "header": lambda h: h.reply(200, b"", x_echo=TOKEN),
        "malformed": lambda h: h.raw(_response(b'{"a": "' + TOKEN.encode())),
    }


def _response(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize("kind", echoes())
async def test_a_secret_that_comes_back_is_hidden(kit, service: Service, kind: str, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    service.answer = echoes()[kind]  # type: ignore[assignment]
    executor = HttpExecutor("HEAD" if kind == "header" else "GET", f"{service.at('a.test')}/", secrets=(BEARER,))
    try:
        result = await call(kit, backend(), executor)
        shown = json.dumps({"value": result.value, "content": result.content})
    except ExecutionError as error:
        shown = f"{error!r} {error.hint}"
    encoded = base64.b64encode(TOKEN.encode()).decode().rstrip("=")
    inside = base64.b64decode(result.content[0]["data"]).decode("latin-1") if kind == "image" else ""
    for form in (TOKEN, TOKEN[:12], encoded, TOKEN.replace("/", "%2F")):
        assert form not in shown
        assert form not in inside
    assert kind in ("malformed", "image") or "[reda" in shown
    if kind not in ("header", "long error", "cut error"):
        assert TOKEN not in "".join(record.getMessage() for record in caplog.records)


async def test_a_secret_that_looks_like_a_number_is_hidden_in_numbers(kit, service: Service) -> None:
    service.answer = lambda handler: handler.json({"pin": 90210777, "other": 5, "flag": True})
    executor = HttpExecutor("GET", f"{service.at('a.test')}/", secrets=(BEARER,))
    result = await call(kit, backend(environ={"TOKEN": "90210777"}), executor)
    assert result.value == {"pin": "[redacted]", "other": 5, "flag": True}


async def test_no_cookie_is_kept(kit, service: Service) -> None:
    service.answer = lambda handler: handler.json(1, set_cookie="session=1; Path=/")
    async with backend() as sender:
        for _ in range(2):
            await call(kit, sender, HttpExecutor("GET", f"{service.at('a.test')}/"))
    assert [asked.headers.get("cookie") for asked in service.asked] == [None, None]


async def test_nothing_but_what_is_named_is_sent(kit, service: Service) -> None:
    await call(kit, backend(), HttpExecutor("GET", f"{service.at('a.test')}/"))
    assert set(service.asked[0].headers) == {"host", "accept", "user-agent", "accept-encoding"}
