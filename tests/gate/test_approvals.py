"""Consent: asked for once, given once, used once, for exactly one call."""

import threading
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from cra_mcp.approval.ledger import SCHEMA, ApprovalLedger
from cra_mcp.approval.model import Answer, Approval, Channel
from cra_mcp.errors import ApprovalError
from cra_mcp.state.database import Database, StateUnavailableError
from tests.gate.conftest import World, make_world

pytestmark = pytest.mark.anyio


@dataclass
class Person:
    """Somebody who answers while the call waits."""

    answer: Answer
    channel: Channel = "elicitation"
    asked: int = 0
    waits: bool = False

    async def ask(self, approval: Approval) -> Answer:
        self.asked += 1
        if self.waits:
            await anyio.sleep_forever()
        return self.answer


async def pending(world: World, action_id: str = "do.pay", parameters: object = None) -> str:
    outcome = await world.runtime.execute(world.session, action_id, parameters or {})
    assert outcome.status == "pending_approval"
    assert outcome.approval is not None
    return outcome.approval.approval_id


async def test_a_granted_approval_serves_exactly_one_call(world: World) -> None:
    approval_id = await pending(world)
    settled = world.runtime.settle_approval(approval_id, granted=True, by="ann", channel="cli")
    assert (settled.status, settled.grade) == ("granted", "local_cli")
    assert (await world.runtime.execute(world.session, "do.pay", {})).status == "success"
    granted = world.payloads("approval.granted")[-1]
    assert (granted["by"], granted["channel"], granted["grade"]) == ("ann", "cli", "local_cli")
    assert world.payloads("action.approved")[-1]["approval_id"] == approval_id
    again = await world.runtime.execute(world.session, "do.pay", {})
    assert again.status == "pending_approval"
    assert again.approval is not None
    assert again.approval.approval_id != approval_id


async def test_an_approval_does_not_serve_other_arguments_or_another_session(world: World) -> None:
    approval_id = await pending(world, parameters={"to": "ann"})
    world.runtime.settle_approval(approval_id, granted=True, by="ann")
    assert (await world.runtime.execute(world.session, "do.pay", {"to": "bob"})).status == "pending_approval"
    other = world.runtime.create_session("agent", "another goal").session_id
    assert (await world.runtime.execute(other, "do.pay", {"to": "ann"})).status == "pending_approval"
    assert (await world.runtime.execute(world.session, "do.pay", {"to": "ann"})).status == "success"


async def test_who_has_too_many_calls_waiting_is_refused_before_another_waits() -> None:
    world = make_world(max_pending_approvals=1)
    async with world.runtime:
        await pending(world, parameters={"to": "ann"})
        outcome = await world.runtime.execute(world.session, "do.pay", {"to": "bob"})
        assert outcome.fault is not None
        assert (outcome.status, outcome.fault.code) == ("denied", "too_many_pending")
        assert len(world.runtime.pending_approvals()) == 1


async def test_asking_again_while_one_is_open_names_the_same_approval(world: World) -> None:
    assert await pending(world) == await pending(world)
    assert len(world.payloads("approval.requested")) == 1
    assert len(world.runtime.pending_approvals()) == 1


async def test_a_rejected_call_is_denied_until_the_approval_expires(world: World) -> None:
    world.runtime.settle_approval(await pending(world), granted=False, by="ann", channel="cli")
    for _ in range(2):
        outcome = await world.runtime.execute(world.session, "do.pay", {})
        assert outcome.fault is not None
        assert (outcome.status, outcome.fault.code) == ("denied", "approval_rejected")
    world.clock.advance(601)
    assert (await world.runtime.execute(world.session, "do.pay", {})).status == "pending_approval"
    assert world.backend.done == []


async def test_an_expired_approval_serves_nobody(world: World) -> None:
    approval_id = await pending(world)
    world.runtime.settle_approval(approval_id, granted=True, by="ann")
    world.clock.advance(601)
    assert (await world.runtime.execute(world.session, "do.pay", {})).status == "pending_approval"
    with pytest.raises(ApprovalError) as caught:
        world.runtime.settle_approval(approval_id, granted=True, by="ann")
    assert caught.value.code == "approval_expired"


