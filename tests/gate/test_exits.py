"""Every way a call can leave the gate: what it answers, and which events it leaves."""

from collections.abc import Sequence

import anyio
import pytest

from cra_mcp.errors import ActionError, ExecutionError, TraceUnavailableError
from cra_mcp.execution.backend import Invocation, Result
from cra_mcp.gate.call import ExecutionOutcome, Fault
from cra_mcp.gate.replays import Replays
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.model import Charge, Facts, Limit
from tests.gate.conftest import World, forever, make_world

pytestmark = pytest.mark.anyio

ASKED = ["action.requested"]
APPROVED = [*ASKED, "policy.evaluated", "action.approved"]
REFUSED = [*ASKED, "policy.evaluated", "policy.violated", "action.denied"]
INVALID = [*ASKED, "policy.violated", "action.denied"]


@pytest.mark.parametrize(
    ("action_id", "parameters", "status", "code", "events"),
    [
        ("do.plain", {}, "success", None, [*APPROVED, "action.executed"]),
        ("do.plain", None, "success", None, [*APPROVED, "action.executed"]),
        ("do.delete", {}, "denied", "denied", REFUSED),
        ("do.delete", {"anything": 1}, "denied", "denied", REFUSED),
        ("do.hidden", {}, "denied", "unknown_action", REFUSED),
        ("do.unheard_of", {}, "denied", "unknown_action", REFUSED),
        ("do.number", {"n": "x"}, "error", "invalid_parameters", INVALID),
        ("do.number", {}, "error", "invalid_parameters", INVALID),
        ("do.plain", [1], "error", "invalid_parameters", INVALID),
        ("do.plain", "text", "error", "invalid_parameters", INVALID),
        ("do.plain", {"n": float("nan")}, "error", "invalid_parameters", INVALID),
        ("do.plain", {"n": 2**60}, "error", "invalid_parameters", INVALID),
        ("do.plain", {"t": "\ud800"}, "error", "invalid_parameters", INVALID),
        ("do.plain", {"t": "x" * 1_100_000}, "error", "invalid_parameters", INVALID),
        (
            "do.pay",
            {},
            "pending_approval",
            "approval_pending",
            [*ASKED, "policy.evaluated", "approval.requested", "x.cra.call.pending"],
        ),
        ("do.nothing", {}, "error", "no_executor", [*APPROVED, "action.failed"]),
        ("do.http", {}, "error", "no_executor", [*APPROVED, "action.failed"]),
    ],
)
async def test_an_exit_answers_and_leaves_its_events(  # noqa: PLR0917
    world: World, action_id: str, parameters: object, status: str, code: str | None, events: list[str]
) -> None:
    session, before = world.session, world.count()
    outcome = await world.runtime.execute(session, action_id, parameters)
    assert (outcome.status, outcome.fault.code if outcome.fault else None) == (status, code)
    assert world.since(before) == events
    assert outcome.receipt is not None
    last = world.runtime.get_trace(session)[-1]
    assert (outcome.receipt.sequence, outcome.receipt.event_hash) == (last.sequence, last.event_hash)
    assert world.runtime.verify_chain(session).ok
    assert bool(world.backend.done) == (status == "success")


async def test_deeply_nested_parameters_are_refused(world: World) -> None:
    value: object = 1
    for _ in range(5_000):
        value = [value]
    outcome = await world.runtime.execute(world.session, "do.plain", {"v": value})
    assert outcome.fault is not None
    assert outcome.fault.code == "invalid_parameters"
    assert (await world.runtime.execute(world.session, "do.plain", {})).status == "success"


async def test_a_hidden_action_can_not_be_told_from_an_unknown_one(world: World) -> None:
    session = world.session
    before = world.count()
    hidden = await world.runtime.execute(session, "do.hidden", {"a": 1})
    middle = world.count()
    unknown = await world.runtime.execute(session, "do.hiddem", {"a": 1})
    assert hidden.fault is not None
    assert unknown.fault is not None
    assert hidden.fault.message.replace("do.hidden", "?") == unknown.fault.message.replace("do.hiddem", "?")
    assert (hidden.fault.code, hidden.fault.hint, hidden.fault.details) == (
        unknown.fault.code,
        unknown.fault.hint,
        unknown.fault.details,
    )
    assert (hidden.status, hidden.result, hidden.approval) == (unknown.status, unknown.result, unknown.approval)
    assert middle - before == world.count() - middle
    assert [p["policy_id"] for p in world.payloads("action.denied")] == ["hide", "undeclared"]


