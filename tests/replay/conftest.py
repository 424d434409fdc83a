"""Sessions made at random by a real runtime with a clock of the test's."""

import copy
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

from cra_mcp.approval.model import Answer, Approval
from cra_mcp.atlas.loader import load_atlas_text
from cra_mcp.atlas.model import Atlas
from cra_mcp.atlas.overlay import Overlay
from cra_mcp.auth.principal import Principal
from cra_mcp.compose import CRARuntime
from cra_mcp.errors import RequestError
from cra_mcp.settings import Mode, RuntimeConfig, new_uuid7
from cra_mcp.trace.event import format_timestamp
from tests.policy import oracle as literal

NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
HOUR_S = 3_600


def _action(action_id: str, **more: object) -> dict:
    return {
        "action_id": action_id,
        "name": "n",
        "description": "d",
        "parameters_schema": NUMBER,
        **more,
    }


def _policy(policy_id: str, kind: str, *actions: str, **more: object) -> dict:
    return {"policy_id": policy_id, "type": kind, "actions": list(actions), **more}


def _limit(policy_id: str, scope: str, calls: int, *actions: str) -> dict:
    parameters = {"max_calls": calls, "window_seconds": 60, "scope": scope}
    return _policy(policy_id, "rate_limit", *actions, parameters=parameters)


FIRST: dict = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.first",
    "version": "1.0.0",
    "name": "First",
    "description": "Every type of policy.",
    "capabilities": [
        {
            "capability_id": "read",
            "name": "r",
            "description": "d",
            "actions": ["doc.read", "doc.list"],
            "context_packs": ["p"],
        }
    ],
    "context_packs": [
        {"pack_id": "p", "name": "P", "content": "text", "keywords": ["refund"]},
        {"pack_id": "q", "name": "Q", "content": "more", "conditions": {"context_matches": {"team": "red"}}},
    ],
    "actions": [
        _action("doc.read"),
        _action("doc.list"),
        _action("doc.write", risk_tier="medium"),
        _action("doc.delete", risk_tier="high"),
        _action("doc.secret"),
        _action("pay.small", risk_tier="high"),
        _action("pay.large", risk_tier="critical"),
    ],
    "policies": [
        _policy("read-all", "allow", "doc.read", "doc.list"),
        _policy("write-red", "allow", "doc.write", conditions={"context_matches": {"team": "red"}}),
        _policy("office-hours", "allow", "doc.*", conditions={"time_window": {"start": "09:00", "end": "17:00"}}),
        _policy("hide", "deny", "doc.secret", disclose=False),
        _policy(
            "no-night-delete", "deny", "doc.delete", conditions={"time_window": {"start": "22:00", "end": "06:00"}}
        ),
        _policy("ask", "require_approval", "pay.*", reason="money"),
        _policy("ask-critical", "require_approval", "*", conditions={"risk_tiers": ["critical"]}),
        _policy("only-bots", "deny", "pay.large", conditions={"agents": ["guest*"]}),
        _limit("slow", "session", 2, "doc.read"),
        _limit("slow-pay", "session", 1, "pay.*"),
        _limit("slow-agent", "agent", 3, "doc.list"),
    ],
}
# What reads arguments and adds up costs; the literal specification is given the simpler policies.
ARGUED: dict = {
    **FIRST,
    "policies": [
        *FIRST["policies"],
        _policy("no-two", "deny", "doc.write", when="has(args.n) && args.n == 2"),
        _policy(
            "ask-one",
            "require_approval",
            "doc.list",
            conditions={"arguments": {"required": ["n"], "properties": {"n": {"const": 1}}}},
        ),
        _policy(
            "purse",
            "budget",
            "doc.*",
            parameters={"max_cost": 4, "unit": "calls", "window_seconds": 30, "scope": "session"},
        ),
        _policy("hour", "deny", "doc.read", when="now.getMinutes() == 0"),
    ],
}
OPERATOR = {
    "overlay_id": "operator",
    "default_effect": "allow",
    "policies": [
        _policy("watch-writes", "require_approval", "doc.write"),
        _policy("no-large", "deny", "pay.*", when="has(args.n) && args.n > 1"),
    ],
}