async def test_a_clock_set_back_does_not_make_a_used_approval_the_last_one(world: World) -> None:
    first = await pending(world)
    world.runtime.settle_approval(first, granted=True, by="ann")
    assert (await world.runtime.execute(world.session, "do.pay", {})).status == "success"
    world.clock.advance(-7_200)
    second = await pending(world)
    assert second != first
    assert await pending(world) == second
    world.runtime.settle_approval(second, granted=True, by="ann")
    assert (await world.runtime.execute(world.session, "do.pay", {})).status == "success"


async def test_an_approval_is_decided_once(world: World) -> None:
    approval_id = await pending(world)
    world.runtime.settle_approval(approval_id, granted=True, by="ann")
    with pytest.raises(ApprovalError) as caught:
        world.runtime.settle_approval(approval_id, granted=False, by="bob")
    assert caught.value.code == "approval_settled"
    with pytest.raises(ApprovalError) as caught:
        world.runtime.settle_approval("no-such-id", granted=True, by="ann")
    assert caught.value.code == "unknown_approval"


@pytest.mark.parametrize(
    ("answer", "status", "code", "event"),
    [
        ("granted", "success", None, "approval.granted"),
        ("rejected", "denied", "approval_rejected", "approval.rejected"),
        ("unanswered", "denied", "approval_expired", "approval.expired"),
        ("unavailable", "pending_approval", "approval_pending", "approval.requested"),
    ],
)
async def test_what_the_asked_person_answers_decides(
    world: World, answer: Answer, status: str, code: str | None, event: str
) -> None:
    person = Person(answer)
    outcome = await world.runtime.execute(world.session, "do.pay", {}, asker=person)
    assert (outcome.status, outcome.fault.code if outcome.fault else None) == (status, code)
    assert event in world.since(0)
    assert person.asked == 1
    assert bool(world.backend.done) == (status == "success")


async def test_no_answer_in_time_is_a_no() -> None:
    world = make_world(elicitation_timeout_s=0.05)
    async with world.runtime:
        outcome = await world.runtime.execute(world.session, "do.pay", {}, asker=Person("granted", waits=True))
        assert outcome.fault is not None
        assert (outcome.status, outcome.fault.code) == ("denied", "approval_expired")
        assert world.runtime.pending_approvals() == []
        assert world.backend.done == []


async def test_a_call_cancelled_while_it_waits_for_an_answer_is_closed(world: World) -> None:
    with anyio.move_on_after(0.1) as scope:
        await world.runtime.execute(world.session, "do.pay", {}, asker=Person("granted", waits=True))
    assert scope.cancelled_caught
    assert world.since(0)[-2:] == ["approval.expired", "action.denied"]
    assert world.runtime.pending_approvals() == []


async def test_an_answer_given_elsewhere_meanwhile_counts(world: World) -> None:
    @dataclass
    class Slow(Person):
        granted: bool = True

        async def ask(self, approval: Approval) -> Answer:
            world.runtime.settle_approval(approval.approval_id, granted=self.granted, by="bob", channel="cli")
            return "granted"

    assert (await world.runtime.execute(world.session, "do.pay", {}, asker=Slow("granted"))).status == "success"
    assert world.payloads("approval.granted")[-1]["by"] == "bob"
    refused = await world.runtime.execute(world.session, "do.pay", {"n": 1}, asker=Slow("granted", granted=False))
    assert refused.status == "denied"


async def test_deny_and_limits_are_asked_again_after_approval(world: World) -> None:
    person = Person("granted")
    assert (await world.runtime.execute(world.session, "do.pay_limited", {}, asker=person)).status == "success"
    outcome = await world.runtime.execute(world.session, "do.pay_limited", {"again": True}, asker=person)
    assert outcome.fault is not None
    assert outcome.fault.code == "rate_limited"


async def test_an_answer_worth_too_little_is_not_asked_for_and_does_not_count(world: World) -> None:
    person = Person("granted")
    outcome = await world.runtime.execute(world.session, "do.proven", {}, asker=person)
    assert (outcome.status, person.asked) == ("pending_approval", 0)
    assert outcome.fault is not None
    assert outcome.fault.details["min_evidence"] == "local_cli"
    assert outcome.approval is not None
    world.runtime.settle_approval(outcome.approval.approval_id, granted=True, by="program", channel="library")
    again = await world.runtime.execute(world.session, "do.proven", {}, asker=person)
    assert (again.status, person.asked) == ("pending_approval", 0)
    assert again.approval is not None
    assert again.approval.approval_id != outcome.approval.approval_id
    world.runtime.settle_approval(again.approval.approval_id, granted=True, by="ann", channel="cli")
    assert (await world.runtime.execute(world.session, "do.proven", {}, asker=person)).status == "success"