async def test_an_action_outside_the_resolution_is_unknown_in_it(world: World) -> None:
    session = world.session
    restricted = world.runtime.resolve(session)
    assert "do.plain" in restricted.outcome.members
    world.runtime.unload_atlas("com.example.gate")
    outcome = await world.runtime.execute(session, "do.plain", {}, resolution_id=restricted.resolution_id)
    assert outcome.fault is not None
    assert outcome.fault.code == "unknown_action"
    assert "atlas.unloaded" in world.since(0)


async def test_a_limit_admits_exactly_its_calls_and_says_when_the_next_may_come(world: World) -> None:
    session = world.session
    statuses = [(await world.runtime.execute(session, "do.limited", {})).status for _ in range(3)]
    assert statuses == ["success", "success", "denied"]
    refused = await world.runtime.execute(session, "do.limited", {})
    assert refused.fault is not None
    assert refused.fault.code == "rate_limited"
    assert 59 <= refused.fault.details["retry_after_seconds"] <= 60
    assert world.payloads("policy.violated")[-1]["violation_type"] == "rate_limit"
    world.clock.advance(61)
    assert (await world.runtime.execute(session, "do.limited", {})).status == "success"


async def test_a_limit_holds_under_concurrent_calls() -> None:
    world = make_world(max_concurrency=64)
    outcomes: list[str] = []

    async def call() -> None:
        outcomes.append((await world.runtime.execute(world.session, "do.limited", {})).status)

    async with world.runtime:
        assert world.session
        async with anyio.create_task_group() as group:
            for _ in range(64):
                group.start_soon(call)
        assert sorted(outcomes) == ["denied"] * 62 + ["success"] * 2
        assert len(world.backend.done) == 2
        assert world.runtime.verify_chain(world.session).ok


async def test_a_call_refused_for_its_parameters_costs_no_quota(world: World) -> None:
    for _ in range(5):
        await world.runtime.execute(world.session, "do.limited", [1])
    assert (await world.runtime.execute(world.session, "do.limited", {})).status == "success"


async def test_an_action_that_runs_out_of_time_is_ended_and_recorded(world: World) -> None:
    world.backend.behaviour["do.slow"] = forever
    outcome = await world.runtime.execute(world.session, "do.slow", {})
    assert outcome.fault is not None
    assert outcome.fault.code == "timeout"
    assert world.payloads("action.failed")[-1]["error_code"] == "timeout"


async def test_a_cancelled_call_records_its_outcome_and_passes_the_cancellation_on(world: World) -> None:
    world.backend.behaviour["do.plain"] = forever
    with anyio.move_on_after(0.05) as scope:
        await world.runtime.execute(world.session, "do.plain", {})
    assert scope.cancelled_caught
    assert world.payloads("action.failed")[-1]["error_code"] == "cancelled"
    world.backend.behaviour.clear()
    assert (await world.runtime.execute(world.session, "do.plain", {})).status == "success"


async def test_never_more_actions_run_at_once_than_configured() -> None:
    world = make_world(max_concurrency=3)
    running = most = 0

    async def behave(_: Invocation) -> Result:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.lowlevel.checkpoint()
        running -= 1
        return Result(value=1)

    world.backend.behaviour["do.plain"] = behave
    async with world.runtime, anyio.create_task_group() as group:
        assert world.session
        for _ in range(20):
            group.start_soon(world.runtime.execute, world.session, "do.plain", {})
    assert most == 3


