"""The kill switch: in force at once in every process with the data folder, and fail closed."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.errors import TraceUnavailableError
from cra_mcp.state.database import Database, StateUnavailableError
from cra_mcp.state.freezes import SCHEMA, Freezes, kind_of
from tests.atlas.conftest import action, manifest
from tests.forks.command import forked

ATLAS = manifest(
    actions=[action("t.read"), action("t.ask"), action("t.hidden")],
    policies=[
        {"policy_id": "ask", "type": "require_approval", "actions": ["t.ask"]},
        {"policy_id": "hide", "type": "deny", "actions": ["t.hidden"], "disclose": False},
    ],
)


def switch(folder: Path) -> Freezes:
    return Freezes(Database(folder / "state.sqlite3", SCHEMA), folder / "freeze", lambda: 1_800_000_000_000_000)


def runtime(folder: Path | None) -> CRARuntime:
    config = RuntimeConfig(store="memory") if folder is None else RuntimeConfig(data_dir=folder)
    made = CRARuntime(config)
    made.load_atlas_from_json(json.dumps(ATLAS))
    return made


def call(made: CRARuntime, action_id: str = "t.read", agent: str = "bot") -> str:
    """The code of the refusal; an action without an executor that is let through says so."""
    session = made.create_session(agent, "g")
    outcome = made.execute_blocking(session.session_id, action_id, {})
    assert outcome.fault is not None
    return outcome.fault.code


def cli(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *forked(*arguments, "--data-dir", folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("kind", "name", "held", "free"),
    [("all", "", "bot", None), ("agent", "bot", "bot", "other"), ("atlas", "com.example.a", "bot", None)],
)
def test_what_is_frozen_is_refused_and_goes_on_when_it_is_lifted(
    tmp_path: Path, kind: str, name: str, held: str, free: str | None
) -> None:
    with runtime(tmp_path) as made:
        assert call(made, agent=held) == "no_executor"
        made.freeze(kind_of(kind), name, reason="looking", by="ann")
        assert call(made, agent=held) == "frozen"
        if free is not None:
            assert call(made, agent=free) == "no_executor"
        assert [(each.kind, each.name, each.reason, each.frozen_by) for each in made.freezes()] == [
            (kind, name, "looking", "ann")
        ]
        assert made.unfreeze(kind_of(kind), name) is True
        assert made.unfreeze(kind_of(kind), name) is False
        assert call(made, agent=held) == "no_executor"


def test_another_process_freezes_a_running_server_at_once(tmp_path: Path) -> None:
    with runtime(tmp_path) as made:
        assert call(made) == "no_executor"
        frozen = cli(tmp_path, "freeze", "--all", "--reason", "stop it", "--json")
        assert frozen.returncode == 0, frozen.stderr
        assert json.loads(frozen.stdout)["frozen"]["reason"] == "stop it"
        assert call(made) == "frozen"
        assert "everything" in cli(tmp_path, "freeze", "--list").stdout
        assert cli(tmp_path, "unfreeze", "--all").returncode == 0
        assert call(made) == "no_executor"
        assert cli(tmp_path, "unfreeze", "--all").returncode == 1
        assert "nothing" in cli(tmp_path, "freeze", "--list").stderr


def test_a_broken_policy_file_does_not_keep_anybody_from_pulling_the_brake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRA_POLICY_FILES", str(tmp_path / "none.json"))
    assert cli(tmp_path, "freeze", "--agent", "bot").returncode == 0


@pytest.mark.parametrize(
    "arguments", [[], ["--all", "--agent", "x"], ["--agent", ""], ["--all", "--reason", "x" * 501]]
)
def test_what_is_meant_must_be_said(tmp_path: Path, arguments: list[str]) -> None:
    assert cli(tmp_path, "freeze", *arguments).returncode == 2
    assert not (tmp_path / "freeze").exists()


def test_freezing_and_what_it_refuses_are_in_the_trace(tmp_path: Path) -> None:
    with runtime(tmp_path) as made:
        made.freeze("all", reason="because", by="ann")
        session = made.create_session("bot", "g")
        outcome = made.execute_blocking(session.session_id, "t.read", {})
        assert outcome.fault is not None
        assert "because" in outcome.fault.message
        payloads = {event.event_type: event.payload for event in made.get_trace(session.session_id)}
        assert payloads["policy.violated"]["violation_type"] == "frozen"
        assert payloads["policy.evaluated"]["policy_id"] == "freeze"
        made.unfreeze("all")
    lines = [line for path in tmp_path.rglob("*.trace.jsonl") for line in path.read_text(encoding="utf-8").splitlines()]
    types = [json.loads(line)["event_type"] for line in lines]
    assert types.count("x.cra.freeze.set") == 1
    assert types.count("x.cra.freeze.lifted") == 1


def test_what_is_hidden_goes_on_looking_unknown(tmp_path: Path) -> None:
    with runtime(tmp_path) as made:
        made.freeze("all")
        assert call(made, "t.hidden") == call(made, "t.none") == "unknown_action"


def test_an_approval_that_was_given_meanwhile_does_not_get_past_it(tmp_path: Path) -> None:
    with runtime(tmp_path) as made:
        session = made.create_session("bot", "g")
        asked = made.execute_blocking(session.session_id, "t.ask", {})
        assert asked.approval is not None

        class Freezing:
            channel = "library"

            async def ask(self, approval: object) -> str:
                made.freeze("all")
                return "granted"

        outcome = made.execute_blocking(session.session_id, "t.ask", {}, asker=Freezing())  # pyright: ignore[reportArgumentType]
        assert outcome.fault is not None
        assert outcome.fault.code == "frozen"


def test_a_freeze_of_a_memory_store_is_this_process_alone() -> None:
    with runtime(None) as made:
        assert call(made) == "no_executor"
        made.freeze("agent", "bot")
        assert call(made) == "frozen"
        assert call(made, agent="other") == "no_executor"


def test_a_server_that_is_started_later_obeys_though_the_marker_is_gone(tmp_path: Path) -> None:
    switch(tmp_path).freeze("all", "", reason="", by="ann")
    (tmp_path / "freeze").unlink()
    with runtime(tmp_path) as made:
        assert call(made) == "frozen"


def test_a_change_that_died_half_way_makes_every_look_read_the_database(tmp_path: Path) -> None:
    one, other = switch(tmp_path), switch(tmp_path)
    one.freeze("agent", "x", reason="", by="ann")
    (tmp_path / "freeze").write_bytes(b"")
    assert other.holding("bot", "a.b") is None
    with Database(
        tmp_path / "state.sqlite3", SCHEMA
    ).transaction() as connection:  # what the dead process had committed
        connection.execute("INSERT INTO freezes VALUES ('all', '', '', 'ann', 1)")
    assert other.holding("bot", "a.b") is not None


@pytest.mark.parametrize("broken", ["database is no database", "database is gone", "marker can't be seen"])
def test_what_can_not_be_read_counts_as_frozen(tmp_path: Path, broken: str) -> None:
    switch(tmp_path).freeze("agent", "nobody", reason="", by="ann")
    if broken == "database is gone":
        (tmp_path / "state.sqlite3").unlink()
    elif broken == "database is no database":
        (tmp_path / "state.sqlite3").write_bytes(b"x" * 4_096)
    else:
        (tmp_path / "freeze").unlink()
        os.symlink("freeze", tmp_path / "freeze")  # a circle
    with pytest.raises(StateUnavailableError):
        switch(tmp_path).holding("bot", "a.b")
    with runtime(tmp_path) as made:
        assert call(made) == "frozen"


def test_a_freeze_holds_though_it_can_not_be_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with runtime(tmp_path) as made:
        (tmp_path / "file").write_text("", encoding="utf-8")
        stuck = CRARuntime(RuntimeConfig(data_dir=tmp_path, trace_dir=tmp_path / "file"))
        with stuck:
            with pytest.raises(TraceUnavailableError):
                stuck.freeze("all")
            assert call(made) == "frozen"
            with pytest.raises(TraceUnavailableError):
                stuck.unfreeze("all")
            assert call(made) == "frozen"


def test_many_may_freeze_at_once(tmp_path: Path) -> None:
    switches = [switch(tmp_path) for _ in range(4)]
    threads = [
        threading.Thread(target=each.freeze, args=("agent", f"a{at}"), kwargs={"reason": "", "by": "ann"})
        for at, each in enumerate(switches)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {each.name for each in switch(tmp_path).list()} == {"a0", "a1", "a2", "a3"}


def test_a_folder_that_can_not_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("", encoding="utf-8")
    with pytest.raises(StateUnavailableError):
        switch(tmp_path / "data").freeze("all", "", reason="", by="ann")


def test_only_some_kinds_can_be_frozen() -> None:
    with pytest.raises(ValueError, match="tenant"):
        kind_of("tenant")
