"""A session that several credentials of one person use: each request is decided and recorded with the roles of its own."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.access import Access
from cra_mcp.approval.model import Answer, Approval, Channel
from cra_mcp.atlas.loader import load_atlas_text
from cra_mcp.atlas.model import Atlas
from cra_mcp.auth.principal import Credential, Principal, Recheck, Role
from cra_mcp.errors import CRAError, ForbiddenError, RequestError
from cra_mcp.execution.backend import Invocation, Result
from cra_mcp.replay.again import replay
from cra_mcp.replay.library import Library
from cra_mcp.replay.reading import read_session
from cra_mcp.settings import new_uuid7
from cra_mcp.trace.event import format_timestamp
from tests.gate.conftest import ScriptedBackend

pytestmark = pytest.mark.anyio
PATIENCE_S = 20


def _action(action_id: str, **more: object) -> dict[str, object]:
    return {
        "action_id": action_id,
        "name": "n",
        "description": "d",
        "parameters_schema": {"type": "object"},
        "executor": {"type": "python", "callable": "m:f"},
        **more,
    }


ATLAS = json.dumps(
    {
        "atlas_version": "1.0",
        "atlas_id": "com.example.roles",
        "version": "1.0.0",
        "name": "Roles",
        "description": "For the tests of callers.",
        "actions": [_action("do.ops"), _action("do.any"), _action("do.pay"), _action("do.said"), _action("do.slow")],
        "policies": [
            {"policy_id": "ops", "type": "allow", "actions": ["do.ops"], "conditions": {"roles": ["operator"]}},
            {"policy_id": "any", "type": "allow", "actions": ["do.any", "do.pay", "do.slow"]},
            {"policy_id": "said", "type": "allow", "actions": ["do.said"], "when": "'operator' in principal.roles"},
            {"policy_id": "ask", "type": "require_approval", "actions": ["do.pay"]},
        ],
        "context_packs": [
            {"pack_id": "p", "name": "P", "content": "for operators", "conditions": {"roles": ["operator"]}},
        ],
    }
)


def who(*roles: Role, subject: str = "ann", credential: Credential = "api_key", **more: Any) -> Principal:
    return Principal(
        subject,
        tenant="acme",
        roles=frozenset(roles),
        agent_id="bot",
        credential=credential,
        **{"credential_id": "-".join(roles) or "none", **more},
    )


OPERATOR = who("operator")
AGENT = who("agent")


@dataclass
class Served:
    """A runtime, and what was carried out in it."""

    runtime: CRARuntime
    backend: ScriptedBackend

    @property
    def done(self) -> list[str]:
        return [each.action_id for each in self.backend.done]

    def payloads(self, session_id: str, event_type: str) -> list[dict[str, Any]]:
        return [dict(e.payload) for e in self.runtime.get_trace(session_id) if e.event_type == event_type]

    def replays(self, session_id: str) -> bool:
        """Whether the trace, decided again, comes to the same."""
        atlas = load_atlas_text(ATLAS)

        class Source:
            def load(self, digest: str) -> Atlas | None:
                return atlas if digest == atlas.digest else None

            def load_overlay(self, digest: str) -> None:
                return None

        found = replay(read_session(self.runtime.read_trace(session_id)), Library(Source()))
        return found.ok and found.undetermined == 0 and found.decisions + found.resolutions > 0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    backend = ScriptedBackend()
    config = RuntimeConfig(data_dir=tmp_path, max_concurrency=1)
    async with CRARuntime(config, backends={"python": backend}) as runtime:
        runtime.load_atlas_from_json(ATLAS)
        yield Served(runtime, backend)


async def test_a_call_has_the_roles_of_who_makes_it_not_of_who_began_the_session(served: Served) -> None:
    runtime = served.runtime
    session = Access(runtime, OPERATOR).create_session("g").session_id
    for action_id in ("do.ops", "do.said"):
        assert (await Access(runtime, OPERATOR).execute(session, action_id, {})).status == "success"
        outcome = await Access(runtime, AGENT).execute(session, action_id, {})
        assert outcome.status == "denied"
        told = runtime.explain_outcome(outcome)
        assert told is not None
        assert (told.decision.effect, told.decision.policy_id) == ("deny", "default"), "and explain agrees"
        assert (await Access(runtime, OPERATOR).execute(session, action_id, {})).status == "success"
    assert (await Access(runtime, AGENT).execute(session, "do.any", {})).status == "success"
    assert served.done == ["do.ops", "do.ops", "do.said", "do.said", "do.any"]
    named = [payload.get("principal", {}).get("roles") for payload in served.payloads(session, "action.requested")]
    assert named == [None, ["agent"], None, None, ["agent"], None, ["agent"]], "left out where it is the session's own"
    assert served.payloads(session, "action.requested")[1]["principal"] == {
        "roles": ["agent"],
        "scopes": [],
        "credential": "api_key",
        "credential_id": "agent",
    }
    assert served.replays(session)


async def test_an_agents_session_gives_an_operator_its_own_roles_too(served: Served) -> None:
    runtime = served.runtime
    session = Access(runtime, AGENT).create_session("g").session_id
    assert (await Access(runtime, AGENT).execute(session, "do.ops", {})).status == "denied"
    assert (await Access(runtime, OPERATOR).execute(session, "do.ops", {})).status == "success"
    assert (await Access(runtime, AGENT).execute(session, "do.ops", {})).status == "denied"
    assert served.replays(session)


async def test_what_is_resolved_is_resolved_for_who_asks(served: Served) -> None:
    runtime = served.runtime
    session = Access(runtime, OPERATOR).create_session("g").session_id

    def seen(principal: Principal) -> tuple[set[str], int]:
        resolution = Access(runtime, principal).resolve(session)
        return {each.action.action_id for each in resolution.allowed_actions}, len(resolution.context_blocks)

    assert seen(OPERATOR) == ({"do.ops", "do.any", "do.pay", "do.said", "do.slow"}, 1)
    assert seen(AGENT) == ({"do.any", "do.pay", "do.slow"}, 0)
    _, choice = Access(runtime, AGENT).choose_context(session, "operators", max_tokens=1_000)
    assert choice.given == ()
    _, choice = Access(runtime, OPERATOR).choose_context(session, "operators", max_tokens=1_000)
    assert len(choice.given) == 1
    asked = [payload.get("principal", {}).get("roles") for payload in served.payloads(session, "carp.request.received")]
    assert asked == [None, ["agent"], ["agent"], None]
    assert served.replays(session)


async def test_a_resolution_made_with_other_roles_is_no_ground_for_a_call(served: Served) -> None:
    runtime = served.runtime
    session = Access(runtime, OPERATOR).create_session("g").session_id
    resolution_id = Access(runtime, OPERATOR).resolve(session).resolution_id
    with pytest.raises(RequestError) as refused:
        await Access(runtime, AGENT).execute(session, "do.any", {}, resolution_id=resolution_id)
    assert refused.value.code == "unknown_resolution"
    outcome = await Access(runtime, OPERATOR).execute(session, "do.ops", {}, resolution_id=resolution_id)
    assert outcome.status == "success"


async def test_a_risk_that_another_named_is_not_lowered(served: Served) -> None:
    runtime = served.runtime
    session = Access(runtime, OPERATOR).create_session("g")
    raised = replace(session.facts, task_risk=type(session.facts.task_risk)("high"))
    runtime._resolving.resolve(session, runtime.resolve(session.session_id).query, raised, new_uuid7())
    await Access(runtime, AGENT).execute(session.session_id, "do.any", {})
    assert session.current[AGENT.roles].facts.task_risk.value == "high"
    assert session.current[AGENT.roles].facts.roles == AGENT.roles


@pytest.mark.parametrize("roles", [("auditor",), ("approver",), ()])
async def test_who_may_not_call_calls_nothing_in_a_session_of_its_own_either(
    served: Served, roles: tuple[Role, ...]
) -> None:
    runtime = served.runtime
    session = Access(runtime, OPERATOR).create_session("g").session_id
    nobody = Access(runtime, who(*roles))
    message = _message(
        session, "execute", execution={"resolution_id": new_uuid7(), "action_id": "do.any", "parameters": {}}
    )
    tries: list[Callable[[], Any]] = [
        lambda: nobody.execute(session, "do.any", {}),
        lambda: nobody.execute(session, "do.nothing", {}),
        lambda: runtime.execute_message(session, message, principal=nobody.principal),
    ]
    texts: set[str] = set()
    for ask in tries:
        with pytest.raises(ForbiddenError) as refused:
            await ask()
        texts.add(refused.value.message)
    assert len(texts) == 1, "and it is not told which actions there are"
    for ask in (
        lambda: nobody.resolve(session),
        lambda: nobody.choose_context(session, "x", max_tokens=10),
        lambda: nobody.check_caller(session, "do.any"),
        lambda: runtime.resolve(session, _message(session, "resolve"), principal=nobody.principal),
        lambda: nobody.create_session("g"),
    ):
        with pytest.raises(ForbiddenError) as refused:
            ask()
        assert refused.value.code == "forbidden"
    told = served.payloads(session, "error.occurred")
    assert len(told) == 7, "each but the one that asked for another session"
    assert {each["error_code"] for each in told} == {"forbidden"}
    assert all(each["principal"]["roles"] == sorted(roles) for each in told)
    assert told[0]["error_message"].endswith(": do.any")
    assert served.done == []
    assert served.payloads(session, "carp.request.received") == []


def _message(session: str, operation: str, **more: object) -> dict[str, object]:
    return {
        "carp_version": "1.0",
        "request_id": new_uuid7(),
        "timestamp": format_timestamp(RuntimeConfig().clock_ns()),
        "operation": operation,
        "requester": {"agent_id": "bot", "session_id": session},
        "task": {"goal": "g"},
        **more,
    }


@pytest.mark.parametrize(
    "stranger",
    [
        who("operator", subject="bob"),
        who("operator", credential="jwt", issuer="https://one.example"),
        who("operator", credential="anonymous"),
        replace(OPERATOR, tenant="other"),
        replace(OPERATOR, agent_id="another"),
    ],
    ids=["another subject", "a token's sub", "anonymous", "another tenant", "another agent"],
)
async def test_a_session_of_somebody_else_is_not_there(served: Served, stranger: Principal) -> None:
    runtime = served.runtime
    session = Access(runtime, OPERATOR).create_session("g").session_id
    before = len(runtime.read_trace(session))
    access = Access(runtime, stranger)

    async def answers(session_id: str) -> list[tuple[str, str]]:
        async def resolve() -> object:
            return access.resolve(session_id)

        async def work_for() -> object:
            return access.create_session("g", parent_session_id=session_id)

        async def ask() -> object:
            return runtime.resolve(session_id, _message(session_id, "resolve"), principal=stranger)

        async def call() -> object:
            return await access.execute(session_id, "do.any", {})

        found: list[tuple[str, str]] = []
        for each in (resolve, work_for, ask, call):
            with pytest.raises(RequestError) as refused:
                await each()
            found.append((refused.value.code, refused.value.message))
        return found

    assert (
        await answers(session)
        == await answers(new_uuid7())
        == [("unknown_session", "there is no such session here")] * 4
    )
    assert len(runtime.read_trace(session)) == before
    assert served.done == []


def _token(issuer: str, *roles: Role) -> Principal:
    return who(*roles, credential="jwt", issuer=issuer)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (who("agent"), _token("https://one.example", "agent")),
        (who("agent", credential="local"), _token("https://one.example", "agent")),
        (_token("https://one.example", "agent"), _token("https://two.example", "agent")),
        (who("agent"), who("agent", credential="anonymous")),
    ],
    ids=["key and token", "local and token", "two issuers", "key and anonymous"],
)
async def test_one_spelling_of_two_issuers_is_two_owners(served: Served, one: Principal, other: Principal) -> None:
    runtime = served.runtime
    for owner, stranger in ((one, other), (other, one)):
        session = Access(runtime, owner).create_session("g").session_id
        assert Access(runtime, owner).may_read(session)
        assert not Access(runtime, stranger).may_read(session)
        assert Access(runtime, replace(stranger, roles=frozenset({"auditor"}))).may_read(session), "the tenant is one"
        outcome = await Access(runtime, owner).execute(session, "do.pay", {})
        assert outcome.approval is not None
        own = Access(runtime, replace(owner, roles=frozenset({"approver"})))
        assert not own.may_settle(outcome.approval)
        assert Access(runtime, replace(stranger, roles=frozenset({"approver"}))).may_settle(outcome.approval)


async def test_owners_are_the_same_after_a_restart(tmp_path: Path) -> None:
    one, two = _token("https://one.example", "agent"), _token("https://two.example", "agent")
    with CRARuntime(RuntimeConfig(data_dir=tmp_path)) as runtime:
        session = Access(runtime, one).create_session("g").session_id
    with CRARuntime(RuntimeConfig(data_dir=tmp_path)) as runtime:
        assert Access(runtime, one).may_read(session)
        for stranger in (two, who("agent"), who("agent", credential="local")):
            assert not Access(runtime, stranger).may_read(session)
        assert runtime.get_trace(session)[0].payload["principal"]["issuer"] == "https://one.example"  # type: ignore[index]


async def test_an_idempotency_key_answers_nobody_with_other_roles(served: Served) -> None:
    runtime = served.runtime
    session = Access(runtime, OPERATOR).create_session("g").session_id
    first = await Access(runtime, OPERATOR).execute(session, "do.ops", {}, idempotency_key="k")
    assert first.status == "success"
    with pytest.raises(RequestError) as refused:
        await Access(runtime, AGENT).execute(session, "do.ops", {}, idempotency_key="k")
    assert refused.value.code == "invalid_request"
    with pytest.raises(ForbiddenError):
        await Access(runtime, who("auditor")).execute(session, "do.ops", {}, idempotency_key="k")
    assert await Access(runtime, OPERATOR).execute(session, "do.ops", {}, idempotency_key="k") == first


# --- calls that wait ---------------------------------------------------------------------------------------------------


@dataclass
class Standing:
    """A credential that something becomes of."""

    now: Principal | None
    error: Exception | None = None
    asked: int = 0

    async def recheck(self) -> Principal | None:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.now


def _revoked(standing: Standing) -> None:
    standing.now = None


def _demoted(standing: Standing) -> None:
    standing.now = who("agent", credential_id="operator")


def _narrowed(standing: Standing) -> None:
    assert standing.now is not None
    standing.now = replace(standing.now, scopes=frozenset({"less"}))


def _unreadable(standing: Standing) -> None:
    standing.error = CRAError("down", code="keys_unavailable")


def _broken(standing: Standing) -> None:
    standing.error = RuntimeError("password=hunter2")


MEANWHILE = [
    (_revoked, "credential_lapsed"),
    (_demoted, "credential_lapsed"),
    (_narrowed, "credential_lapsed"),
    (_unreadable, "credential_unchecked"),
    (_broken, "credential_unchecked"),
]


@dataclass
class Person:
    """Grants what it is asked, after something else has happened."""

    meanwhile: Callable[[Standing], None] | None
    standing: Standing
    channel: Channel = "elicitation"
    seen: list[Approval] = field(default_factory=list[Approval])

    async def ask(self, approval: Approval) -> Answer:
        self.seen.append(approval)
        if self.meanwhile is not None:
            self.meanwhile(self.standing)
        return "granted"


def check_refused(served: Served, session: str, outcome: Any, code: str) -> None:
    assert (outcome.status, outcome.fault.code) == ("denied", code)
    assert "hunter2" not in repr(outcome) + repr(served.runtime.read_trace(session))
    assert served.runtime.explain_outcome(outcome) is None, "no policy explains it"
    violated = served.payloads(session, "policy.violated")[-1]
    assert (violated["policy_id"], violated["violation_type"]) == ("credential", "unauthorized")
    denied = served.payloads(session, "action.denied")[-1]
    assert (denied["policy_id"], denied["reason"]) == ("credential", code)
    assert served.payloads(session, "approval.granted")[-1]["used"] is False
    assert served.done == []
    assert served.replays(session)


@pytest.mark.parametrize(("meanwhile", "code"), MEANWHILE)
async def test_a_call_that_waited_for_its_person_is_not_made_with_a_credential_that_is_gone(
    served: Served, meanwhile: Callable[[Standing], None], code: str
) -> None:
    runtime, standing = served.runtime, Standing(OPERATOR)
    access = Access(runtime, OPERATOR, recheck=standing.recheck)
    session = access.create_session("g").session_id
    outcome = await access.execute(session, "do.pay", {}, asker=Person(meanwhile, standing), idempotency_key="k")
    check_refused(served, session, outcome, code)
    again = Access(runtime, OPERATOR, recheck=Standing(OPERATOR).recheck)
    assert (await again.execute(session, "do.pay", {}, idempotency_key="k")).status == "success", "consent still stands"


@pytest.mark.parametrize(("meanwhile", "code"), MEANWHILE)
async def test_a_pending_call_that_is_repeated_is_checked_too(
    served: Served, meanwhile: Callable[[Standing], None], code: str
) -> None:
    runtime, standing = served.runtime, Standing(OPERATOR)
    access = Access(runtime, OPERATOR, recheck=standing.recheck)
    session = access.create_session("g").session_id
    asked = (await access.execute(session, "do.pay", {})).approval
    assert asked is not None
    runtime.settle_approval(asked.approval_id, granted=True, by="zoe", channel="cli")
    meanwhile(standing)
    check_refused(served, session, await access.execute(session, "do.pay", {}), code)


async def test_a_call_whose_credential_still_stands_goes_on(served: Served) -> None:
    runtime, standing = served.runtime, Standing(OPERATOR)
    access = Access(runtime, OPERATOR, recheck=standing.recheck)
    session = access.create_session("g").session_id
    outcome = await access.execute(session, "do.pay", {}, asker=Person(None, standing))
    assert (outcome.status, standing.asked) == ("success", 1)
    assert (await access.execute(session, "do.any", {})).status == "success"
    assert standing.asked == 1, "what has not waited is not checked again"


@pytest.mark.parametrize(("meanwhile", "code"), MEANWHILE)
async def test_a_call_that_waited_for_its_turn_is_checked_before_it_runs(
    served: Served, meanwhile: Callable[[Standing], None], code: str
) -> None:
    runtime, standing = served.runtime, Standing(OPERATOR)
    access = Access(runtime, OPERATOR, recheck=standing.recheck)
    session = access.create_session("g").session_id
    began, finish = anyio.Event(), anyio.Event()

    outcomes: list[Any] = []

    async def hold(invocation: Invocation) -> Result:
        began.set()
        await finish.wait()
        del invocation
        return Result(value={})

    served.backend.behaviour["do.slow"] = hold

    async def second(recheck: Recheck) -> None:
        outcomes.append(await Access(runtime, OPERATOR, recheck=recheck).execute(session, "do.any", {}))

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:
            group.start_soon(access.execute, session, "do.slow", {})
            await began.wait()
            group.start_soon(second, standing.recheck)
            while len(served.payloads(session, "action.approved")) < 2:
                await anyio.lowlevel.checkpoint()
            meanwhile(standing)
            finish.set()
    [outcome] = outcomes
    assert (outcome.status, outcome.fault.code) == ("error", code)
    assert served.payloads(session, "action.failed")[-1]["error_code"] == code
    assert served.done == ["do.slow"]
    assert served.replays(session)
