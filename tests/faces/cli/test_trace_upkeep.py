"""Keeping a folder of traces in order from the command line."""

import base64
import json
import os
import re

from cra_mcp import CRARuntime
from cra_mcp.canonical import canonical_bytes
from cra_mcp.trace.checkpoint import VerifierKey
from tests.faces.cli.conftest import cra
from tests.faces.mcp.conftest import Place


def test_old_traces_go_when_it_is_asked_for_and_a_statement_stays(place: Place, server: CRARuntime) -> None:
    assert cra("trace", "key", "--make", "--data-dir", place.data).returncode == 0
    session = server.create_session("ann", "Something")
    server.end_session(session.session_id)
    trace = place.data / "traces" / f"{session.session_id}.trace.jsonl"
    where = ("--data-dir", place.data)
    fresh = cra("trace", "prune", "--keep", "30d", *where)
    assert (fresh.returncode, fresh.stdout, fresh.stderr) == (0, "", "0 traces gone (0 bytes), 0 old ones kept\n")
    trace.write_text(re.sub(r'"timestamp":"[0-9]{4}', '"timestamp":"2016', trace.read_text()))
    os.utime(trace, (1_460_000_000, 1_460_000_000))
    kept = cra("trace", "prune", "--keep", "1y", *where)
    assert kept.stdout == f"kept      {session.session_id}  hash_mismatch\n"
    dry = cra("trace", "prune", "--keep", "1y", "--damaged", "--dry-run", *where)
    assert "would go" in dry.stdout
    assert trace.exists()
    done = json.loads(cra("trace", "prune", "--keep", "1y", "--damaged", "--json", *where).stdout)
    assert [statement["session_id"] for statement in done["pruned"]] == [session.session_id]
    assert not trace.exists()
    (statement,) = done["pruned"]
    signature = statement.pop("signature")
    key = VerifierKey.decode(signature["vkey"])
    assert key.encode() == cra("trace", "key", "--data-dir", place.data).stdout.strip()
    said = b"cra.trace.pruned/1\n" + canonical_bytes(statement)
    assert key.has_signed(said, base64.b64decode(signature["ed25519"]))
    assert not key.has_signed(said.replace(b"1", b"2"), base64.b64decode(signature["ed25519"]))
    shown = cra("trace", "show", session.session_id, *where)
    assert shown.returncode == 3


def test_a_period_that_is_none_is_wrong_usage(place: Place) -> None:
    for period in ("30", "d", "0d", "-1d", "1.5d", "30 days"):
        refused = cra("trace", "prune", f"--keep={period}", "--data-dir", place.data)
        assert (refused.returncode, "--keep" in refused.stderr) == (2, True), period


def test_events_are_found_in_all_traces_without_being_asked_to_index_them(place: Place, server: CRARuntime) -> None:
    where = ("--data-dir", place.data)
    for agent in ("ann", "bob"):
        session = server.create_session(agent, "Something rare" if agent == "bob" else "Something")
        server.execute_blocking(session.session_id, "tool.delete", {})
        server.end_session(session.session_id)
    found = json.loads(cra("trace", "search", "--decision", "deny", "--type", "action.*", *where, "--json").stdout)
    assert [(event["agent_id"], event["action_id"]) for event in found["events"]] == [
        ("bob", "tool.delete"),
        ("ann", "tool.delete"),
    ]
    shown = cra("trace", "search", "--text", "RARE", *where)
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[0].split() == [
        "TIME", "SESSION", "SEQ", "EVENT", "ACTION", "DECISION", "POLICY", "AGENT",
    ]  # fmt: skip
    assert all("bob" in row for row in shown.stdout.splitlines()[1:])
    none = cra("trace", "search", "--agent", "nobody", *where)
    assert (none.returncode, none.stdout, none.stderr) == (1, "", "nothing found\n")
    assert cra("trace", "search", "--since", "yesterday", *where).returncode == 1
    done = json.loads(cra("trace", "index", "--rebuild", "--json", *where).stdout)
    assert done["updated"]
    assert done["counts"]["added"] > 8
    assert "0 events added" in cra("trace", "index", *where).stderr
    assert cra("trace", "search", *where, env={"CRA_STORE": "memory"}).returncode == 3


def test_traces_in_one_sqlite_file_are_read_with_the_same_commands(place: Place) -> None:
    store = ("--store", f"sqlite:{place.data / 'traces.sqlite3'}")
    ran = cra(
        "execute", "tool.add", "--args", '{"a":1,"b":2}', "--atlas", place.atlas, *store, "--data-dir", place.data
    )
    assert ran.returncode == 0, ran.stderr
    (listed,) = json.loads(cra("trace", "list", *store, "--json").stdout)["sessions"]
    assert listed["size_bytes"] > 1_000
    assert "action.executed" in cra("trace", "show", "--events", *store).stdout
    (found,) = json.loads(cra("trace", "search", "--type", "action.executed", *store, "--json").stdout)["events"]
    assert found["session_id"] == listed["session_id"]
    told = json.loads(cra("trace", "why", found["event_id"], *store, "--json").stdout)
    assert (told["event"]["sequence"], told["intact"]) == (found["sequence"], True)
    proved = cra("trace", "prove", found["event_id"], *store, "--data-dir", place.data)
    assert (proved.returncode, proved.stdout.splitlines()[0]) == (0, "c2sp.org/tlog-proof@v1")
    assert cra("trace", "verify", "--all", *store).returncode == 0
    assert not (place.data / "traces").exists() or not list((place.data / "traces").glob("*.jsonl"))
    wrong = cra("trace", "list", "--store", "postgres:x")
    assert (wrong.returncode, "sqlite:PATH" in wrong.stderr) == (3, True)


def test_a_folder_that_can_not_hold_an_index_is_listed_all_the_same(place: Place, server: CRARuntime) -> None:
    session = server.create_session("ann", "Something")
    server.end_session(session.session_id)
    (place.data / "traces" / "index.sqlite3").mkdir()
    listed = cra("trace", "list", "--data-dir", place.data, "--json")
    assert [each["agent_id"] for each in json.loads(listed.stdout)["sessions"]] == ["ann"]
    assert cra("trace", "search", "--data-dir", place.data).returncode == 3