async def test_a_call_that_finds_no_place_in_time_is_busy() -> None:
    world = make_world(max_concurrency=1)
    world.backend.behaviour["do.plain"] = forever
    async with world.runtime:
        assert world.session
        async with anyio.create_task_group() as group:
            group.start_soon(world.runtime.execute, world.session, "do.plain", {})
            while not world.backend.done:
                await anyio.lowlevel.checkpoint()
            outcome = await world.runtime.execute(world.session, "do.slow", {})
            assert outcome.fault is not None
            assert outcome.fault.code == "busy"
            group.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ExecutionError("upstream_lost", "the upstream went away"), "upstream_lost", "the upstream went away"),
        (RuntimeError("password=hunter2 in /etc/secret"), "execution_failed", "the action failed (RuntimeError)"),
        (ActionError("no such ticket"), "execution_failed", "the action failed (ActionError)"),
    ],
)
async def test_what_an_action_raises_becomes_a_fault_without_foreign_text(
    world: World, error: Exception, code: str, text: str
) -> None:
    async def behave(_: Invocation) -> Result:
        raise error

    world.backend.behaviour["do.plain"] = behave
    outcome = await world.runtime.execute(world.session, "do.plain", {})
    assert outcome.fault is not None
    assert (outcome.status, outcome.fault.code, outcome.fault.message) == ("error", code, text)
    assert all(b"hunter2" not in line for line in world.runtime.read_trace(world.session))


async def test_what_a_back_end_finds_wrong_with_arguments_is_located(world: World) -> None:
    async def behave(_: Invocation) -> Result:
        raise ExecutionError("invalid_parameters", "it takes no such argument", faults=[("/x", "is not taken")])

    world.backend.behaviour["do.plain"] = behave
    outcome = await world.runtime.execute(world.session, "do.plain", {})
    assert outcome.fault is not None
    assert outcome.fault.details == {"faults": [{"pointer": "/x", "message": "is not taken"}]}


async def test_a_tool_error_stays_one_and_what_it_says_is_handed_on(world: World) -> None:
    async def behave(_: Invocation) -> Result:
        return Result(value=None, content=({"type": "text", "text": "no such file"},), is_error=True)

    world.backend.behaviour["do.typed"] = behave
    outcome = await world.runtime.execute(world.session, "do.typed", {})
    assert outcome.fault is not None
    assert outcome.result is not None
    assert (outcome.status, outcome.fault.code) == ("error", "tool_error")
    assert outcome.result.content == ({"type": "text", "text": "no such file"},)


async def test_a_result_that_breaks_its_schema_is_withheld(world: World) -> None:
    outcome = await world.runtime.execute(world.session, "do.typed", {})
    assert outcome.fault is not None
    assert (outcome.fault.code, outcome.result) == ("invalid_result", None)


async def test_a_result_that_fits_its_schema_is_handed_on(world: World) -> None:
    async def behave(_: Invocation) -> Result:
        return Result(value={"x": 1})

    world.backend.behaviour["do.typed"] = behave
    assert (await world.runtime.execute(world.session, "do.typed", {})).value == {"x": 1}


async def test_a_result_over_the_cap_is_cut_with_a_marker_or_withheld_where_it_has_a_schema() -> None:
    world = make_world(max_result_bytes=1_000)

    async def behave(_: Invocation) -> Result:
        return Result(value={"x": "y" * 5_000})

    world.backend.behaviour |= {"do.plain": behave, "do.typed": behave}
    async with world.runtime:
        cut = await world.runtime.execute(world.session, "do.plain", {})
        assert cut.result is not None
        assert cut.result.content is not None
        assert str(cut.result.content[-1]["text"]).startswith("[cra: result cut: 5008 bytes, the limit is 1000")
        assert world.payloads("action.executed")[-1]["result_cut"] is True
        withheld = await world.runtime.execute(world.session, "do.typed", {})
        assert withheld.fault is not None
        assert withheld.fault.code == "output_too_large"


async def test_nothing_runs_that_is_not_recorded_first(world: World) -> None:
    assert world.session
    world.store.fail_from = world.store.appends + 1
    outcome = await world.runtime.execute(world.session, "do.plain", {})
    assert outcome.fault is not None
    assert (outcome.status, outcome.fault.code, outcome.receipt) == ("error", "trace_unavailable", None)
    assert outcome.fault.hint
    assert world.backend.done == []
    world.store.fail_from = None
    assert (await world.runtime.execute(world.session, "do.plain", {})).status == "success"


@pytest.mark.parametrize("action_id", ["do.delete", "do.hidden", "do.unheard_of", "do.pay"])
async def test_a_refusal_that_can_not_be_recorded_says_so(world: World, action_id: str) -> None:
    assert world.session
    world.store.fail_from = world.store.appends + 1
    outcome = await world.runtime.execute(world.session, action_id, {})
    assert outcome.fault is not None
    assert outcome.fault.code == "trace_unavailable"


