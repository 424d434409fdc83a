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


class Repository:
    """A real repository with two commits, the last one signed by nobody."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "Somebody")
        self.git("config", "user.email", "somebody@example.com")
        (folder / "a.txt").write_text("one\n")
        self.git("add", "a.txt")
        self.git("commit", "--quiet", "--message=first")
        (folder / "a.txt").write_text("one\ntwo\n")
        self.git("commit", "--quiet", "--all", "--message=second")
        head, _, message = self.git("cat-file", "commit", "HEAD").partition("\n\n")
        signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n -----END PGP SIGNATURE-----"
        signed = self.git("hash-object", "-t", "commit", "-w", "--stdin", text=f"{head}\n{signature}\n\n{message}")
        self.git("update-ref", "HEAD", signed.strip())
        (folder / "a.txt").write_text("one\ntwo\nthree\n")

    def git(self, *arguments: str, text: str = "") -> str:
        return subprocess.run(
            ["git", *arguments], cwd=self.folder, check=True, capture_output=True, text=True, input=text
        ).stdout


def test_git_works_on_a_real_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository(tmp_path)
    monkeypatch.setenv("CRA_DEVOPS_REPOSITORY", str(tmp_path))
    with CRARuntime(RuntimeConfig(store="memory")) as runtime:
        runtime.load_atlas(ROOT / "atlases" / "devops")
        session = runtime.create_session("agent", "look").session_id
        for action, parameters, part in (
            ("git.status", {}, " M a.txt"),
            ("git.log", {}, "first"),
            ("git.log", {"path": "a.txt", "limit": 1}, "second"),
            ("git.diff", {}, "+three"),
            ("git.diff", {"path": "a.txt"}, "+three"),
            ("git.compare", {"base": "HEAD~1", "head": "main"}, "+two"),
            ("git.show", {"revision": "HEAD~1"}, "+one"),
            ("git.branches", {}, "main"),
            ("git.blame", {"path": "a.txt"}, "two"),
            ("git.blame", {"path": "a.txt", "revision": "HEAD~1", "start_line": 1, "end_line": 1}, "one"),
            ("git.add", {"path": "a.txt"}, ""),
            ("git.diff_staged", {"path": "a.txt"}, "+three"),
            ("git.unstage", {"path": "a.txt"}, ""),
            ("git.diff_staged", {}, ""),
            ("git.add", {"path": "."}, ""),
        ):
            outcome = run(runtime, session, action, parameters)
            assert outcome.status == "success", (action, outcome.fault, outcome.value)
            assert part in outcome.value["stdout"], action
        assert run(runtime, session, "git.diff", {"path": "/etc/passwd"}).status == "error"
        assert run(runtime, session, "git.add", {"path": "--all"}).status == "error"
        assert run(runtime, session, "git.commit", {"message": "--amend"}, approve=True).status == "success"
        assert run(runtime, session, "git.push", {}).status == "denied"
    assert repository.git("log", "--format=%s").split() == ["--amend", "second", "first"]


def test_looking_at_a_hostile_repository_runs_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository(tmp_path)
    evil = tmp_path / ".git" / "evil"
    evil.write_text(f'#!/bin/sh\necho "$0" >> {tmp_path}/ran\n')
    evil.chmod(0o755)
    for key in ("core.fsmonitor", "diff.external", "core.pager", "diff.evil.textconv", "gpg.program"):
        repository.git("config", key, str(evil))
    repository.git("config", "log.showSignature", "true")
    (tmp_path / ".gitattributes").write_text("*.txt diff=evil\n")
    (tmp_path / ".git" / "hooks").mkdir(exist_ok=True)
    (tmp_path / ".git" / "hooks" / "post-index-change").symlink_to(evil)

    def ran() -> set[str]:
        log = tmp_path / "ran"
        found = set(log.read_text().split()) if log.exists() else set()
        log.unlink(missing_ok=True)
        return {Path(name).name for name in found}

    for looking in (("status",), ("log",), ("diff",)):  # plain git does run what the repository says
        repository.git(*looking)
    assert ran() == {"evil", "post-index-change"}

    monkeypatch.setenv("CRA_DEVOPS_REPOSITORY", str(tmp_path))
    with CRARuntime(RuntimeConfig(store="memory")) as runtime:
        runtime.load_atlas(ROOT / "atlases" / "devops")
        session = runtime.create_session("agent", "look").session_id
        for action, parameters in (
            ("git.status", {}),
            ("git.log", {}),
            ("git.show", {}),
            ("git.diff", {}),
            ("git.diff_staged", {}),
            ("git.compare", {"base": "HEAD~1", "head": "HEAD"}),
            ("git.blame", {"path": "a.txt"}),
            ("git.branches", {}),
            ("git.add", {"path": "a.txt"}),
            ("git.unstage", {"path": "a.txt"}),
        ):
            assert run(runtime, session, action, parameters).status == "success", action
            assert ran() == set(), action


def test_the_filesystem_atlas_asks_for_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRA_FILESYSTEM_ROOT", raising=False)
    with CRARuntime(RuntimeConfig(store="memory")) as runtime:
        runtime.load_atlas(ROOT / "atlases" / "filesystem")
        session = runtime.create_session("agent", "look").session_id
        outcome = runtime.execute_blocking(session, "file.read", {"path": "/etc/passwd"})
        assert outcome.fault is not None
        assert outcome.fault.code == "missing_setting"
        assert "CRA_FILESYSTEM_ROOT" in (outcome.fault.hint or "") + outcome.fault.message
