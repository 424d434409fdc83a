"""For every way a call can end there is exactly one event that says so."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from cra_mcp.approval.model import Answer, Approval, Channel
from cra_mcp.atlas.loader import load_atlas_text
from cra_mcp.atlas.model import Atlas
from cra_mcp.errors import ActionError
from cra_mcp.execution.backend import Invocation, Result
from cra_mcp.gate.attempt import OUTCOMES
from cra_mcp.policy.counters import Counters
from cra_mcp.replay.again import replay
from cra_mcp.replay.library import Library
from cra_mcp.replay.reading import read_session
from cra_mcp.state.database import StateUnavailableError
from cra_mcp.trace.telling import tell
from tests.gate.conftest import ATLAS, World, forever, make_world

pytestmark = pytest.mark.anyio
PATIENCE_S = 20


@dataclass
class Person:
    """Says what it is to say; without that, nothing for ever."""

    says: Answer | Exception | None = None
    channel: Channel = "elicitation"
    asked: anyio.Event = field(default_factory=anyio.Event)

    async def ask(self, approval: Approval) -> Answer:
        self.asked.set()
        if isinstance(self.says, Exception):
            raise self.says
        if self.says is None:
            await anyio.sleep_forever()
            raise AssertionError
        return self.says


async def cancelled(world: World, action_id: str, began: Callable[[], Awaitable[object]], **more: Any) -> None:
    """Make a call, and give it up once it has got somewhere."""
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:

            async def call() -> None:
                await world.runtime.execute(world.session, action_id, {}, **more)

            group.start_soon(call)
            await began()
            group.cancel_scope.cancel()


async def calls_under_way(world: World) -> None:
    while not world.backend.done:
        await anyio.sleep(0.001)


async def fails(_: Invocation) -> Result:
    raise RuntimeError("password=hunter2")


async def refuses(_: Invocation) -> Result:
    raise ActionError("no")


async def reports(_: Invocation) -> Result:
    return Result(value={}, is_error=True)


def down(*_: object, **__: object) -> Any:
    raise StateUnavailableError("the state can't be read")


Ends = Callable[[World], Awaitable[None]]


def once(action_id: str, parameters: object = None, **more: Any) -> Ends:
    async def end(world: World) -> None:
        await world.runtime.execute(world.session, action_id, {} if parameters is None else parameters, **more)

    return end


def behaving(action_id: str, behave: Callable[[Invocation], Awaitable[Result]]) -> Ends:
    async def end(world: World) -> None:
        world.backend.behaviour[action_id] = behave
        await world.runtime.execute(world.session, action_id, {})

    return end


async def limited(world: World) -> None:
    for _ in range(3):
        await world.runtime.execute(world.session, "do.limited", {})


async def frozen(world: World) -> None:
    world.runtime.freeze("all")
    await world.runtime.execute(world.session, "do.plain", {})


async def pending_and_repeated(world: World) -> None:
    for _ in range(3):
        await world.runtime.execute(world.session, "do.pay", {})


async def pending_and_settled(world: World) -> None:
    for granted in (True, False):
        asked = (await world.runtime.execute(world.session, "do.pay", {"n": granted})).approval
        assert asked is not None
        world.runtime.settle_approval(asked.approval_id, granted=granted, by="zoe")
        await world.runtime.execute(world.session, "do.pay", {"n": granted})
        await world.runtime.execute(world.session, "do.pay", {"n": granted})


async def crowded(world: World) -> None:
    for number in range(4):
        await world.runtime.execute(world.session, "do.pay", {"n": number})


async def weakly_granted(world: World) -> None:
    await world.runtime.execute(world.session, "do.proven", {}, asker=Person("granted"))
    await world.runtime.execute(world.session, "do.proven", {})


async def cancelled_while_it_ran(world: World) -> None:
    world.backend.behaviour["do.plain"] = forever
    await cancelled(world, "do.plain", lambda: calls_under_way(world))


async def cancelled_while_it_was_asked(world: World) -> None:
    person = Person()
    await cancelled(world, "do.pay", person.asked.wait, asker=person)


async def cancelled_while_it_was_asked_and_the_state_was_gone(world: World) -> None:
    person = Person()

    async def gone() -> None:
        await person.asked.wait()
        world.ledger.expire = down  # type: ignore[method-assign]

    await cancelled(world, "do.pay", gone, asker=person)


async def cancelled_while_its_credential_was_checked(world: World) -> None:
    checking = anyio.Event()

    async def recheck() -> None:
        checking.set()
        await anyio.sleep_forever()

    await cancelled(world, "do.pay", checking.wait, asker=Person("granted"), recheck=recheck)


async def cancelled_in_the_queue(world: World) -> None:
    world.backend.behaviour["do.plain"] = forever
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(world.runtime.execute, world.session, "do.plain", {})
            while len(world.payloads("action.approved")) < 2:
                await anyio.sleep(0.001)
            group.cancel_scope.cancel()


async def credential_lost(world: World) -> None:
    async def recheck() -> None:
        return None

    await world.runtime.execute(world.session, "do.pay", {}, asker=Person("granted"), recheck=recheck)


def without(name: str, action_id: str, **more: Any) -> Ends:
    """The state that processes share fails when it is asked this."""

    async def end(world: World) -> None:
        _ = world.session
        setattr(world.ledger, name, down)
        outcome = await world.runtime.execute(world.session, action_id, {}, **more)
        assert outcome.fault is not None
        assert (outcome.status, outcome.fault.code) == ("error", "state_unavailable")

    return end


class Failing(Counters):
    """Counters that can be told to fail."""

    broken = False

    def take(self, *arguments: Any, **more: Any) -> bool:
        return down() if self.broken else super().take(*arguments, **more)


async def counters_down(world: World) -> None:
    world.runtime._gate._counters.broken = True  # type: ignore[attr-defined]
    await world.runtime.execute(world.session, "do.limited", {})


WAYS: dict[str, Ends] = {
    "carried out": once("do.plain"),
    "an exception": behaving("do.plain", fails),
    "the action's own refusal": behaving("do.plain", refuses),
    "the tool reports an error": behaving("do.plain", reports),
    "timeout": behaving("do.slow", forever),
    "a result that does not fit": once("do.typed"),
    "no executor": once("do.nothing"),
    "no back end": once("do.http"),
    "denied": once("do.delete"),
    "hidden": once("do.hidden"),
    "unknown": once("do.unheard_of"),
    "unknown, and no text": once("\ud800" * 300),
    "parameters that do not fit": once("do.number", {"n": "x"}),
    "parameters of no form": once("do.number", ["x"]),
    "parameters without a canonical form": once("do.plain", {"x": float("nan")}),
    "parameters with half a surrogate pair": once("do.plain", {"x": [{"y": "\ud800"}]}),
    "parameters with an integer too large": once("do.plain", {"x": 2**53}),
    "a name that is half a surrogate pair": once("do.plain", {"\ud800": 1}),
    "a spent limit": limited,
    "frozen": frozen,
    "pending": once("do.pay"),
    "pending, repeated": pending_and_repeated,
    "pending, settled, repeated": pending_and_settled,
    "too many pending": crowded,
    "a form granted": once("do.pay", asker=Person("granted")),
    "a form declined": once("do.pay", asker=Person("rejected")),
    "a form cancelled": once("do.pay", asker=Person("unavailable")),
    "a form nobody answers": once("do.pay", asker=Person("unanswered")),
    "a form that takes too long": once("do.pay", asker=Person()),
    "a form that fails": once("do.pay", asker=Person(RuntimeError("x"))),
    "an answer worth too little": weakly_granted,
    "cancelled while it ran": cancelled_while_it_ran,
    "cancelled while it was asked": cancelled_while_it_was_asked,
    "cancelled while it was asked, without state": cancelled_while_it_was_asked_and_the_state_was_gone,
    "cancelled while its credential was checked": cancelled_while_its_credential_was_checked,
    "cancelled in the queue": cancelled_in_the_queue,
    "its credential lost": credential_lost,
    "no state to look for consent": without("latest", "do.pay"),
    "no state to ask for consent": without("request", "do.pay"),
    "no state to use consent up": without("consume", "do.pay", asker=Person("granted")),
    "no state to count": counters_down,
}


class Source:
    def __init__(self) -> None:
        self._atlas = load_atlas_text(json.dumps(ATLAS))

    def load(self, digest: str) -> Atlas | None:
        return self._atlas if digest == self._atlas.digest else None

    def load_overlay(self, digest: str) -> None:
        return None


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_a_call_can_end_leaves_exactly_one_outcome(way: str) -> None:
    world = make_world(counters=Failing(), elicitation_timeout_s=0.2, max_concurrency=1, max_pending_approvals=2)
    async with world.runtime:
        session = world.session
        await WAYS[way](world)
        events = world.runtime.get_trace(session)
        calls = [event.span_id for event in events if event.event_type == "action.requested"]
        assert calls
        ends = [event.span_id for event in events if event.event_type in OUTCOMES]
        assert sorted(ends) == sorted(calls), [event.event_type for event in events]
        last = {event.span_id: event.event_type for event in events}
        assert {last[span] for span in calls} <= OUTCOMES, "and it is the last that is said of the call"
        story = tell(world.runtime.read_trace(session))
        assert "undecided" not in story.fates
        assert "hunter2" not in repr(events)
        found = replay(read_session(world.runtime.read_trace(session)), Library(Source()))
        assert found.ok, found.to_dict()


async def test_a_pending_call_names_its_approval_each_time(world: World) -> None:
    for _ in range(2):
        outcome = await world.runtime.execute(world.session, "do.pay", {})
        assert outcome.approval is not None
        assert outcome.receipt is not None
        last = world.runtime.get_trace(world.session)[-1]
        assert (last.event_type, last.sequence) == ("x.cra.call.pending", outcome.receipt.sequence)
        assert last.payload == {"action_id": "do.pay", "approval_id": outcome.approval.approval_id}


async def test_what_cannot_be_recorded_at_all_is_said_without_a_receipt(world: World) -> None:
    _ = world.session
    world.ledger.latest = down  # type: ignore[method-assign]
    world.store.fail_from = world.store.appends + 1
    outcome = await world.runtime.execute(world.session, "do.pay", {})
    assert outcome.fault is not None
    assert (outcome.status, outcome.fault.code, outcome.receipt) == ("error", "state_unavailable", None)
