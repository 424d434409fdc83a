"""`replay` and `trace diff` as processes."""

import json
import shutil
from pathlib import Path

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.trace.event import Draft, Head, link, parse
from tests.faces.cli.conftest import cra

ATLAS = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.t",
    "version": "1.0.0",
    "name": "T",
    "description": "d",
    "actions": [
        {"action_id": f"t.{name}", "name": "n", "description": "d", "parameters_schema": {"type": "object"}}
        for name in ("read", "write", "drop")
    ],
    "policies": [{"policy_id": "no-drop", "type": "deny", "actions": ["t.drop"]}],
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two sessions; the atlas they ran under is gone from where it was."""
    source = tmp_path / "atlas.json"
    source.write_text(json.dumps(ATLAS))
    with CRARuntime(RuntimeConfig(data_dir=tmp_path / "data")) as runtime:
        runtime.load_atlas(source)
        for agent in ("ann", "bob"):
            session_id = runtime.create_session(agent, "a goal").session_id
            for name in ("read", "write", "drop"):
                runtime.execute_blocking(session_id, f"t.{name}", {"n": 1})
    source.unlink()
    return tmp_path / "data"


def _policy(tmp_path: Path, policy: dict) -> Path:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"policies": [policy], "default_effect": "allow"}))
    return path


def _tamper(data: Path) -> str:
    """Let a trace say that a denied call was allowed, with every hash made anew."""
    path = next((data / "traces").glob("*.trace.jsonl"))
    head: Head | None = None
    lines = []
    for line in path.read_bytes().splitlines():
        event = parse(line)
        payload = {**event.payload}
        if payload.get("result") == "deny":
            payload["result"] = "allow"
        head, made = link(
            head,
            Draft(event.event_type, payload, event.span_id, event.parent_span_id),
            session_id=event.session_id,
            trace_id=event.trace_id,
            event_id=event.event_id,
            timestamp=event.timestamp,
        )
        lines.append(made)
    path.write_bytes(b"\n".join([*lines, b""]))
    return path.name.partition(".")[0]


def test_honest_traces_are_the_same_again_from_the_kept_atlas(data: Path) -> None:
    done = cra("replay", "--all", "--data-dir", data)
    assert (done.returncode, done.stdout.count("same")) == (0, 2), done.stderr
    assert done.stdout.count("1 resolution, 3 decisions") == 2
    told = json.loads(cra("replay", "--all", "--json", "--data-dir", data).stdout)
    assert told["ok"] is True
    assert [trace["decisions"] for trace in told["traces"]] == [3, 3]


def test_a_rewritten_decision_is_named(data: Path) -> None:
    session_id = _tamper(data)
    done = cra("replay", session_id, "--data-dir", data)
    assert done.returncode == 1
    assert "DIFFERENT" in done.stdout
    assert "the call of t.drop" in done.stderr
    found = json.loads(cra("replay", session_id, "--json", "--data-dir", data).stdout)["traces"][0]["divergences"][0]
    assert (found["recorded"]["result"], found["recomputed"]["result"]) == ("allow", "deny")


def test_a_broken_chain_is_not_replayed(data: Path) -> None:
    path = next((data / "traces").glob("*.trace.jsonl"))
    path.write_bytes(path.read_bytes().replace(b"t.write", b"t.wrote", 1))
    done = cra("replay", path, "--data-dir", data)
    assert done.returncode == 1
    assert "hash_mismatch" in done.stderr


def test_a_missing_atlas_is_named_and_can_be_given(data: Path, tmp_path: Path) -> None:
    shutil.rmtree(data / "traces" / ".atlases")
    done = cra("replay", "latest", "--data-dir", data)
    assert done.returncode == 1
    assert "com.example.t 1.0.0" in done.stderr
    copy = tmp_path / "copy.json"
    copy.write_text(json.dumps(ATLAS))
    assert cra("replay", "latest", "--atlas", copy, "--data-dir", data).returncode == 0


def test_what_another_atlas_would_change_is_listed_and_counted(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(
        json.dumps({**ATLAS, "policies": [{"policy_id": "no-write", "type": "deny", "actions": ["t.write"]}]})
    )
    done = cra("replay", "--all", "--policy", other, "--data-dir", data)
    assert done.returncode == 1
    assert done.stdout.count("allow -> deny") == 2
    assert done.stdout.count("deny -> allow") == 2
    assert "4 of 6 calls in 2 sessions would be decided otherwise" in done.stderr
    told = json.loads(cra("replay", "--all", "--policy", other, "--json", "--data-dir", data).stdout)
    assert told["by_agent"] == {"ann": 2, "bob": 2}
    assert told["by_policy"] == {"no-write": 2, "default": 2}
    assert [change["action_id"] for change in told["calls_changed"]] == ["t.write", "t.drop"] * 2


def test_what_an_operators_file_would_change_is_listed(data: Path, tmp_path: Path) -> None:
    ask = _policy(tmp_path, {"policy_id": "ask", "type": "require_approval", "actions": ["*.read"]})
    done = cra("replay", "--all", "--policy", ask, "--data-dir", data)
    assert done.returncode == 1
    assert done.stdout.count("allow -> require_approval") == 2
    none = _policy(tmp_path, {"policy_id": "none", "type": "deny", "actions": ["z.*"]})
    assert cra("replay", "--all", "--policy", none, "--data-dir", data).returncode == 0


def test_two_traces_differ_by_what_was_decided(data: Path) -> None:
    one, other = (path.name.partition(".")[0] for path in sorted((data / "traces").glob("*.trace.jsonl")))
    done = cra("trace", "diff", one, other, "--data-dir", data)
    assert done.returncode == 1, "another agent is breaking"
    assert "agent_id" in done.stdout
    told = json.loads(cra("trace", "diff", one, one, "--json", "--data-dir", data).stdout)
    assert told == {"breaking": 0, "minor": 0, "differences": []}


def test_a_trace_that_is_none_is_an_error_with_a_hint(data: Path) -> None:
    done = cra("replay", "nonsense", "--data-dir", data)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert cra("trace", "diff", "nonsense", "latest", "--data-dir", data).returncode == 3
    assert cra("trace", "diff", "missing.jsonl", "latest", "--data-dir", data).returncode == 3
