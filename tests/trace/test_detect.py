"""What the detectors find, what they leave, what they cost, and what stands in the place of what they hide."""

import base64
import os
import random
import string
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra_mcp.canonical import canonical_bytes
from cra_mcp.errors import SettingsError
from cra_mcp.settings import DETECTORS
from cra_mcp.trace.detect.detectors import MAX_VALUE_BYTES, Detectors, Found
from cra_mcp.trace.detect.key import TokenKey
from cra_mcp.trace.detect.own import load_patterns
from cra_mcp.trace.detect.rules import BUILT_IN
from cra_mcp.trace.detect.scan import MAX_TEXT, Scanner

KEY = b"k" * 32
ALNUM = string.ascii_letters + string.digits


def detectors(*names: str) -> Detectors:
    return Detectors(names or BUILT_IN, key=lambda: KEY)


def drawn(length: int, seed: int, alphabet: str = ALNUM) -> str:
    """Random characters, the same in every run. Secrets are put together here, so that no scanner of sources finds one."""
    return "".join(random.Random(seed).choices(alphabet, k=length))


JWT = ".".join(
    base64.urlsafe_b64encode(part).decode().rstrip("=")
    for part in (b'{"alg":"HS256","typ":"JWT"}', b'{"sub":"1234567890","name":"Ann"}', drawn(32, 1).encode())
)
PEM = "\n".join(
    ("-----BEGIN " + "RSA PRIVATE KEY-----", *(drawn(64, n) for n in range(9)), "-----END RSA PRIVATE KEY-----")
)

SECRETS = {
    "aws": "AKIA" + drawn(16, 2, string.ascii_uppercase + "234567"),
    "aws session": "ASIA" + drawn(16, 3, string.ascii_uppercase + "234567"),
    "google": "AIza" + drawn(35, 4),
    "google oauth": "ya29." + drawn(60, 5),
    "google client": "GOCSPX-" + drawn(28, 6),
    "github": "ghp_" + drawn(36, 7),
    "github app": "ghs_" + drawn(36, 8),
    "github fine": "github_pat_" + drawn(22, 9) + "_" + drawn(59, 10),
    "gitlab": "glpat-" + drawn(20, 11),
    "slack bot": "xoxb-" + drawn(12, 12, string.digits) + "-" + drawn(24, 13),
    "slack app": "xapp-1-" + drawn(30, 14),
    "slack hook": "https://hooks.slack.com/services/T0" + drawn(8, 15) + "/B0" + drawn(8, 16) + "/" + drawn(24, 17),
    "stripe": "sk_live_" + drawn(24, 18),
    "stripe restricted": "rk_test_" + drawn(24, 19),
    "stripe hook": "whsec_" + drawn(32, 20),
    "openai": "sk-" + drawn(48, 21),
    "openai project": "sk-proj-" + drawn(60, 22),
    "anthropic": "sk-ant-api03-" + drawn(80, 23),
    "sendgrid": "SG." + drawn(22, 24) + "." + drawn(43, 25),
    "twilio": "SK" + drawn(32, 26, "0123456789abcdef"),
    "npm": "npm_" + drawn(36, 27),
    "pypi": "pypi-AgE" + drawn(80, 28),
    "hugging face": "hf_" + drawn(34, 29),
    "vault": "hvs." + drawn(24, 30),
    "docker": "dckr_pat_" + drawn(27, 31),
    "digitalocean": "dop_v1_" + drawn(64, 32, "0123456789abcdef"),
    "shopify": "shpat_" + drawn(32, 33, "0123456789abcdef"),
    "azure storage": "DefaultEndpointsProtocol=https;AccountName=x;AccountKey=" + drawn(86, 34) + "==",
    "atlassian": "ATATT3" + drawn(60, 35),
    "linear": "lin_api_" + drawn(40, 36),
    "grafana": "glsa_" + drawn(32, 37) + "_" + drawn(8, 38, "0123456789abcdef"),
    "groq": "gsk_" + drawn(52, 39),
    "age": "AGE-SECRET-KEY-1" + drawn(58, 40, "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"),
    "our own": "cra_" + drawn(12, 41) + "_" + drawn(49, 42),
    "jwt": JWT,
    "pem": PEM,
    "pem cut off": PEM[:300],
    "openssh": PEM.replace("RSA ", "OPENSSH "),
    "pgp": "-----BEGIN PGP " + "PRIVATE KEY BLOCK-----\n\n" + drawn(200, 43) + "\n-----END PGP PRIVATE KEY BLOCK-----",
    "base64, 32 bytes": base64.b64encode(drawn(32, 44).encode()).decode(),
    "aws secret": drawn(40, 45, ALNUM + "/+"),
    "base36": drawn(40, 46, string.ascii_lowercase + string.digits),
    "assigned": "password=hunter22",
    "assigned, spaced": "db_password = hunter22",
    "assigned in JSON": '{"password": "hunter"}',
    "api key": "API_KEY: 12345-abc",
    "bearer": "Authorization: Bearer " + drawn(30, 47),
    "basic": "authorization: Basic " + base64.b64encode(b"ann:hunter22").decode(),
    "url": "postgres://ann:pw12@db.example.com/x",
    "visa": "4111 1111 1111 1111",
    "visa, plain": "4111111111111111",
    "mastercard": "5555-5555-5555-4444",
    "mastercard 2": "2223003122003222",
    "amex": "378282246310005",
    "discover": "6011111111111117",
    "jcb": "3530111333300000",
    "diners": "30569309025904",
    "unionpay": "6205500000000000004",
    "mail": "ann.lee+work@mail.example.co.uk",
    "mail idn": "jörg@bücher.example",
    "mail quoted": "<ann@example.com>",
}