async def test_a_call_refused_by_a_spent_limit_uses_no_consent_up(world: World) -> None:
    person = Person("granted")
    await world.runtime.execute(world.session, "do.pay_limited", {"n": 1}, asker=person)
    await world.runtime.execute(world.session, "do.pay_limited", {"n": 2}, asker=person)
    assert [granted.get("used", True) for granted in world.payloads("approval.granted")] == [True, False]
    world.clock.advance(61)
    assert (await world.runtime.execute(world.session, "do.pay_limited", {"n": 2})).status == "success"
    assert person.asked == 2
    assert (await world.runtime.execute(world.session, "do.pay_limited", {"n": 2})).status == "pending_approval"


async def test_a_call_that_loses_its_approval_to_another_costs_no_limit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    approval_id = await pending(world, "do.pay_limited")
    world.runtime.settle_approval(approval_id, granted=True, by="ann")
    statuses: list[str] = []
    both, latest = threading.Barrier(2, timeout=30), world.ledger.latest

    def found_by_both(*asked: str) -> Approval | None:
        found = latest(*asked)
        both.wait()
        return found

    monkeypatch.setattr(world.ledger, "latest", found_by_both)

    async def call() -> None:
        statuses.append((await world.runtime.execute(world.session, "do.pay_limited", {})).status)

    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(call)
    assert sorted(statuses) == ["denied", "success"]
    monkeypatch.undo()
    world.clock.advance(61)
    again = await world.runtime.execute(world.session, "do.pay_limited", {}, asker=Person("granted"))
    assert again.status == "success"


async def test_of_many_calls_that_share_an_approval_one_runs(world: World) -> None:
    world.runtime.settle_approval(await pending(world), granted=True, by="ann")
    statuses: list[str] = []

    async def call() -> None:
        statuses.append((await world.runtime.execute(world.session, "do.pay", {})).status)

    async with anyio.create_task_group() as group:
        for _ in range(64):
            group.start_soon(call)
    assert statuses.count("success") == 1
    assert len(world.backend.done) == 1


async def test_what_is_asked_shows_no_sensitive_value() -> None:
    world = make_world()
    async with world.runtime:
        await world.runtime.execute(world.session, "do.pay", {"amount": 5})
        (asked,) = world.runtime.pending_approvals()
        assert asked.parameters == {"amount": 5}
        assert asked.to_dict()["status"] == "pending"


def test_two_processes_share_one_ledger(tmp_path: Path) -> None:
    def now() -> int:
        return 1_000

    server = ApprovalLedger(Database(tmp_path / "state.sqlite3", SCHEMA), now)
    terminal = ApprovalLedger(Database(tmp_path / "state.sqlite3", SCHEMA), now)
    assert ApprovalLedger(Database(tmp_path / "none.sqlite3", SCHEMA), now).pending() == []
    assert not (tmp_path / "none.sqlite3").exists()
    server.request(Approval("id-1", "s", "a", "do.pay", "h", {"n": 1}, "p", "why", "high", 1, 2_000))
    assert [approval.approval_id for approval in terminal.pending()] == ["id-1"]
    terminal.settle("id-1", granted=True, by="ann", channel="cli")
    assert server.get("id-1").status == "granted"
    assert server.consume("id-1")
    assert not terminal.consume("id-1")
    server.expire("id-1")
    assert terminal.get("id-1").status == "consumed"
    assert oct((tmp_path / "state.sqlite3").stat().st_mode)[-3:] == "600"
    server.close()
    terminal.close()
    terminal.close()


def test_state_that_can_not_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ledger = ApprovalLedger(Database(tmp_path / "file" / "state.sqlite3", SCHEMA), lambda: 0)
    with pytest.raises(StateUnavailableError) as caught:
        ledger.get("x")
    assert caught.value.code == "state_unavailable"
    assert caught.value.hint


async def test_without_state_an_approval_can_not_be_asked_for(tmp_path: Path, world: World) -> None:
    (tmp_path / "file").write_text("")
    world.runtime._gate._approving._ledger = ApprovalLedger(
        Database(tmp_path / "file" / "s.sqlite3", SCHEMA), lambda: 0
    )
    outcome = await world.runtime.execute(world.session, "do.pay", {})
    assert outcome.fault is not None
    assert outcome.fault.code == "state_unavailable"
