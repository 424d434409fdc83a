"""A runtime around real parts: memory store, real back ends written here as small Python objects, real ledger."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import anyio
import pytest

from cra_mcp.approval.ledger import SCHEMA, ApprovalLedger
from cra_mcp.atlas.model import Action, Atlas
from cra_mcp.atlas.registry import Catalogue
from cra_mcp.errors import TraceUnavailableError
from cra_mcp.execution.backend import BoundAction, Invocation, Result
from cra_mcp.gate.binding import Bindings
from cra_mcp.gate.gate import Gate
from cra_mcp.policy.counters import Counters
from cra_mcp.runtime import Runtime
from cra_mcp.settings import RuntimeConfig
from cra_mcp.state.database import Database
from cra_mcp.trace.event import Draft, Head
from cra_mcp.trace.memory import MemoryStore


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class ScriptedBackend:
    """A back end of its own kind: actions do what the test says, and what was done is kept."""

    executor_type = "python"

    def __init__(self) -> None:
        self.done: list[Invocation] = []
        self.bound: list[str] = []
        self.closed = False
        self.behaviour: dict[str, Callable[[Invocation], Awaitable[Result]]] = {}

    def bind(self, action: Action, atlas: Atlas) -> BoundAction:
        self.bound.append(action.action_id)

        async def run(invocation: Invocation) -> Result:
            self.done.append(invocation)
            behave = self.behaviour.get(action.action_id)
            return Result(value={"ok": True}) if behave is None else await behave(invocation)

        return run

    async def aclose(self) -> None:
        self.closed = True


class FailingStore(MemoryStore):
    """A store whose disk is full from the n-th append on, until it is told otherwise."""

    fail_from: int | None = None
    appends = 0

    def append(self, session_id: str, drafts: Sequence[Draft], *, durable: bool = False) -> Head:
        self.appends += 1
        self.durable.append(durable)
        if self.fail_from is not None and self.appends >= self.fail_from:
            raise TraceUnavailableError("no space left on device", hint="free some space")
        return super().append(session_id, drafts, durable=durable)

    durable: list[bool]


@dataclass
class Clock:
    """Wall clock of a test, nanoseconds."""

    now_ns: int = 1_800_000_000_000_000_000

    def __call__(self) -> int:
        self.now_ns += 1_000
        return self.now_ns

    def advance(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1_000_000_000)


@dataclass
class World:
    """Everything of one test."""

    runtime: Runtime
    store: FailingStore
    backend: ScriptedBackend
    ledger: ApprovalLedger
    clock: Clock
    config: RuntimeConfig
    sessions: list[str] = field(default_factory=list)

    @property
    def session(self) -> str:
        if not self.sessions:
            self.sessions.append(self.runtime.create_session("agent", "a goal").session_id)
            self.runtime.resolve(self.sessions[0])
        return self.sessions[0]

    def since(self, before: int) -> list[str]:
        return [event.event_type for event in self.runtime.get_trace(self.session)][before:]

    def count(self) -> int:
        return len(self.runtime.get_trace(self.session))

    def payloads(self, event_type: str) -> list[dict]:
        return [dict(e.payload) for e in self.runtime.get_trace(self.session) if e.event_type == event_type]


def action(action_id: str, **more: object) -> dict:
    return {
        "action_id": action_id,
        "name": action_id,
        "description": "does something",
        "parameters_schema": {"type": "object"},
        "executor": {"type": "python", "callable": "m:f"},
        **more,
    }


NUMBER = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "secret": {"type": "string", "x-cra-sensitive": True}},
    "required": ["n"],
    "additionalProperties": False,
}

ATLAS = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.gate",
    "version": "1.0.0",
    "name": "Gate",
    "description": "For the gate's tests.",
    "actions": [
        action("do.plain"),
        action("do.number", parameters_schema=NUMBER),
        action("do.limited"),
        action("do.delete"),
        action("do.hidden"),
        action("do.pay", risk_tier="high"),
        action("do.pay_limited"),
        action("do.proven"),
        action("do.critical", risk_tier="critical"),
        action("do.slow", timeout_seconds=1),
        action("do.http", executor={"type": "http", "method": "GET", "url": "https://example.com/"}),
        action("do.typed", returns_schema={"type": "object", "required": ["x"]}),
        {key: value for key, value in action("do.nothing").items() if key != "executor"},
    ],
    "policies": [
        {"policy_id": "no-delete", "type": "deny", "actions": ["*.delete"], "reason": "never"},
        {"policy_id": "hide", "type": "deny", "actions": ["do.hidden"], "reason": "secret", "disclose": False},
        {"policy_id": "ask", "type": "require_approval", "actions": ["do.pay*"], "reason": "money"},
        {
            "policy_id": "proof",
            "type": "require_approval",
            "actions": ["do.proven"],
            "parameters": {"min_evidence": "local_cli"},
        },
        {
            "policy_id": "some-proof",
            "type": "require_approval",
            "actions": ["do.proven"],
            "parameters": {"min_evidence": "application"},
        },
        {
            "policy_id": "limit",
            "type": "rate_limit",
            "actions": ["do.limited"],
            "parameters": {"max_calls": 2, "window_seconds": 60},
        },
        {
            "policy_id": "limit-pay",
            "type": "rate_limit",
            "actions": ["do.pay_limited"],
            "parameters": {"max_calls": 1, "window_seconds": 60},
        },
    ],
}


def make_world(*, counters: Counters | None = None, **settings: object) -> World:
    clock = Clock()
    config = RuntimeConfig(store="memory", clock_ns=clock, **settings)
    store = FailingStore(clock_ns=clock, new_id=config.new_id)
    store.durable = []
    ledger = ApprovalLedger(Database(None, SCHEMA), lambda: clock() // 1_000)
    backend = ScriptedBackend()
    gate = Gate(
        catalogue=Catalogue(),
        bindings=Bindings({"python": backend}),
        store=store,
        counters=counters if counters is not None else Counters(),
        ledger=ledger,
        config=config,
    )
    runtime = Runtime(config=config, store=store, ledger=ledger, gate=gate)
    runtime.load_atlas_from_json(json.dumps(ATLAS))
    return World(runtime, store, backend, ledger, clock, config)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = make_world()
    async with made.runtime:
        yield made
    assert made.backend.closed


async def forever(_: Invocation) -> Result:
    await anyio.sleep_forever()
    raise AssertionError