HARMLESS = [
    "The customer called again about order 1042; please update the ticket.",
    "01980000-0000-7000-8000-0000000000b1",
    str(uuid.UUID(int=0x8F14E45FCEEA467F9B2C3D4E5F607182)),
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "31df8cd2e4b6a1f09c8d7e6f5a4b3c2d1e0f9a8b",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "2026-11-21T07:30:00.000000Z",
    "20261121T073000Z",
    "/usr/local/lib/python3.11/site-packages/cra_mcp/trace/detect/rules.py",
    r"C:\Users\Ann\Documents\Quarterly Report 2026-Q3 (final).xlsx",
    "https://example.com/docs/getting-started/installation?lang=en&page=2#linux",
    "getUserAccountByEmailAddressAndTenant",
    "com.example.billing.InvoiceServiceImplementationFactory",
    "feature/ABC-1234-add-OAuth2-support-for-customers",
    "kubernetes-dashboard-7d9f8b6c5d-x2x4z",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "SELECT customer_id, sum(amount_cents) FROM invoices WHERE created_at >= '2026-01-01' GROUP BY 1",
    "abcdefghijklmnopqrstuvwxyz",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "--------------------------------------------------",
    "IMG_20240115_103000_HDR.jpg",
    "git@github.com:example/project.git",
    "npm install @types/node@20.1.0",
    "meet me @ the station",
    "phone +49 170 1234567, fax +49 30 12345678",
    "DE89 3704 0044 0532 0130 00",
    "1234567890123456",
    "4111111111111112",
    "1732176000000000",
    "978-3-16-148410-0",
    "978316148410000000000000000000",
    "the token was refused: expired",
    "secret: none",
    "next_page_token is missing",
    "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----",
    "1.2.3-beta.4+build.5678",
    "10.0.0.1:8080, fe80::1ff:fe23:4567:890a",
    "sk-learn-style-estimators-are-nice",
    "ERR_HTTP2_PROTOCOL_ERROR at line 4096",
    "x" * 100_000,
    "日本語の文章にはここでは何もありません。" * 20,
]


def test_the_settings_name_the_detectors_there_are() -> None:
    assert set(DETECTORS) == set(BUILT_IN)


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_hidden_alone_in_a_sentence_in_a_list_and_as_a_name(name: str) -> None:
    secret = SECRETS[name]
    for value in (secret, f"see {secret} please", ["x", {"note": f"({secret})"}], {secret: 1}, f"a\n{secret}\nb"):
        shown, found = detectors().value(value)
        assert found, (name, value)
        kept = canonical_bytes(shown).decode()
        assert not any(part in kept for part in _parts(secret)), (name, kept)


def _parts(secret: str) -> list[str]:
    """Lines of a secret with all its length, or the part of it that must not be seen."""
    for before in ("=", ": ", "://ann:", "Bearer ", "Basic "):
        if before in secret and len(secret) < 60:
            return [secret.rpartition(before)[2].strip('"{} ').split("@")[0].rstrip("=") or secret]
    return [line for line in secret.splitlines() if len(line) > 10 and "-----" not in line][:1] or [secret]


@pytest.mark.parametrize("text", HARMLESS, ids=range(len(HARMLESS)))
def test_what_is_harmless_is_left_as_it_is(text: str) -> None:
    value = {"note": text, "list": [text]}
    shown, found = detectors().value(value)
    assert (shown, found) == (value, [])


@pytest.mark.parametrize(
    ("length", "alphabet", "at_least"),
    [(24, ALNUM, 0.85), (32, ALNUM, 0.93), (43, ALNUM + "-_", 0.93), (64, ALNUM + "+/", 0.95)],
)
def test_of_random_tokens_without_any_mark_nearly_all_are_found(length: int, alphabet: str, at_least: float) -> None:
    found = sum(bool(detectors("entropy").value(drawn(length, n, alphabet))[1]) for n in range(1_000))
    assert found / 1_000 >= at_least, found