SECOND: dict = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.second",
    "version": "1.0.0",
    "name": "Second",
    "description": "Comes and goes.",
    "actions": [_action("mail.send"), _action("mail.read")],
    "policies": [_policy("no-send", "deny", "mail.send", conditions={"roles": ["agent"]})],
}

ACTIONS = (
    "doc.read",
    "doc.list",
    "doc.write",
    "doc.delete",
    "doc.secret",
    "pay.small",
    "pay.large",
    "mail.send",
    "mail.read",
    "no.such",
)


@dataclass
class Clock:
    now_ns: int

    def __call__(self) -> int:
        self.now_ns += 1_000
        return self.now_ns


@dataclass
class Person:
    answer: Answer
    channel: str = "elicitation"

    async def ask(self, approval: Approval) -> Answer:
        return self.answer


@dataclass
class History:
    """Traces of one runtime, and the atlases they name."""

    traces: dict[str, list[bytes]] = field(default_factory=dict)
    atlases: dict[str, Atlas] = field(default_factory=dict)

    overlays: dict[str, Overlay] = field(default_factory=dict)

    def load(self, digest: str) -> Atlas | None:
        return self.atlases.get(digest)

    def load_overlay(self, digest: str) -> Overlay | None:
        return self.overlays.get(digest)


@dataclass
class Only:
    """A source that has one atlas, or none, for every digest; and the overlays of a history."""

    atlas: Atlas | None
    history: History = field(default_factory=History)

    def load(self, digest: str) -> Atlas | None:
        return self.atlas

    def load_overlay(self, digest: str) -> Overlay | None:
        return self.history.load_overlay(digest)


def load(manifest: dict) -> Atlas:
    return load_atlas_text(json.dumps(manifest))


def revised(manifest: dict, drop: Iterable[str] = (), add: Sequence[dict] = ()) -> Atlas:
    """An atlas with other policies."""
    changed = copy.deepcopy(manifest)
    changed["policies"] = [policy for policy in changed["policies"] if policy["policy_id"] not in drop] + list(add)
    changed["version"] = "2.0.0"
    return load(changed)


