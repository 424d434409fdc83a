"""The pytest plugin, as an author of an atlas uses it: in a pytest of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.atlas.conftest import action, manifest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = {"type": "python", "callable": "nowhere:nothing"}
PAY = {
    "type": "object",
    "properties": {"amount": {"type": "number"}},
    "required": ["amount"],
    "additionalProperties": False,
}
ATLAS = manifest(
    actions=[
        action("t.read", executor=PYTHON),
        action("t.pay", parameters_schema=PAY, executor=PYTHON),
        action("t.drop", executor={"type": "command", "argv": ["rm", "-rf", "/nonexistent"]}),
        action("t.secret"),
        action("t.plain"),
    ],
    policies=[
        {"policy_id": "no-drop", "type": "deny", "actions": ["t.drop"]},
        {"policy_id": "hide", "type": "deny", "actions": ["t.secret"], "disclose": False},
        {"policy_id": "large", "type": "require_approval", "actions": ["t.pay"], "when": "args.amount > 100.0"},
        {
            "policy_id": "calm",
            "type": "rate_limit",
            "actions": ["t.read"],
            "parameters": {"max_calls": 2, "window_seconds": 60},
        },
        {"policy_id": "who", "type": "deny", "actions": ["t.plain"], "conditions": {"agents": ["bad"]}},
        {"policy_id": "roles", "type": "deny", "actions": ["t.plain"], "conditions": {"roles": ["auditor"]}},
        {"policy_id": "risk", "type": "deny", "actions": ["t.plain"], "conditions": {"risk_tiers": ["high"]}},
        {"policy_id": "subject", "type": "deny", "actions": ["t.plain"], "conditions": {"principals": ["eve"]}},
        {
            "policy_id": "night",
            "type": "deny",
            "actions": ["t.plain"],
            "conditions": {"time_window": {"start": "22:00", "end": "06:00"}},
        },
    ],
)
HEAD = """
import pytest
from cra_mcp.testing import Answer, Governed, assert_allowed, assert_denied, assert_needs_approval

@pytest.fixture(autouse=True)
def atlas(cra):
    cra.load_atlas("atlas.json")

"""


def run(folder: Path, body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "atlas.json").write_text(json.dumps(ATLAS))
    (folder / "conftest.py").write_text('pytest_plugins = ["cra_mcp.testing"]\n')
    (folder / "test_atlas.py").write_text(HEAD + body)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


PASSING = """
def test_denials(cra):
    assert_denied(cra.call("t.drop"), policy_id="no-drop")
    assert_denied(cra.call("t.secret"), policy_id="hide")
    assert_denied(cra.call("t.unheard"), policy_id="undeclared")
    assert cra.backend.calls == []

def test_what_is_allowed_is_kept_and_not_done(cra):
    answer = cra.call("t.read", {})
    assert_allowed(answer, policy_id="default")
    assert (answer.value, [each.action_id for each in cra.backend.calls]) == (None, ["t.read"])

def test_answers(cra):
    cra.backend.answers = {"t.read": {"rows": 3}, "t.pay": lambda parameters: parameters["amount"] * 2}
    assert cra.call("t.read").value == {"rows": 3}
    assert cra.call("t.pay", {"amount": 4}).value == 8
    cra.backend.answers["t.read"] = OSError("gone")
    answer = cra.call("t.read")
    assert_allowed(answer)
    assert answer.outcome.status == "error"

def test_approval(cra):
    asked = cra.call("t.pay", {"amount": 101})
    assert_needs_approval(asked, policy_id="large")
    assert cra.backend.calls == []
    assert_allowed(cra.approve(asked), policy_id="large")
    assert [each.parameters for each in cra.backend.calls] == [{"amount": 101}]
    assert_needs_approval(cra.call("t.pay", {"amount": 102}))
    assert_allowed(cra.call("t.pay", {"amount": 100}))