def test_of_identifiers_made_of_words_nearly_none_are_taken_for_random() -> None:
    words = [
        "get",
        "set",
        "user",
        "account",
        "order",
        "by",
        "email",
        "list",
        "find",
        "update",
        "Http",
        "Json",
        "id",
        "v2",
        "tenant",
        "Policy",
        "trace",
        "event",
        "2026",
        "Api",
    ]
    draw = random.Random(1)
    made = ["".join(word.capitalize() for word in draw.choices(words, k=6)) for _ in range(500)]
    made += [draw.choice("-_/").join(draw.choices(words, k=6)) for _ in range(500)]
    taken = [text for text in made if detectors("entropy").value(text)[1]]
    assert len(taken) <= 50, taken[:5]


@pytest.mark.parametrize(
    "name",
    ["password", "dbPassword", "API-Key", "client_secret", "clientSecret", "Authorization", "access_token", "token"],
)
def test_a_text_whose_name_says_it_is_secret_is_hidden(name: str) -> None:
    shown, found = detectors().value({"a": [{name: "x"}]})
    assert found == [Found(f"/a/0/{name}", "named")]
    assert shown["a"][0][name].startswith("[redacted:named:")


@pytest.mark.parametrize(
    "name", ["next_token", "page_token", "max_tokens", "key", "primary_key", "passenger", "secretary", ""]
)
def test_a_name_that_only_looks_so_hides_nothing(name: str) -> None:
    assert detectors().value({name: "plain"}) == ({name: "plain"}, [])


def test_numbers_are_hidden_where_they_are_cards_or_named_so() -> None:
    value = {"n": 4111111111111111, "pin": 1234, "token": 5, "ok": True, "amount": 12.5, "empty": {"password": ""}}
    shown, found = detectors().value(value)
    assert [each.detector for each in found] == ["card", "named"]
    assert (shown["token"], shown["ok"], shown["amount"], shown["empty"]) == (5, True, 12.5, {"password": ""})
    assert "4111" not in str(shown)


def test_equal_secrets_have_equal_tokens_under_one_key_and_others_under_another() -> None:
    text = "ann@example.com, bob@example.com, ann@example.com"
    first, second, third = detectors().text(text).split(", ")
    assert first == third != second
    assert first.startswith("[redacted:email:")
    assert len(first) == len("[redacted:email:]") + 16
    assert Detectors(key=lambda: b"j" * 32).text(text).split(", ")[0] != first
    assert Detectors().text("ann@example.com") == "[redacted:email]"


def test_one_marker_stands_for_what_two_detectors_find_and_the_surer_one_names_it() -> None:
    secret = SECRETS["github"]
    assert detectors().text(f"token={secret}!").count("[redacted:") == 1
    assert detectors().text(f"x {secret} y").startswith("x [redacted:secret:")
    assert detectors().text(PEM).startswith("[redacted:private_key:")


def test_each_detector_works_alone_and_does_nothing_else() -> None:
    samples = {
        "private_key": PEM,
        "secret": SECRETS["aws"],
        "named": "password=hunter22",
        "card": "4111 1111 1111 1111",
        "email": "ann@example.com",
        "entropy": SECRETS["aws secret"],
    }
    for name in BUILT_IN:
        for kind, text in samples.items():
            hidden = detectors(name).text(text) != text
            assert hidden == (name == kind) or (name, kind) == ("entropy", "private_key"), (name, kind)
    assert detectors("none").value(samples) == (samples, [])


def test_without_emails_leaves_them_and_nothing_else() -> None:
    shown = detectors().without_emails().text("ann@example.com has password=hunter22")
    assert shown.startswith("ann@example.com has password=[redacted:named:")


