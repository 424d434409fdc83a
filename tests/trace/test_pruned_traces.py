"""A trace that was signed and then pruned: its statement accounts for it, if no checkpoint kept elsewhere says otherwise."""

import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cra_mcp.canonical import canonical_bytes
from cra_mcp.errors import TraceError
from cra_mcp.faces.cli.exits import NO, OK
from cra_mcp.trace.checkpoint import SignerKey, encode
from cra_mcp.trace.retention import prune
from cra_mcp.trace.sqlite_retention import prune_database
from cra_mcp.trace.statement import FORM, Rule, Sign, read_statement
from tests.trace.test_attacks import OTHER, Place
from tests.trace.test_diagnosis import EVENTS, SESSION, Lines, chain


def signing(key: SignerKey) -> Sign:
    return lambda data: {"vkey": key.verifier.encode(), "ed25519": encode(key.sign_statement(FORM, data))}


def let_go(place: Place, sign: Sign | None) -> bytes:
    """Prune everything; the statement that stays of the first chain."""
    now_ns, rule = time.time_ns() + 10**12, Rule(0)
    if place.kind == "sqlite":
        list(prune_database(place.database, place.folder, rule, now_ns, sign=sign))
        connection = sqlite3.connect(place.database)
        (statement,) = connection.execute("SELECT statement FROM pruned WHERE session_id = ?", (SESSION,)).fetchone()
        connection.close()
        return statement
    list(prune(place.folder, rule, now_ns, sign=sign))
    return (place.folder / f"{SESSION}.pruned.json").read_bytes()


@pytest.fixture(params=["file", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    made = Place(request.param, tmp_path / "traces", tmp_path / "copies")
    made.copies.mkdir()
    return made


@pytest.fixture
def lines(place: Place) -> Lines:
    return place.write()


def test_a_signed_statement_accounts_for_a_trace_that_was_pruned(place: Place, lines: Lines) -> None:
    for size in (4, EVENTS):
        place.sign(lines, size)
    let_go(place, signing(place.key))
    assert place.verify_all(place.copies) == (OK, [])
    (found,) = place.report
    told = found["pruned"]
    assert (found["trace"], told["events"], told["signer"]) == (SESSION, EVENTS, place.key.verifier.name)
    assert "A checkpoint says the same of all of them" in found["guarantee"]


def test_a_statement_no_trusted_key_signed_accounts_for_nothing(place: Place, lines: Lines) -> None:
    place.sign(lines, EVENTS)
    let_go(place, signing(SignerKey.generate(place.key.verifier.name)))
    assert place.verify_all(place.copies) == (NO, [(SESSION, "truncated", 0)])


def test_a_statement_of_fewer_or_other_events_than_were_signed_is_contradicted(place: Place, lines: Lines) -> None:
    let_go(place, signing(place.key))
    longer = place.sign(chain(EVENTS + 3, after=lines), EVENTS + 3)
    assert place.verify_all(longer) == (NO, [(SESSION, "truncated", 0)])
    other = place.sign(chain(note="other"), EVENTS, name="-other")
    assert place.verify_all(other) == (NO, [(SESSION, "checkpoint_mismatch", 0)])
    assert place.report[0]["pruned"] is None
    only_a_beginning = place.sign(lines, 4)
    assert place.verify_all(only_a_beginning) == (OK, [])
    assert "A checkpoint says" not in place.report[0]["guarantee"]


def put(**fields: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda statement: {**statement, **fields}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (put(events=3), "statement_unsigned"),
        (put(keep_seconds=1), "statement_unsigned"),
        (put(signature=None), "statement_unsigned"),
        (put(signature={"vkey": "x", "ed25519": "!"}), "statement_unsigned"),
        (put(signature={"vkey": 1}), "statement_unsigned"),
        (put(signature=[]), "statement_unsigned"),
        (put(signature=5), "malformed_statement"),
        (put(session_id=OTHER), "malformed_statement"),
        (put(statement="cra.trace.pruned/2"), "malformed_statement"),
        (put(events="3"), "malformed_statement"),
        (put(root="===="), "malformed_statement"),
        (put(head_hash=5), "malformed_statement"),
        (lambda statement: {"signature": statement["signature"]}, "malformed_statement"),
        (lambda _: [], "malformed_statement"),
    ],
)
def test_a_statement_that_was_changed_is_none(tmp_path: Path, change: Callable[[object], object], code: str) -> None:
    place = Place("file", tmp_path / "traces", tmp_path / "copies")
    place.write()
    statement = let_go(place, signing(place.key))
    keys = [place.key.verifier]
    assert read_statement(statement, SESSION, keys).events == EVENTS
    with pytest.raises(TraceError) as caught:
        read_statement(canonical_bytes(change(json.loads(statement))), SESSION, keys)
    assert caught.value.code == code


@pytest.mark.parametrize("data", [b"", b"{", b"null", b"\xff", b"[" * 5_000, b"1" * 20_000_000])
def test_what_is_no_statement_is_none(data: bytes) -> None:
    with pytest.raises(TraceError) as caught:
        read_statement(data, SESSION, [])
    assert caught.value.code == "malformed_statement"