def test_time_stands_still(cra, cra_clock):
    assert cra.runtime.config.clock_ns() == cra.runtime.config.clock_ns() == 1767614400000000000
    for _ in range(2):
        assert_allowed(cra.call("t.read"))
    assert_denied(cra.call("t.read"), policy_id="calm")
    cra_clock.advance(seconds=59)
    assert_denied(cra.call("t.read"))
    cra_clock.advance(seconds=1)
    assert_allowed(cra.call("t.read"))
    assert_allowed(cra.call("t.plain"))
    cra.clock.set("2026-01-05T23:00:00+01:00")
    assert_denied(cra.call("t.plain"), policy_id="night")
    with pytest.raises(ValueError, match="offset"):
        cra.clock.set("2026-01-05T23:00:00")

def test_facts(cra):
    assert_allowed(cra.call("t.plain"))
    assert_denied(cra.call("t.plain", agent_id="bad"), policy_id="who")
    assert_denied(cra.call("t.plain", roles=["agent", "auditor"]), policy_id="roles")
    assert_denied(cra.call("t.plain", task_risk="high"), policy_id="risk")
    assert_denied(cra.call("t.plain", subject="eve"), policy_id="subject")

def test_tests_do_not_see_each_other(cra):
    assert cra.backend.calls == []
    for _ in range(2):
        assert_allowed(cra.call("t.read"))
"""

FAILING = {
    "assert_denied(cra.call('t.plain'))": "expected t.plain to be denied, but t.plain was allowed by default",
    "assert_denied(cra.call('t.drop'), policy_id='x')": "expected t.drop to be denied by x, but t.drop was denied by no-drop",
    "assert_denied(cra.call('t.pay', {'amount': 'x'}))": "expected t.pay to be denied, but t.pay was error by parameters_schema",
    "assert_allowed(cra.call('t.drop'))": "expected t.drop to be allowed, but t.drop was denied by no-drop",
    "assert_allowed(cra.call('t.pay', {'amount': 500}))": "expected t.pay to be allowed, but t.pay was waiting for approval",
    "assert_needs_approval(cra.call('t.pay', {'amount': 5}))": "expected t.pay to be held for approval, but t.pay was allowed",
    "cra.approve(cra.call('t.plain'))": "expected a call that waits for approval, but t.plain was allowed by default",
}


def test_an_atlas_is_tested_with_the_clock_stopped_and_nothing_carried_out(tmp_path: Path) -> None:
    done = run(tmp_path, PASSING)
    assert (done.returncode, "7 passed" in done.stdout) == (0, True), done.stdout


def test_what_is_not_as_expected_is_said_in_a_sentence_without_the_plugin_s_own_frames(tmp_path: Path) -> None:
    body = "".join(f"def test_{number}(cra):\n    {text}\n\n" for number, text in enumerate(FAILING))
    done = run(tmp_path, body)
    assert f"{len(FAILING)} failed" in done.stdout
    for sentence in FAILING.values():
        assert f"AssertionError: {sentence}" in done.stdout, sentence
    assert "def _expect" not in done.stdout


def test_the_example_of_the_specification_passes(tmp_path: Path) -> None:
    section = (ROOT / "specs" / "atlas.md").read_text(encoding="utf-8").partition("## Tests in Python")[2]
    example = section.partition("```python\n")[2].partition("```")[0]
    done = run(tmp_path, example.replace("atlases/customer-support", str(ROOT / "atlases" / "customer-support")))
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout


def test_a_pytest_that_does_not_ask_for_it_does_not_load_it(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text("import sys\n\ndef test():\n    assert 'cra_mcp' not in sys.modules\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("module", ["pydantic", "mcp", "anyio", "cra_mcp.compose"])
def test_asking_for_it_loads_nothing_slow_before_a_test_uses_it(module: str) -> None:
    code = f"import sys, cra_mcp.testing; sys.exit({module!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0
