"""Timestamps: tokens of a real authority, what shows that one is not of a checkpoint, and which program else says so."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from cra_mcp.errors import SettingsError, TraceError
from cra_mcp.trace import timestamp
from cra_mcp.trace.checkpoint import Checkpoint, SignerKey, parse_checkpoint
from cra_mcp.trace.timestamp import (
    MAX_TOKEN_BYTES,
    add_stamp,
    query_of,
    read_authorities,
    stamps_of,
    token_of,
    verify_stamp,
    without_stamps,
)
from tests.trace.authority import Authority, Certificates, openssl

SESSION = "01980000-0000-7000-8000-00000000ab01"
KEY = SignerKey("example.com/agents", bytes(range(32)))
NOTE = KEY.sign(Checkpoint(f"example.com/agents/{SESSION}", 7, bytes(32)))
_CODES = {"malformed_timestamp", "timestamp_mismatch", "timestamp_expired", "timestamp_untrusted", "timestamp_forged"}
OTHER_NOTE = KEY.sign(Checkpoint(f"example.com/agents/{SESSION}", 8, bytes(32)))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tsa") / "certificates")


@pytest.fixture(scope="module")
def authority(certificates, tmp_path_factory):
    made = Authority(certificates, tmp_path_factory.mktemp("asked"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def roots(certificates):
    return read_authorities(certificates.pem("root"))


@pytest.fixture(scope="module")
def token(authority) -> bytes:
    query = query_of(NOTE)
    return token_of(authority.stamp(query.request), query)


def code_of(call, *arguments) -> str:
    with pytest.raises(TraceError) as caught:
        call(*arguments)
    return caught.value.code


def test_a_token_tells_when_a_checkpoint_existed_and_who_says_so(token, roots):
    found = verify_stamp(token, NOTE, roots)
    assert abs(found.time - datetime.now(UTC)) < timedelta(minutes=5)
    assert found.accuracy == timedelta(seconds=1.5)
    assert (found.authority, found.policy) == ("CN=Test stamper", "1.3.6.1.4.1.57264.2")
    assert found.to_dict()["accuracy_s"] == 1.5


def test_openssl_agrees_that_a_token_holds_and_that_another_does_not(token, certificates, tmp_path):
    (tmp_path / "token").write_bytes(token)
    for name, data in (("note", NOTE), ("other", OTHER_NOTE)):
        (tmp_path / name).write_bytes(data)
    asked = ("ts", "-verify", "-in", tmp_path / "token", "-token_in", "-CAfile", certificates.path("root"))
    assert b"Verification: OK" in openssl(*asked, "-data", tmp_path / "note", folder=certificates.folder)
    with pytest.raises(AssertionError, match="message imprint mismatch"):
        openssl(*asked, "-data", tmp_path / "other", folder=certificates.folder)


def test_what_is_asked_is_a_hash_and_a_new_number_each_time():
    first, second = query_of(NOTE), query_of(NOTE)
    assert first.nonce != second.nonce
    assert first.imprint in first.request
    assert SESSION.encode() not in first.request


def test_a_token_of_something_else_is_refused_on_arrival_and_later(authority, token, roots):
    query = query_of(OTHER_NOTE)
    of_another = authority.stamp(query_of(NOTE).request)
    assert code_of(token_of, of_another, query) == "timestamp_mismatch"
    assert code_of(verify_stamp, token, OTHER_NOTE, roots) == "timestamp_mismatch"


def test_an_answer_to_another_request_is_refused(authority):
    earlier = authority.stamp(query_of(NOTE).request)
    assert code_of(token_of, earlier, query_of(NOTE)) == "timestamp_nonce"


def test_a_refusal_is_told_as_one(authority):
    query = query_of(NOTE)
    refusal = authority.stamp(
        query.request.replace(b"\x60\x86\x48\x01\x65\x03\x04\x02\x01", b"\x60\x86\x48\x01\x65\x03\x04\x02\x02")
    )
    assert code_of(token_of, refusal, query) == "timestamp_refused"


@pytest.mark.parametrize(
    "junk", [b"", b"<html>no</html>", b"\x30\x03\x02\x01\x00", b"\x30\x05\x30\x03\x02\x01\x00", bytes(64)]
)
def test_junk_is_no_token(junk, roots):
    assert code_of(token_of, junk, query_of(NOTE)) == "malformed_timestamp"
    assert code_of(verify_stamp, junk, NOTE, roots) == "malformed_timestamp"


def test_a_token_is_not_read_beyond_a_size(roots):
    assert code_of(token_of, bytes(MAX_TOKEN_BYTES + 1), query_of(NOTE)) == "malformed_timestamp"
    assert code_of(verify_stamp, bytes(MAX_TOKEN_BYTES + 1), NOTE, roots) == "malformed_timestamp"


def test_an_authority_nobody_vouches_for_is_not_believed(token, certificates):
    assert code_of(verify_stamp, token, NOTE, read_authorities(certificates.pem("stranger"))) == "timestamp_untrusted"


def test_a_certificate_that_is_not_for_timestamps_is_not_believed(token, certificates, roots):
    assert code_of(verify_stamp, certificates.resign(token, "other"), NOTE, roots) == "timestamp_untrusted"


def test_a_certificate_that_was_over_at_the_time_given_is_told(token, certificates, roots):
    assert code_of(verify_stamp, certificates.resign(token, "past"), NOTE, roots) == "timestamp_expired"
    assert verify_stamp(certificates.resign(token, "stamper"), NOTE, roots)  # so it was the certificate


def test_a_timestamp_outlives_the_certificate_it_was_signed_with(token, certificates, roots):
    earlier = certificates.resign(token, "past", ago=timedelta(days=10))
    found = verify_stamp(earlier, NOTE, roots)
    assert timedelta(days=9) < datetime.now(UTC) - found.time < timedelta(days=11)
    too_early = certificates.resign(token, "past", ago=timedelta(days=70))
    assert code_of(verify_stamp, too_early, NOTE, roots) == "timestamp_expired"


def test_a_changed_signature_is_told_as_forged(token, roots):
    assert code_of(verify_stamp, token[:-2] + bytes([token[-2] ^ 1]) + token[-1:], NOTE, roots) == "timestamp_forged"


def test_whatever_is_changed_in_a_token_it_says_the_same_or_nothing(token, roots):
    draws = random.Random(3161)
    said = verify_stamp(token, NOTE, roots)
    refused: list[str] = []
    for _ in range(300):
        changed = bytearray(token)
        for _ in range(draws.choice((1, 1, 2, 4))):
            changed[draws.randrange(len(changed))] = draws.randrange(256)
        try:
            assert verify_stamp(bytes(changed), NOTE, roots) == said
        except TraceError as error:
            refused.append(error.code)
    assert len(refused) > 150
    assert set(refused) <= _CODES


@pytest.mark.parametrize(
    "pem", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_root_certificate_is_not_taken_for_one(pem, certificates):
    for text in (pem, certificates.pem("stamper")):
        with pytest.raises(SettingsError) as caught:
            read_authorities(text)
        assert caught.value.code == "timestamp_ca"


def test_a_token_is_a_line_of_the_note_that_other_readers_pass_over(token):
    stamped = add_stamp(NOTE, "tsa.example", token)
    signed = parse_checkpoint(stamped)
    assert signed.verify([KEY.verifier]) == KEY.verifier
    assert [(each.name, each.token) for each in stamps_of(signed)] == [("tsa.example", token)]
    assert without_stamps(signed) == NOTE
    assert stamps_of(parse_checkpoint(NOTE)) == ()
    twice = parse_checkpoint(add_stamp(stamped, "[::1]", token))
    assert (len(stamps_of(twice)), without_stamps(twice)) == (2, NOTE)


def test_without_the_package_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(timestamp, "find_spec", lambda _: None)
    with pytest.raises(SettingsError) as caught:
        query_of(NOTE)
    assert (caught.value.code, caught.value.hint) == ("missing_extra", "install cra-mcp[timestamps]")
