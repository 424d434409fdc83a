"""The atlases that come with the package do real work, and the example of the specification is one."""

import json
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.atlas.cases import run_cases
from cra_mcp.atlas.loader import load_atlas, load_atlas_text
from cra_mcp.gate.call import ExecutionOutcome

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("customer-support", "devops", "filesystem")


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_and_its_policy_tests_pass(name: str) -> None:
    results = run_cases(load_atlas(ROOT / "atlases" / name))
    assert len(results) >= 7
    assert [result for result in results if not result.passed] == []


def test_the_example_of_the_specification_loads() -> None:
    text = re.search(r"## Example\n\n```json\n(.*?)```", (ROOT / "specs" / "atlas.md").read_text(), re.DOTALL)
    assert text is not None
    assert load_atlas_text(text[1]).atlas_id == "com.example.notes"


def test_every_problem_code_is_in_the_specification() -> None:
    specified = set(re.findall(r"`([a-z_]+)`", (ROOT / "specs" / "atlas.md").read_text().split("## Problem codes")[1]))
    used = {
        problem["code"]
        for path in (ROOT / "specs" / "conformance" / "schema").glob("*.json")
        for problem in json.loads(path.read_text())["expect"].get("problems", [])
    }
    assert used <= specified


def run(runtime: CRARuntime, session: str, action: str, parameters: dict, *, approve: bool = False) -> ExecutionOutcome:
    outcome = runtime.execute_blocking(session, action, parameters)
    if approve:
        assert outcome.status == "pending_approval"
        assert outcome.approval is not None
        runtime.settle_approval(outcome.approval.approval_id, granted=True, by="person")
        outcome = runtime.execute_blocking(session, action, parameters)
    return outcome


def test_the_support_desk_works_on_a_real_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRA_SUPPORT_DB", str(tmp_path / "support.sqlite3"))
    with CRARuntime(RuntimeConfig(store="memory")) as runtime:
        runtime.load_atlas(ROOT / "atlases" / "customer-support")
        session = runtime.create_session("agent", "help").session_id

        def value(action: str, parameters: dict, *, approve: bool = False) -> dict:
            outcome = run(runtime, session, action, parameters, approve=approve)
            assert outcome.status == "success", outcome.fault
            found = runtime.find_action(action)
            assert found is not None
            jsonschema.Draft202012Validator(found.returns_schema).validate(outcome.value)
            return outcome.value

        assert [t["ticket_id"] for t in value("ticket.search", {"query": "teapot"})["tickets"]] == ["T-2001"]
        assert value("ticket.search", {"query": "%"})["tickets"] == []
        assert value("ticket.search", {"limit": 1})["more"] is True
        assert value("ticket.get", {"ticket_id": "T-9999"})["error"]["code"] == "not_found"
        made = value("ticket.create", {"customer_id": "C-1002", "subject": "s", "body": "b"})["ticket"]
        value("ticket.update", {"ticket_id": made["ticket_id"], "priority": "high", "note": "n"})
        closed = value("ticket.close", {"ticket_id": made["ticket_id"], "resolution": "done"})["ticket"]
        assert (closed["status"], closed["priority"], len(closed["notes"])) == ("closed", "high", 2)
        assert value("customer.search", {"query": "ada"})["customers"][0]["customer_id"] == "C-1001"
        refund = {"order_id": "O-3001", "amount_cents": 4_000, "reason": "broken on arrival"}
        assert value("refund.create", refund, approve=True)["refund"]["amount_cents"] == 4_000
        too_much = {**refund, "amount_cents": 901}
        assert value("refund.create", too_much, approve=True)["error"]["code"] == "too_much"
        orders = value("customer.get", {"customer_id": "C-1001"})["customer"]["orders"]
        assert orders[0]["refunded_cents"] == 4_000
        for action, code in (("ticket.delete", "denied"), ("customer.export", "unknown_action")):
            refused = run(runtime, session, action, {})
            assert refused.fault is not None
            assert refused.fault.code == code


def test_git_works_on_a_real_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    git("init", "--quiet", "--initial-branch=main")
    git("config", "user.name", "Somebody")
    git("config", "user.email", "somebody@example.com")
    (tmp_path / "a.txt").write_text("one\n")
    git("add", "a.txt")
    git("commit", "--quiet", "--message=first")
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    # A hostile configuration: none of these programs may run when an agent looks around.
    marker = tmp_path / "ran"
    for key in ("core.fsmonitor", "diff.external", "core.pager", "diff.evil.textconv"):
        git("config", key, f"touch {marker}")
    (tmp_path / ".gitattributes").write_text("*.txt diff=evil\n")
    monkeypatch.setenv("CRA_DEVOPS_REPOSITORY", str(tmp_path))
    with CRARuntime(RuntimeConfig(store="memory")) as runtime:
        runtime.load_atlas(ROOT / "atlases" / "devops")
        session = runtime.create_session("agent", "look").session_id
        for action, parameters, part in (
            ("git.status", {}, " M a.txt"),
            ("git.log", {}, "first"),
            ("git.diff", {}, "+two"),
            ("git.show", {"revision": "HEAD"}, "+one"),
            ("git.branches", {}, "main"),
            ("git.blame", {"path": "a.txt"}, "one"),
        ):
            outcome = run(runtime, session, action, parameters)
            assert outcome.status == "success", (action, outcome.fault, outcome.value)
            assert part in outcome.value["stdout"], action
        assert not marker.exists()
        assert run(runtime, session, "git.add", {"path": "a.txt"}).status == "success"
        assert run(runtime, session, "git.commit", {"message": "--amend"}, approve=True).status == "success"
        assert run(runtime, session, "git.push", {}).status == "denied"
    assert git("log", "--format=%s").split() == ["--amend", "first"]


def test_the_filesystem_atlas_asks_for_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRA_FILESYSTEM_ROOT", raising=False)
    with CRARuntime(RuntimeConfig(store="memory")) as runtime:
        runtime.load_atlas(ROOT / "atlases" / "filesystem")
        session = runtime.create_session("agent", "look").session_id
        outcome = runtime.execute_blocking(session, "file.read", {"path": "/etc/passwd"})
        assert outcome.fault is not None
        assert outcome.fault.code == "missing_setting"
        assert "CRA_FILESYSTEM_ROOT" in (outcome.fault.hint or "") + outcome.fault.message
