"""Shadow mode: what would have been decided is recorded, and nothing but the operator's denials is enforced."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.atlas.model import Atlas
from cra_mcp.atlas.overlay import Overlay
from cra_mcp.errors import SettingsError
from cra_mcp.replay.again import replay
from cra_mcp.replay.library import Library
from cra_mcp.replay.reading import read_session
from cra_mcp.replay.whatif import Tally, what_if
from cra_mcp.trace.summary import summarise

NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
ATLAS = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.s",
    "version": "1.0.0",
    "name": "S",
    "description": "d",
    "actions": [
        {"action_id": f"do.{name}", "name": "n", "description": "d", "parameters_schema": NUMBER}
        for name in ("read", "drop", "hidden", "pay", "some", "args", "never")
    ],
    "policies": [
        {"policy_id": "no-drop", "type": "deny", "actions": ["do.drop"], "reason": "it is gone then"},
        {"policy_id": "hide", "type": "deny", "actions": ["do.hidden"], "disclose": False},
        {"policy_id": "ask", "type": "require_approval", "actions": ["do.pay"]},
        {
            "policy_id": "few",
            "type": "rate_limit",
            "actions": ["do.some"],
            "parameters": {"max_calls": 1, "window_seconds": 3600},
        },
        {"policy_id": "small", "type": "deny", "actions": ["do.args"], "when": "has(args.n) && args.n > 5"},
    ],
}
OPERATOR = {
    "default_effect": "allow",
    "policies": [
        {"policy_id": "never", "type": "deny", "actions": ["do.never"]},
        {"policy_id": "ask-reads", "type": "require_approval", "actions": ["do.read"]},
    ],
}


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[CRARuntime]:
    path = tmp_path / "operator.json"
    path.write_text(json.dumps(OPERATOR))
    with CRARuntime(RuntimeConfig(data_dir=tmp_path / "data", mode="shadow", policy_files=(path,))) as made:
        made.load_atlas_from_json(json.dumps(ATLAS))
        yield made


@pytest.fixture
def session(runtime: CRARuntime) -> str:
    return runtime.create_session("bot", "a goal").session_id


def _code(runtime: CRARuntime, session: str, action_id: str, parameters: object = None) -> str | None:
    """Nothing carries these actions out: a call that gets so far was let through."""
    outcome = runtime.execute_blocking(session, action_id, parameters)
    return outcome.fault.code if outcome.fault is not None else None


def _payloads(runtime: CRARuntime, session: str, event_type: str) -> list[dict]:
    return [dict(event.payload) for event in runtime.get_trace(session) if event.event_type == event_type]


@pytest.mark.parametrize(
    ("action_id", "result", "policy_id"),
    [
        ("do.read", "require_approval", "operator/ask-reads"),
        ("do.drop", "deny", "no-drop"),
        ("do.hidden", "deny", "hide"),
        ("do.pay", "require_approval", "ask"),
        ("do.some", "allow", "default"),
    ],
)
def test_what_would_be_refused_is_let_through_and_recorded_so(
    runtime: CRARuntime, session: str, action_id: str, result: str, policy_id: str
) -> None:
    assert _code(runtime, session, action_id) == _code(runtime, session, "do.args")
    told = _payloads(runtime, session, "x.cra.shadow.evaluated")[0]
    assert (told["result"], told["policy_id"], told["enforced"]) == (result, policy_id, False)


def test_no_reader_takes_it_for_a_decision_that_was_enforced(runtime: CRARuntime, session: str) -> None:
    _code(runtime, session, "do.drop")
    assert _payloads(runtime, session, "session.started")[0]["mode"] == "shadow"
    (enforced,) = _payloads(runtime, session, "policy.evaluated")
    assert (enforced["result"], enforced["mode"]) == ("allow", "shadow")
    assert _payloads(runtime, session, "action.approved")[0]["mode"] == "shadow"
    (shadow,) = (event for event in runtime.get_trace(session) if event.event_type == "x.cra.shadow.evaluated")
    assert summarise(shadow).decision is None
    assert runtime.pending_approvals() == []


def test_what_the_operator_denies_is_refused(runtime: CRARuntime, session: str) -> None:
    assert _code(runtime, session, "do.never") == "denied"
    assert _payloads(runtime, session, "policy.evaluated")[0]["policy_id"] == "operator/never"
    assert _payloads(runtime, session, "x.cra.shadow.evaluated") == []


def test_what_is_no_matter_of_policy_is_refused(runtime: CRARuntime, session: str) -> None:
    assert _code(runtime, session, "do.nothing") == "unknown_action"
    assert _code(runtime, session, "do.read", {"n": "x"}) == "invalid_parameters"
    runtime.freeze("all", reason="stop")
    assert _code(runtime, session, "do.read") == "frozen"


def test_limits_and_arguments_count_as_if_it_were_in_earnest(runtime: CRARuntime, session: str) -> None:
    for _ in range(3):
        assert _code(runtime, session, "do.some") != "rate_limited"
    for number in (1, 9):
        _code(runtime, session, "do.args", {"n": number})
    told = _payloads(runtime, session, "x.cra.shadow.evaluated")
    assert [each["result"] for each in told] == ["allow", "deny", "deny", "allow", "deny"]
    assert [each["policy_id"] for each in told] == ["default", "few", "few", "default", "small"]


def test_lists_have_everything_but_what_the_operator_denies(runtime: CRARuntime, session: str) -> None:
    listed = [permission.action.action_id for permission in runtime.permissions()]
    assert listed == ["do.read", "do.drop", "do.hidden", "do.pay", "do.some", "do.args"]
    assert [each.action.action_id for each in runtime.resolve(session).denied_actions] == ["do.never"]


def test_an_atlas_loaded_again_stays_in_the_shadow(runtime: CRARuntime, session: str, tmp_path: Path) -> None:
    path = tmp_path / "again.json"
    path.write_text(json.dumps({**ATLAS, "version": "2.0.0"}))
    runtime.replace_atlas("com.example.s", path)
    assert _code(runtime, session, "do.drop") != "denied"
    assert _code(runtime, session, "do.never") == "denied"
    runtime.unload_atlas("com.example.s")
    runtime.load_atlas(path)
    assert _code(runtime, session, "do.drop") != "denied"


class Here:
    """The atlases of a runtime, by digest."""

    def __init__(self, runtime: CRARuntime) -> None:
        self._runtime = runtime

    def load(self, digest: str) -> Atlas | None:
        return next((atlas for atlas in self._runtime.atlases() if atlas.digest == digest), None)

    def load_overlay(self, digest: str) -> Overlay | None:
        return next((overlay for overlay in self._runtime.overlays() if overlay.digest == digest), None)


def test_its_trace_is_replayed_as_it_was_and_decided_by_policies_in_earnest(runtime: CRARuntime, session: str) -> None:
    for name in ("read", "drop", "never"):
        _code(runtime, session, f"do.{name}")
    recorded = read_session(runtime.read_trace(session))
    assert replay(recorded, Library(Here(runtime))).ok
    library = Library(Here(runtime), lambda catalogue: catalogue)
    changed = what_if([(recorded.started_us, lambda: recorded)], library, Tally())
    assert [(each.action_id, each.was, each.now) for each in changed] == [
        ("do.read", "allow", "require_approval"),
        ("do.drop", "allow", "deny"),
    ]


def test_the_mode_is_one_of_two() -> None:
    with pytest.raises(SettingsError):
        RuntimeConfig(mode="off")  # type: ignore[arg-type]