@settings(deadline=None)
@given(
    st.recursive(
        st.text() | st.sampled_from([*SECRETS.values(), *HARMLESS[:30]]),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_hiding_twice_is_hiding_once(value: object) -> None:
    once, _ = detectors().value(value)
    assert detectors().value(once)[0] == once


def test_names_that_become_equal_stay_apart() -> None:
    value = {"ann@example.com": 1, "[redacted:email]": 2}
    assert Detectors().value(value)[0] == {"[redacted:email]": 1, "[redacted:email]~": 2}


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a",
            "A1b",
            "@",
            "a@",
            "a@b.",
            "4 ",
            "4",
            "4-",
            "-eyJaaaaaaaaaaaaaa",
            "-sk-",
            "token:",
            "token=x ",
            "://",
            "://a:",
        ),
        *(
            "-----BEGIN PRIVATE KEY-----",
            "aB3/",
            "AKIA",
            "aB3xY9kL2mN8pQ4rS7tU0 ",
            "bearer ",
            "\u00e9",
            "\U0001f600",
            '"',
            "\\",
        ),
    ],
)
@pytest.mark.parametrize("size", [MAX_TEXT, 10_000_000])
def test_no_text_takes_long(text: str, size: int) -> None:
    value = {"x": (text * (size // len(text) + 1))[:size]}
    began = time.process_time()
    detectors().value(value)
    assert time.process_time() - began < 3.0  # a fifth of a second at most on an idle machine


def test_what_is_too_large_or_too_dense_is_hidden_as_a_whole() -> None:
    assert detectors().text("a" * (MAX_TEXT + 1)).startswith("[redacted:unsearched:")
    assert detectors().value(["a" * 1_000] * (MAX_VALUE_BYTES // 1_000))[1] == [Found("", "unsearched")]
    assert detectors().text("a@b.example " * 5_000).startswith("[redacted:unsearched:")


def test_deep_and_odd_values_are_searched_too() -> None:
    deep: object = "ann@example.com"
    for _ in range(120):
        deep = [deep]
    assert detectors().value(deep)[1]
    shown, found = detectors().value({"n": 2**70, "bad\ud800": "ann@example.com", "t": ("bob@example.com",)})
    assert len(found) == 2
    assert "example" not in canonical_bytes(shown).decode()


def test_a_key_is_made_once_for_its_owner_and_read_by_all_processes(tmp_path: Path) -> None:
    path = tmp_path / "data" / "redaction.key"
    script = "import sys, pathlib; from cra_mcp.trace.detect import key; print(key.TokenKey(pathlib.Path(sys.argv[1])).get().hex())"
    made = [subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    keys = {process.communicate(timeout=60)[0].strip() for process in made}
    assert keys == {path.read_text().strip()}
    assert len(keys.pop()) == 64
    assert [entry.name for entry in path.parent.iterdir()] == ["redaction.key"]
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("harm", ["readable by others", "a link", "a folder", "not a key", "too short"])
def test_a_key_that_may_not_be_used_is_not_and_hiding_goes_on(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "redaction.key"
    if harm == "a link":
        (tmp_path / "other").write_text("ab" * 32)
        (tmp_path / "other").chmod(0o600)
        path.symlink_to(tmp_path / "other")
    elif harm == "a folder":
        path.mkdir()
    else:
        path.write_text({"not a key": "z" * 64, "too short": "ab"}.get(harm, "ab" * 32))
        path.chmod(0o644 if harm == "readable by others" else 0o600)
    assert TokenKey(path).get() is None
    assert Detectors(key=TokenKey(path).get).text("ann@example.com") == "[redacted:email]"


def test_an_operators_own_patterns_are_hidden_in_linear_time(tmp_path: Path) -> None:
    file = tmp_path / "patterns.json"
    file.write_text(r'{"employee": "EMP-\\d{6}", "evil": "(a+)+$", "empty": "z*"}')
    own = Detectors(["none"], own=load_patterns(file), key=lambda: KEY)
    shown, found = own.value({"note": "ask ünlü EMP-123456 or EMP-123456"})
    assert [each.detector for each in found] == ["employee", "employee"]
    assert shown["note"].startswith("ask ünlü [redacted:employee:")
    began = time.process_time()
    own.text("a" * (MAX_TEXT // 4) + "b")
    assert time.process_time() - began < 3.0


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "{", '{"A": "x"}', '{"email": "x"}', '{"a": ""}', '{"a": 1}'),
        *('{"a": "(?=x)"}', '{"a": "(x"}', '{"a": "(\\\\w{500}){500}"}'),
    ],
)
def test_patterns_that_cant_be_used_stop_the_start(tmp_path: Path, text: str) -> None:
    file = tmp_path / "patterns.json"
    file.write_text(text)
    with pytest.raises(SettingsError) as raised:
        load_patterns(file)
    assert raised.value.code == "invalid_settings"
    with pytest.raises(SettingsError):
        load_patterns(tmp_path / "missing.json")


@pytest.mark.parametrize(
    "text",
    [
        "01a1fe46-8721-7177-8952-d4c03bd636f6",
        "01a1fe4b-a3fc-763e-b2f4-598554582899",
        "2e52b1d4521167901736bd382b6c52a19f63c98156cafaa8c085216b2094db37",
    ],
)
def test_an_identifier_or_a_digest_is_no_card_number_whatever_its_digits(text: str) -> None:
    scanner = Scanner(frozenset({"card"}))
    assert not scanner.spans(text)
    assert not scanner.spans(f"approval {text} was settled")
    assert [span.detector for span in scanner.spans(f"{text} 4111 1111 1111 1111")] == ["card"]
    assert scanner.spans(f"z{text}"), "that is none"
    assert scanner.spans("41111111-1111-1111-8000-000000000000")