class Maker:
    """Makes histories of random sessions."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = random.Random(seed)
        self.clock = Clock(1_767_600_000_000_000_000 + self.random.randrange(86_400) * 1_000_000_000)
        self.folder = folder
        self.history = History()
        self.plain = False
        self.refused: set[str] = set()

    def make(
        self, sessions: int, steps: int, *, live: bool = True, plain: bool = False, mode: Mode = "enforce"
    ) -> History:
        """``plain``: nothing but calls, so that every call has the facts of its session."""
        self.plain = plain
        config = RuntimeConfig(store="memory", clock_ns=self.clock, new_id=new_uuid7, mode=mode)
        with CRARuntime(config) as runtime:
            self._load(runtime, FIRST if plain else ARGUED)
            if not plain and self.random.random() < 0.5:
                self._govern(runtime)
            open_sessions = [self._begin(runtime) for _ in range(sessions)]
            for _ in range(steps * sessions):
                if live and self.random.random() < 0.02:
                    self._change_atlases(runtime)
                self._step(runtime, self.random.choice(open_sessions))
            for session_id in open_sessions:
                runtime.end_session(session_id)
                self.history.traces[session_id] = runtime.read_trace(session_id)
        return self.history

    def _load(self, runtime: CRARuntime, manifest: dict) -> None:
        runtime.load_atlas_from_json(json.dumps(manifest))
        self._remember(runtime)

    def _govern(self, runtime: CRARuntime) -> None:
        path = self.folder / "operator.json"
        path.write_text(json.dumps(OPERATOR))
        runtime.load_policy_file(path)
        self._remember(runtime)

    def _govern_otherwise(self, runtime: CRARuntime) -> None:
        now = runtime.overlays()[0].overlay_id
        path = self.folder / "operator.json"
        policies = self.random.sample(OPERATOR["policies"], self.random.randrange(3))
        path.write_text(
            json.dumps({**OPERATOR, "overlay_id": self.random.choice(("operator", "owner")), "policies": policies})
        )
        runtime.replace_overlay(now, path)

    def _remember(self, runtime: CRARuntime) -> None:
        # Loaded anew: those of the runtime are compiled together with its overlays.
        for atlas in runtime.atlases():
            self.history.atlases.setdefault(atlas.digest, atlas)
        self.history.overlays.update({overlay.digest: overlay for overlay in runtime.overlays()})

    def _begin(self, runtime: CRARuntime) -> str:
        principal = None
        if self.random.random() < 0.3:
            principal = Principal("ann", "acme", frozenset({"agent", "auditor"}), agent_id="bot-7")
        return runtime.create_session(
            None if principal is not None else self.random.choice(("bot-1", "guest-2")),
            self.random.choice(("", "refund an order")),
            risk_tier=self.random.choice(("low", "low", "high", "critical")),
            context=self.random.choice(({}, {"team": "red"}, {"team": "blue"})),
            principal=principal,
        ).session_id

    def _change_atlases(self, runtime: CRARuntime) -> None:
        loaded = {info.atlas_id for info in runtime.list_atlases()}
        if not runtime.overlays() and self.random.random() < 0.2:
            self._govern(runtime)
        elif runtime.overlays() and self.random.random() < 0.4:
            self._govern_otherwise(runtime)
        elif "com.example.second" not in loaded:
            self._load(runtime, SECOND)
        elif self.random.random() < 0.5:
            runtime.unload_atlas("com.example.second")
        else:
            changed = copy.deepcopy(ARGUED)
            self.random.shuffle(changed["policies"])
            changed["policies"] = changed["policies"][: self.random.randrange(4, 12)]
            path = self.folder / f"{self.random.randrange(10**9)}.json"
            path.write_text(json.dumps(changed))
            runtime.replace_atlas("com.example.first", path)
        self._remember(runtime)

    def _step(self, runtime: CRARuntime, session_id: str) -> None:
        seconds = HOUR_S if self.random.random() < 0.03 else self.random.choice((0, 0, 0.5, 3))
        self.clock.now_ns += int(seconds * 1_000_000_000)
        if self.random.random() < 0.25 and not self.plain:
            self._resolve(runtime, session_id)
            return
        action_id = self.random.choice(ACTIONS)
        parameters = self.random.choice(({}, {"n": 1}, {"n": 2}, {"n": "x"}, {"more": 1}, ["no object"], None))
        person = self.random.choice((None, Person("granted"), Person("rejected"), Person("unanswered")))
        runtime.execute_blocking(session_id, action_id, parameters, asker=person)
        pending = runtime.pending_approvals()
        if pending and self.random.random() < 0.5:
            approval = self.random.choice(pending)
            runtime.settle_approval(approval.approval_id, granted=self.random.random() < 0.7, by="ann")

    def _resolve(self, runtime: CRARuntime, session_id: str) -> None:
        session = runtime.get_session(session_id)
        assert session is not None
        try:
            if self.random.random() < 0.3:
                runtime.resolve(session_id, self._message(session_id, session.agent_id))
            else:
                runtime.resolve(
                    session_id,
                    goal=self.random.choice((None, "refund", "list documents")),
                    required_capabilities=self.random.choice(((), (), ("read",), ("nonsense",))),
                    atlas_ids=self.random.choice(((), (), ("com.example.first",), ("com.example.nowhere",))),
                    context_hints=self.random.choice(((), ("refund",))),
                )
        except RequestError as error:
            self.refused.add(error.code)

    def _message(self, session_id: str, agent_id: str) -> dict:
        return {
            "carp_version": "1.0",
            "request_id": new_uuid7(),
            "timestamp": format_timestamp(self.clock()),
            "operation": "resolve",
            "requester": {"agent_id": agent_id, "session_id": session_id},
            "task": {"goal": "g", "risk_tier": self.random.choice(("low", "critical"))},
            "context": self.random.choice(({}, {"team": "red"}, {"extra": 1})),
        }


@pytest.fixture(scope="session")
def oracle() -> ModuleType:
    """The specification of policies, read literally."""
    return literal
