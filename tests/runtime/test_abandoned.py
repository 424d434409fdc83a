"""Sessions whose process died, in every store that outlives one."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.trace.event import verify

DIES = """
import os, sys
from pathlib import Path
from cra_mcp import CRARuntime, RuntimeConfig
runtime = CRARuntime(RuntimeConfig(data_dir=Path(sys.argv[1]), store=sys.argv[2]))
for number in range(int(sys.argv[3])):
    session = runtime.create_session("agent", f"goal {number}")
    runtime.record(session.session_id, "x.test.note", {"number": number})
    print(session.session_id)
if len(sys.argv) > 4:
    runtime.end_session(session.session_id)
sys.stdout.flush()
os._exit(9)
"""


@pytest.fixture(params=["file", "sqlite"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> RuntimeConfig:
    store = "file" if request.param == "file" else f"sqlite:{tmp_path / 'traces.sqlite3'}"
    return RuntimeConfig(data_dir=tmp_path, store=store)


def died(config: RuntimeConfig, sessions: int = 1, *more: str) -> list[str]:
    """A process that began sessions and died; their ids."""
    command = [sys.executable, "-c", DIES, str(config.data_dir), config.store, str(sessions), *more]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 9, ended.stderr
    return ended.stdout.split()


def give_back(config: RuntimeConfig, session_id: str) -> None:
    """As if its process had died between ending it and giving it up."""
    if config.store == "file":
        (config.trace_path / ".locks" / f"{session_id}.lock").touch()
        return
    with closing(sqlite3.connect(config.store.removeprefix("sqlite:"))) as database, database:
        database.execute("UPDATE chains SET writing = 1 WHERE session_id = ?", (session_id,))


def test_each_is_ended_once_and_its_chain_holds(config: RuntimeConfig) -> None:
    ids = died(config, 3)
    with CRARuntime(config) as runtime:
        assert sorted(runtime.end_abandoned()) == sorted(ids)
        assert runtime.end_abandoned() == []
        for session_id in ids:
            lines = runtime.read_trace(session_id)
            assert verify(lines, session_id=session_id).ok
            last = json.loads(lines[-1])
            assert (last["event_type"], last["payload"]["reason"]) == ("session.ended", "error")
            assert last["trace_id"] == json.loads(lines[0])["trace_id"]
    with CRARuntime(config) as runtime:
        assert runtime.end_abandoned() == []


def test_one_that_had_ended_is_left_as_it_is(config: RuntimeConfig) -> None:
    (session_id,) = died(config, 1, "end")
    give_back(config, session_id)
    with CRARuntime(config) as runtime:
        before = runtime.read_trace(session_id)
        assert runtime.end_abandoned() == []
        assert runtime.read_trace(session_id) == before


def test_ones_own_sessions_are_no_others(config: RuntimeConfig) -> None:
    (dead,) = died(config)
    with CRARuntime(config) as runtime:
        own = runtime.create_session("agent", "mine")
        assert runtime.end_abandoned() == [dead]
        assert own.status == "active"
        runtime.record(own.session_id, "x.test.note", {})
        assert runtime.verify_chain(own.session_id).ok


def test_one_that_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    config = RuntimeConfig(data_dir=tmp_path)
    with CRARuntime(config) as other:
        living = other.create_session("agent", "theirs")
        with CRARuntime(config) as runtime:
            assert runtime.end_abandoned() == []
        other.record(living.session_id, "x.test.note", {})
        assert other.verify_chain(living.session_id).ok


def test_what_does_not_verify_is_left_as_it_is_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = RuntimeConfig(data_dir=tmp_path)
    (session_id,) = died(config)
    path = config.trace_path / f"{session_id}.trace.jsonl"
    path.write_bytes(path.read_bytes().replace(b"goal 0", b"goal 1"))
    before = path.read_bytes()
    with CRARuntime(config) as runtime:
        assert runtime.end_abandoned() == []
    assert path.read_bytes() == before
    assert "does not verify (hash_mismatch)" in caplog.text


def test_what_a_write_that_was_cut_off_left_is_set_aside(tmp_path: Path) -> None:
    config = RuntimeConfig(data_dir=tmp_path)
    (session_id,) = died(config)
    path = config.trace_path / f"{session_id}.trace.jsonl"
    with path.open("ab") as file:
        file.write(b'{"event_hash":"00')
    with CRARuntime(config) as runtime:
        assert runtime.end_abandoned() == [session_id]
        assert runtime.verify_chain(session_id).ok
    assert [each.read_bytes() for each in config.trace_path.glob("*.torn-*")] == [b'{"event_hash":"00']


def test_a_lock_of_no_trace_begins_none(tmp_path: Path) -> None:
    config = RuntimeConfig(data_dir=tmp_path)
    (config.trace_path / ".locks").mkdir(parents=True)
    for name in ("01980000-0000-7000-8000-00000000ab01.lock", "no-id.lock", "other"):
        (config.trace_path / ".locks" / name).touch()
    with CRARuntime(config) as runtime:
        assert runtime.end_abandoned() == []
    assert list(config.trace_path.glob("*.jsonl")) == []
