"""Approving from another terminal: this process is the server, the commands are processes of their own."""

import getpass
import json
from collections.abc import Callable

import pytest

from cra_mcp import CRARuntime
from tests.faces.cli.conftest import cra, started
from tests.faces.mcp.conftest import Place

PAY = {"to": "bob", "note": "\x1b[2Jhidden\u202e"}


class Agent:
    """An agent of the server; asks for what needs approval."""

    def __init__(self, server: CRARuntime) -> None:
        self.server = server
        self.session_id = server.create_session("ann", "Pay").session_id

    def pay(self, **parameters: object) -> str:
        return self.server.execute_blocking(self.session_id, "tool.pay", parameters).status

    def ask(self, **parameters: object) -> str:
        outcome = self.server.execute_blocking(self.session_id, "tool.pay", parameters)
        assert outcome.status == "pending_approval"
        assert outcome.approval is not None
        return outcome.approval.approval_id

    def last(self, event_type: str) -> dict[str, object]:
        events = [event for event in self.server.get_trace(self.session_id) if event.event_type == event_type]
        return dict(events[-1].payload)


@pytest.fixture
def agent(server: CRARuntime) -> Agent:
    return Agent(server)


def test_what_waits_is_listed_and_approving_it_serves_one_call_with_these_arguments(place: Place, agent: Agent) -> None:
    where = ("--data-dir", place.data)
    nothing = cra("pending", *where)
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "", "nothing is waiting\n")
    approval_id = agent.ask(to="bob")
    listed = cra("pending", *where)
    assert (approval_id in listed.stdout, '{"to":"bob"}' in listed.stdout) == (True, True)
    (entry,) = json.loads(cra("pending", *where, "--json").stdout)["pending"]
    assert (entry["approval_id"], entry["agent_id"], entry["policy_id"]) == (approval_id, "ann", "ask")
    done = cra("approve", approval_id[:-1], "--yes", *where, "--json")
    assert (done.returncode, json.loads(done.stdout)["status"]) == (0, "granted")
    assert agent.pay(to="eve") == "pending_approval"
    assert agent.pay(to="bob") == "success"
    granted = agent.last("approval.granted")
    assert (granted["by"], granted["channel"], granted["grade"]) == (getpass.getuser(), "cli", "local_cli")
    assert agent.pay(to="bob") == "pending_approval"
    again = cra("approve", approval_id, "--yes", *where)
    assert (again.returncode, "approval_settled" in again.stderr) == (1, True)


def test_a_denied_call_stays_denied(place: Place, agent: Agent) -> None:
    approval_id = agent.ask(to="bob")
    done = cra("deny", approval_id, "--data-dir", place.data)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("rejected: tool.pay for ann")
    assert agent.pay(to="bob") == "denied"
    late = cra("approve", approval_id, "--yes", "--data-dir", place.data)
    assert (late.returncode, "already rejected" in late.stderr) == (1, True)


def test_a_person_sees_what_they_approve_and_can_say_no(place: Place, agent: Agent) -> None:
    approval_id = agent.ask(**PAY)
    for typed, code, status in (("n\n", 1, "pending_approval"), ("\n", 1, "pending_approval"), ("y\n", 0, "success")):
        with started("approve", approval_id, "--data-dir", place.data, in_terminal=True) as command:
            shown = command.until(command.process.stderr, "[y/N]:")
            command.type(typed)
            assert command.end()[0] == code
        assert "'ann' wants" in shown or "ann wants to call tool.pay (risk: high) with" in shown
        assert '"to": "bob"' in shown
        assert "policy ask: Money leaves the house" in shown
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert agent.pay(**PAY) == status


def test_ctrl_c_at_the_question_approves_nothing(place: Place, agent: Agent) -> None:
    approval_id = agent.ask(to="bob")
    with started("approve", approval_id, "--data-dir", place.data, in_terminal=True) as command:
        command.until(command.process.stderr, "[y/N]:")
        command.type("\x04")  # end of input
        code, _, err = command.end()
    assert (code, "Traceback" in err) == (130, False)
    assert agent.pay(to="bob") == "pending_approval"


def test_without_a_terminal_nobody_approves_by_accident(place: Place, agent: Agent) -> None:
    approval_id = agent.ask(to="bob")
    for typed in ("", "y\n"):
        done = cra("approve", approval_id, "--data-dir", place.data, input=typed)
        assert (done.returncode, "add --yes" in done.stderr) == (2, True)
    assert agent.pay(to="bob") == "pending_approval"


def test_an_approval_is_named_by_enough_of_its_id_in_the_right_folder(place: Place, agent: Agent) -> None:
    ids = [agent.ask(to="bob"), agent.ask(to="eve")]
    both = cra("approve", ids[0][:6], "--yes", "--data-dir", place.data)
    assert (both.returncode, "2 waiting approvals begin with" in both.stderr) == (2, True)
    empty = cra("approve", "", "--yes", "--data-dir", place.data)
    assert empty.returncode == 3
    elsewhere = cra("deny", ids[0], "--data-dir", place.folder / "other")
    assert (elsewhere.returncode, str(place.folder / "other") in elsewhere.stderr) == (3, True)
    assert agent.pay(to="bob") == "pending_approval"


def test_arguments_that_are_not_recorded_are_said_to_be_so(place: Place, runtime_at: Callable[..., CRARuntime]) -> None:
    agent = Agent(runtime_at(place, recording="none"))
    approval_id = agent.ask(to="bob")
    listed = cra("pending", "--data-dir", place.data)
    assert "arguments that are not recorded" in listed.stdout
    assert "bob" not in listed.stdout
    shown = cra("approve", approval_id, "--data-dir", place.data)
    assert "arguments that are not recorded; SHA-256 " in shown.stderr


def test_an_answer_that_comes_too_late_changes_nothing(place: Place, runtime_at: Callable[..., CRARuntime]) -> None:
    now = [1_800_000_000_000_000_000]
    agent = Agent(runtime_at(place, approval_ttl_s=1, clock_ns=lambda: now[0]))
    now[0] -= 10**18  # long ago, as the command's own clock sees it
    approval_id = agent.ask(to="bob")
    done = cra("approve", approval_id, "--yes", "--data-dir", place.data)
    assert (done.returncode, "approval_expired" in done.stderr) == (1, True)
    assert cra("pending", "--data-dir", place.data).stdout == ""


def test_pending_lists_the_newest_first_and_says_how_many_it_leaves_out(place: Place, agent: Agent) -> None:
    for name in ("ann", "bob", "eve"):
        assert agent.pay(to=name) == "pending_approval"
    where = ("--data-dir", place.data)
    listed = json.loads(cra("pending", *where, "--json", "--limit", "2").stdout)
    assert ([each["parameters"]["to"] for each in listed["pending"]], listed["more"]) == (["eve", "bob"], 1)
    assert "1 older ones not listed" in cra("pending", *where, "-n", "2").stderr
    every = json.loads(cra("pending", *where, "--json", "-n", "0").stdout)
    assert (len(every["pending"]), every["more"]) == (3, 0)
