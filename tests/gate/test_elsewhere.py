"""Approvals that are settled elsewhere while a call waits for its answer."""

import json
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.approval.ledger import SCHEMA, ApprovalLedger
from cra_mcp.approval.model import Answer, Approval, Channel
from cra_mcp.gate.call import ExecutionOutcome
from cra_mcp.runtime.watching import Change
from cra_mcp.state.database import Database
from tests.gate.conftest import World, action, make_world

pytestmark = pytest.mark.anyio
PATIENCE_S = 20
ATLAS = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.pay",
    "version": "1.0.0",
    "name": "Pay",
    "description": "Pays.",
    "actions": [{**action("do.pay"), "executor": {"type": "command", "argv": ["true"]}}],
    "policies": [{"policy_id": "ask", "type": "require_approval", "actions": ["*"], "reason": "money"}],
}


@dataclass
class Silent:
    """Somebody who is asked and says nothing, while somebody else does something."""

    meanwhile: Callable[[Approval], object] = lambda _: None
    channel: Channel = "elicitation"
    given_up: bool = False
    asked: anyio.Event = field(default_factory=anyio.Event)

    async def ask(self, approval: Approval) -> Answer:
        self.meanwhile(approval)
        self.asked.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.given_up = True
        return "granted"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[CRARuntime]:
    async with CRARuntime(RuntimeConfig(data_dir=tmp_path)) as runtime:
        runtime.load_atlas_from_json(json.dumps(ATLAS))
        yield runtime


def terminal(runtime: CRARuntime, *, granted: bool) -> Callable[[Approval], object]:
    """What ``cra-mcp approve`` and ``deny`` do: they have a connection of their own."""

    def settle(approval: Approval) -> None:
        ledger = ApprovalLedger(
            Database(runtime.config.data_path / "state.sqlite3", SCHEMA), lambda: runtime.config.clock_ns() // 1_000
        )
        ledger.settle(approval.approval_id, granted=granted, by="ann", channel="cli")
        ledger.close()

    return settle


def kinds(runtime: CRARuntime, session_id: str) -> list[str]:
    return [event.event_type for event in runtime.get_trace(session_id)]


@pytest.mark.parametrize("granted", [True, False])
async def test_a_waiting_call_notices_what_another_process_answers(served: CRARuntime, granted: bool) -> None:
    session = served.create_session("agent", "").session_id
    person = Silent(terminal(served, granted=granted))
    changes: list[Change] = []
    served.watch(changes.append)
    with anyio.fail_after(PATIENCE_S):
        outcome = await served.execute(session, "do.pay", {}, asker=person)
    assert person.given_up, "who is asked need not answer any more"
    assert outcome.status == ("success" if granted else "denied")
    event = next(
        e for e in served.get_trace(session) if e.event_type == f"approval.{'granted' if granted else 'rejected'}"
    )
    assert (event.payload["by"], event.payload["channel"], event.payload["grade"]) == ("ann", "cli", "local_cli")
    assert [change.session_id for change in changes if change.kind == "approval"] == [session] * 2, "asked, and settled"


async def test_an_approval_given_elsewhere_lets_one_of_several_waiting_calls_through(served: CRARuntime) -> None:
    session = served.create_session("agent", "").session_id
    people = [Silent() for _ in range(8)]
    outcomes: list[ExecutionOutcome] = []

    async def call(person: Silent) -> None:
        outcomes.append(await served.execute(session, "do.pay", {}, asker=person))

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:
            for person in people:
                group.start_soon(call, person)
                await person.asked.wait()
            (approval,) = served.pending_approvals()
            terminal(served, granted=True)(approval)
    assert sorted(outcome.status for outcome in outcomes) == ["denied"] * 7 + ["success"]
    assert kinds(served, session).count("action.executed") == 1


async def test_a_waiting_call_notices_what_another_thread_of_the_program_answers() -> None:
    world = make_world()

    def settle(approval: Approval) -> None:
        work = threading.Thread(
            target=lambda: world.runtime.settle_approval(approval.approval_id, granted=True, by="program")
        )
        work.start()
        work.join()

    async with world.runtime:
        with anyio.fail_after(PATIENCE_S):
            outcome = await world.runtime.execute(world.session, "do.pay", {}, asker=Silent(settle))
        assert outcome.status == "success"


async def test_an_answer_from_elsewhere_that_is_worth_too_little_is_none(world: World) -> None:
    def settle(approval: Approval) -> None:
        world.runtime.settle_approval(approval.approval_id, granted=True, by="program", channel="library")

    outcome = await world.runtime.execute(world.session, "do.proven", {}, asker=Silent(settle, channel="cli"))
    assert outcome.fault is not None
    assert (outcome.status, outcome.fault.code) == ("denied", "approval_expired")
    assert world.backend.done == []


async def test_an_answer_from_elsewhere_counts_even_in_the_moment_in_which_the_time_is_up() -> None:
    world = make_world(elicitation_timeout_s=0.02)

    def settle(approval: Approval) -> None:
        world.runtime.settle_approval(approval.approval_id, granted=True, by="program")

    async with world.runtime:
        assert (await world.runtime.execute(world.session, "do.pay", {}, asker=Silent(settle))).status == "success"


async def test_who_can_not_be_asked_leaves_the_question_open(world: World) -> None:
    @dataclass
    class Broken:
        channel: Channel = "elicitation"

        async def ask(self, approval: Approval) -> Answer:
            raise RuntimeError("secret")

    outcome = await world.runtime.execute(world.session, "do.pay", {}, asker=Broken())
    assert outcome.status == "pending_approval"
    assert "secret" not in str(outcome)
    assert len(world.runtime.pending_approvals()) == 1


async def test_looking_goes_on_where_the_ledger_could_not_be_read_for_a_moment(
    served: CRARuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = served.create_session("agent", "").session_id
    person = Silent()
    path = served.config.data_path / "state.sqlite3"
    outcomes: list[ExecutionOutcome] = []
    monkeypatch.setattr("cra_mcp.state.database._BUSY_TIMEOUT_S", 0.01)

    async def call() -> None:
        outcomes.append(await served.execute(session, "do.pay", {}, asker=person))

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await person.asked.wait()
            other = Database(path, SCHEMA)
            with other.transaction() as connection:
                # Nobody can read while this is held.
                connection.execute("COMMIT")
                connection.execute("BEGIN EXCLUSIVE")
                await anyio.sleep(0.5)
            other.close()
            (approval,) = served.pending_approvals()
            terminal(served, granted=True)(approval)
    assert outcomes[0].status == "success"


async def test_a_grant_that_was_not_used_can_be_taken_back(world: World) -> None:
    outcome = await world.runtime.execute(world.session, "do.pay", {})
    assert outcome.approval is not None
    approval_id = outcome.approval.approval_id
    assert not world.runtime.withdraw_approval(approval_id, by="ann")
    world.runtime.settle_approval(approval_id, granted=True, by="ann")
    assert world.runtime.withdraw_approval(approval_id, by="bob")
    refused = await world.runtime.execute(world.session, "do.pay", {})
    assert refused.fault is not None
    assert refused.fault.code == "approval_rejected"
    assert world.payloads("approval.rejected")[-1]["by"] == "bob"
    assert not world.runtime.withdraw_approval(approval_id, by="ann")
