"""API keys: who holds one is its principal, until it expires or is taken back."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cra_mcp.auth.keys import SCHEMA, KeyNotFoundError, KeyStore, _checksum, has_key_form
from cra_mcp.errors import CRAError
from cra_mcp.state.database import Database, StateUnavailableError

NOW_US = 1_800_000_000_000_000
HOUR_US = 3_600_000_000


class Clock:
    now_us = NOW_US

    def __call__(self) -> int:
        return self.now_us


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(tmp_path: Path, clock: Clock) -> KeyStore:
    return KeyStore(Database(tmp_path / "state.sqlite3", SCHEMA), clock)


def made(keys: KeyStore, subject: str = "ann", **more: object) -> tuple[str, str]:
    values = {"tenant": "acme", "roles": ["agent"], "agent_id": "bot", **more}
    text, key = keys.create(subject, **values)
    return text, key.key_id


def test_a_key_is_its_principal(keys: KeyStore) -> None:
    text, key_id = made(keys, roles=["agent", "auditor"], scopes=["x"])
    principal = keys.check(text)
    assert principal is not None
    assert principal.to_dict() == {
        "subject": "ann",
        "tenant": "acme",
        "roles": ["agent", "auditor"],
        "scopes": ["x"],
        "agent_id": "bot",
        "credential": "api_key",
        "credential_id": key_id,
    }


def test_every_character_of_a_key_counts(keys: KeyStore) -> None:
    text, _ = made(keys)
    for place in range(len(text)):
        other = "a" if text[place] != "a" else "b"
        assert keys.check(text[:place] + other + text[place + 1 :]) is None, place
    assert keys.check(text) is not None


@pytest.mark.parametrize("text", ["", "cra_", "x" * 67, "cra_" + "é" * 62, "cra_\ud800", "cra_" + "0" * 10_000])
def test_what_is_no_key_is_refused(keys: KeyStore, text: str) -> None:
    made(keys)
    assert keys.check(text) is None
    assert not has_key_form(text)


def test_a_mistyped_key_is_told_by_its_checksum(keys: KeyStore) -> None:
    text, _ = made(keys)
    assert has_key_form(text)
    assert not has_key_form(text[:-1] + ("0" if text[-1] != "0" else "1"))


def test_a_known_id_with_a_wrong_secret_and_a_right_checksum_is_refused(keys: KeyStore) -> None:
    one, _ = made(keys)
    other, _ = made(keys, "bob")
    body = one[:17] + other[17:-6]
    forged = body + _checksum(body)
    assert has_key_form(forged)
    assert keys.check(forged) is None


def test_a_key_expires_and_is_taken_back(keys: KeyStore, clock: Clock) -> None:
    short, _ = made(keys, lifetime_s=3_600)
    long, key_id = made(keys)
    clock.now_us += HOUR_US - 1
    assert keys.check(short) is not None
    clock.now_us += 1
    assert keys.check(short) is None
    assert keys.check(long) is not None
    assert keys.revoke(key_id).revoked_at_us == clock.now_us
    assert keys.check(long) is None
    clock.now_us += 1
    assert keys.revoke(key_id).revoked_at_us == clock.now_us - 1


def test_a_key_taken_back_by_another_process_is_refused_at_once(tmp_path: Path, clock: Clock) -> None:
    server = KeyStore(Database(tmp_path / "s.sqlite3", SCHEMA), clock)
    terminal = KeyStore(Database(tmp_path / "s.sqlite3", SCHEMA), clock)
    text, key_id = made(terminal)
    assert server.check(text) is not None
    assert server.check(text) is not None
    terminal.revoke(key_id)
    assert server.check(text) is None


def test_the_database_holds_no_key(tmp_path: Path, keys: KeyStore) -> None:
    text, _ = made(keys)
    assert keys.check(text) is not None
    keys.close()
    stored = (tmp_path / "state.sqlite3").read_bytes()
    assert text.encode() not in stored
    assert text[17:].encode() not in stored
    assert (tmp_path / "state.sqlite3").stat().st_mode & 0o077 == 0


def test_keys_are_listed_with_the_day_they_were_used(keys: KeyStore, clock: Clock) -> None:
    assert keys.all() == []
    text, key_id = made(keys)
    clock.now_us += 1
    made(keys, "bob")
    keys.check(text)
    first, second = keys.all()
    assert (first.key_id, first.used_on, second.used_on) == (key_id, "2027-01-15", None)
    clock.now_us += 24 * HOUR_US
    keys.check(text)
    assert keys.all()[0].used_on == "2027-01-16"


@pytest.mark.parametrize(
    "change", [{"roles": []}, {"roles": ["root"]}, {"tenant": ""}, {"agent_id": "x" * 257}, {"subject": ""}]
)
def test_a_key_for_nobody_or_nothing_is_not_made(keys: KeyStore, change: dict[str, object]) -> None:
    with pytest.raises(CRAError) as caught:
        made(keys, str(change.pop("subject", "ann")), **change)
    assert caught.value.code == "invalid_key"


def test_an_unknown_key_can_not_be_taken_back(keys: KeyStore) -> None:
    with pytest.raises(KeyNotFoundError):
        keys.revoke("nothing")


def test_without_the_database_no_key_counts(tmp_path: Path, keys: KeyStore) -> None:
    text, _ = made(keys)
    keys.close()
    (tmp_path / "state.sqlite3").write_bytes(b"this is no database, whatever its name says" * 100)
    with pytest.raises(StateUnavailableError):
        keys.check(text)


def test_a_role_the_database_names_and_we_do_not_know_grants_nothing(tmp_path: Path, keys: KeyStore) -> None:
    text, _ = made(keys)
    with closing(sqlite3.connect(tmp_path / "state.sqlite3")) as connection, connection:
        connection.execute("""UPDATE api_keys SET roles = '["root", "agent"]'""")
    connection.close()
    principal = keys.check(text)
    assert principal is not None
    assert principal.roles == {"agent"}