async def test_quota_of_a_call_that_could_not_be_recorded_is_given_back(world: World) -> None:
    assert world.session
    for _ in range(5):
        world.store.fail_from = world.store.appends + 1
        await world.runtime.execute(world.session, "do.limited", {})
    world.store.fail_from = None
    statuses = [(await world.runtime.execute(world.session, "do.limited", {})).status for _ in range(3)]
    assert statuses == ["success", "success", "denied"]


@pytest.mark.parametrize("failing", [False, True])
async def test_an_outcome_that_can_not_be_recorded_is_withheld(world: World, failing: bool) -> None:
    async def behave(_: Invocation) -> Result:
        world.store.fail_from = 0
        if failing:
            raise ExecutionError("upstream_lost", "gone")
        return Result(value="the result")

    world.backend.behaviour["do.plain"] = behave
    outcome = await world.runtime.execute(world.session, "do.plain", {})
    world.store.fail_from = None
    assert outcome.fault is not None
    assert (outcome.status, outcome.fault.code, outcome.result) == ("error", "trace_unavailable", None)
    assert "carried out" in outcome.fault.message


async def test_high_risk_and_approved_calls_are_on_disk_before_they_run(world: World) -> None:
    assert world.session
    world.store.durable.clear()
    await world.runtime.execute(world.session, "do.plain", {})
    assert world.store.durable == [False, False]
    world.store.durable.clear()
    await world.runtime.execute(world.session, "do.critical", {})
    assert world.store.durable == [True, False]


async def test_progress_of_an_action_reaches_the_caller(world: World) -> None:
    seen: list[tuple[float, float | None, str | None]] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        seen.append((done, total, message))

    async def behave(invocation: Invocation) -> Result:
        assert invocation.on_progress is not None
        await invocation.on_progress(1, 2, "half")
        return Result()

    world.backend.behaviour["do.plain"] = behave
    await world.runtime.execute(world.session, "do.plain", {}, on_progress=on_progress)
    assert seen == [(1, 2, "half")]


async def test_a_call_that_loses_the_last_of_a_limit_to_another_is_refused() -> None:
    class Contended(Counters):
        """Somebody else's calls come between deciding and charging, once."""

        stolen = False

        def take(self, limits: Sequence[Limit], facts: Facts, now_us: int, charges: Sequence[Charge] = ()) -> bool:
            if limits and not self.stolen:
                self.stolen = True
                assert super().take(limits, facts, now_us)
                assert super().take(limits, facts, now_us)
            return super().take(limits, facts, now_us, charges)

    world = make_world(counters=Contended())
    async with world.runtime:
        outcome = await world.runtime.execute(world.session, "do.limited", {})
        assert outcome.fault is not None
        assert outcome.fault.code == "rate_limited"
        assert world.backend.done == []


async def test_unloading_forgets_what_was_known_of_an_atlas(world: World) -> None:
    await world.runtime.execute(world.session, "do.plain", {})
    assert world.runtime._gate._bindings._known
    world.runtime.unload_atlas("com.example.gate")
    assert not world.runtime._gate._bindings._known


def test_a_fault_without_hint_and_details_is_a_message_too() -> None:
    fault = Fault("cancelled", "the caller cancelled the call")
    outcome = ExecutionOutcome("error", "a", "e", "r", None, "t", "now", None, fault=fault)
    assert outcome.to_dict()["error"] == {"code": "cancelled", "message": fault.message, "details": {}}
    content = Result(value=1, content=({"type": "text", "text": "x"},))
    done = ExecutionOutcome("success", "a", "e", "r", None, "t", "now", None, result=content)
    assert done.to_dict()["result"] == {"content": [{"type": "text", "text": "x"}], "structured": 1}


def test_old_idempotency_keys_are_forgotten() -> None:
    outcome = ExecutionOutcome("success", "a", "e", "r", None, "t", "now", None)
    replays = Replays()
    for number in range(10_001):
        assert replays.claim(str(number), "f") is None
        replays.settle(str(number), outcome)
    assert replays.claim("0", "f") is None
    assert replays.claim("10000", "f") is outcome


def test_the_fault_of_a_full_store_keeps_its_code() -> None:
    assert TraceUnavailableError("x").code == "trace_unavailable"
