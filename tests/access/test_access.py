"""What one principal may see and do of a runtime."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.access import Access
from cra_mcp.auth.principal import Credential, Principal, Role
from cra_mcp.auth.roles import PERMISSIONS, ROLES, may, require, roles_of
from cra_mcp.errors import ApprovalError, ForbiddenError, UnknownTraceError

ATLAS = {
    "atlas_version": "1.0",
    "atlas_id": "com.example.access",
    "version": "1.0.0",
    "name": "Access",
    "description": "For the tests of access.",
    "actions": [
        {
            "action_id": "do.pay",
            "name": "Pay",
            "description": "Pays.",
            "parameters_schema": {"type": "object"},
            "executor": {"type": "python", "callable": "m:f"},
        },
        {"action_id": "do.read", "name": "Read", "description": "Reads.", "parameters_schema": {"type": "object"}},
    ],
    "policies": [
        {"policy_id": "ask", "type": "require_approval", "actions": ["do.pay"]},
        {"policy_id": "ops", "type": "allow", "actions": ["do.read"], "conditions": {"roles": ["operator"]}},
        {"policy_id": "ann", "type": "allow", "actions": ["do.read"], "conditions": {"principals": ["an*"]}},
    ],
}


def who(subject: str, *roles: Role, tenant: str = "acme") -> Principal:
    return Principal(subject, tenant=tenant, roles=frozenset(roles or ("agent",)), agent_id="bot")


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[CRARuntime]:
    with CRARuntime(RuntimeConfig(data_dir=tmp_path)) as made:
        made.load_atlas_from_json(json.dumps(ATLAS))
        yield made


def session_of(runtime: CRARuntime, principal: Principal | None) -> str:
    return runtime.create_session(goal="g", principal=principal).session_id


def test_a_trace_is_read_by_its_owner_and_who_may_read_its_tenants(runtime: CRARuntime) -> None:
    session = session_of(runtime, who("ann"))
    allowed = [who("ann"), who("eve", "auditor"), who("eve", "operator"), who("eve", "admin")]
    refused = [
        who("bob"),
        who("eve", "approver"),
        who("ann", tenant="other"),
        who("eve", "admin", "auditor", tenant="other"),
        Principal("ann", tenant="acme", roles=frozenset()),
    ]
    for principal in allowed:
        access = Access(runtime, principal)
        assert access.verify_chain(session).ok
        assert [info.session_id for info in access.traces()] == [session]
    for principal in refused:
        access = Access(runtime, principal)
        assert list(access.traces()) == []
        for ask in (access.read_trace, access.verify_chain):
            with pytest.raises(UnknownTraceError) as theirs:
                ask(session)
            with pytest.raises(UnknownTraceError) as unknown:
                runtime.read_trace("01980000-0000-7000-8000-000000000000")
            assert theirs.value.code == unknown.value.code
            assert theirs.value.message.replace(session, "ID") == unknown.value.message.replace(
                "01980000-0000-7000-8000-000000000000", "ID"
            )


def test_traces_of_earlier_processes_keep_their_owner(tmp_path: Path, runtime: CRARuntime) -> None:
    hers, nobodys = session_of(runtime, who("ann")), session_of(runtime, None)
    with CRARuntime(RuntimeConfig(data_dir=tmp_path)) as later:
        assert [info.session_id for info in Access(later, who("ann")).traces()] == [hers]
        local = Principal("local", tenant="default")
        assert [info.session_id for info in Access(later, local).traces()] == [nobodys]


def test_a_trace_whose_first_event_says_nothing_reliable_is_nobodys(tmp_path: Path, runtime: CRARuntime) -> None:
    session = session_of(runtime, who("ann"))
    runtime.end_session(session)
    path = tmp_path / "traces" / f"{session}.trace.jsonl"
    first, *rest = path.read_bytes().splitlines(keepends=True)
    for spoiled in (b"not an event\n", b"", first.replace(b'"subject":"ann"', b'"subject":5')):
        path.write_bytes(spoiled + b"".join(rest))
        with CRARuntime(RuntimeConfig(data_dir=tmp_path)) as later:
            for principal in (who("ann"), who("eve", "admin"), Principal("local")):
                assert list(Access(later, principal).traces()) == []


def test_who_may_not_call_sees_no_action_and_gets_no_session(runtime: CRARuntime) -> None:
    for role in ("auditor", "approver"):
        principal = who("eve", role)
        assert Access(runtime, principal).permissions() == ()
        with pytest.raises(ForbiddenError) as caught:
            session_of(runtime, principal)
        assert caught.value.code == "forbidden"


@pytest.mark.parametrize(
    ("principal", "readable"),
    [(who("ann"), True), (who("bob"), False), (who("bob", "operator"), True), (who("bob", "admin"), False)],
)
def test_policies_see_the_principal_when_they_list_and_when_they_decide(
    runtime: CRARuntime, principal: Principal, readable: bool
) -> None:
    listed = {each.action.action_id for each in Access(runtime, principal).permissions()}
    assert ("do.read" in listed) == readable
    outcome = runtime.execute_blocking(session_of(runtime, principal), "do.read", {})
    assert (outcome.status == "denied") != readable


def pending(runtime: CRARuntime, principal: Principal) -> str:
    outcome = runtime.execute_blocking(session_of(runtime, principal), "do.pay", {})
    assert outcome.approval is not None
    return outcome.approval.approval_id


def test_approvals_are_settled_by_approvers_of_the_tenant(runtime: CRARuntime) -> None:
    approval_id = pending(runtime, who("ann"))
    for principal in (who("ann"), who("eve", "auditor")):
        with pytest.raises(ForbiddenError):
            Access(runtime, principal).pending_approvals()
        with pytest.raises(ForbiddenError):
            Access(runtime, principal).settle_approval(approval_id, granted=True)
    stranger = Access(runtime, who("eve", "approver", tenant="other"))
    assert stranger.pending_approvals() == []
    with pytest.raises(ApprovalError) as theirs:
        stranger.settle_approval(approval_id, granted=True)
    with pytest.raises(ApprovalError) as unknown:
        stranger.settle_approval("nothing", granted=True)
    assert (theirs.value.code, theirs.value.message) == (unknown.value.code, unknown.value.message)
    approver = Access(runtime, who("zoe", "approver"))
    assert [each.approval_id for each in approver.pending_approvals()] == [approval_id]
    assert approver.settle_approval(approval_id, granted=True).decided_by == "zoe"


def known(principal: Principal) -> Principal:
    return replace(principal, credential="api_key")


@pytest.mark.parametrize("roles", [("approver",), ("agent", "approver"), ("operator",), ("admin",)])
def test_nobody_settles_the_approval_of_their_own_call_whatever_their_roles(
    runtime: CRARuntime, roles: tuple[Role, ...]
) -> None:
    approval_id = pending(runtime, who("ann"))
    own = Access(runtime, known(replace(who("ann", *roles), agent_id="another agent of hers")))
    (seen,) = own.pending_approvals()
    assert not own.may_settle(seen)
    for granted in (True, False):
        with pytest.raises(ForbiddenError) as refused:
            own.settle_approval(approval_id, granted=granted)
        assert refused.value.code == "self_approval"
    assert runtime.approval(approval_id).status == "pending"


@pytest.mark.parametrize(
    ("subject", "credential", "channel", "grade"),
    [
        ("zoe", "api_key", "approver", "authenticated_approver"),
        ("zoe", "jwt", "approver", "authenticated_approver"),
        ("zoe", "local", "client", "client_elicitation"),
        ("ann", "api_key", "client", "client_elicitation"),
    ],
)
def test_where_the_operator_allows_it_ones_own_approval_is_worth_what_a_client_says(
    tmp_path: Path, subject: str, credential: Credential, channel: str, grade: str
) -> None:
    with CRARuntime(RuntimeConfig(data_dir=tmp_path, allow_self_approval=True)) as runtime:
        runtime.load_atlas_from_json(json.dumps(ATLAS))
        approval_id = pending(runtime, who("ann"))
        settled = Access(runtime, replace(who(subject, "approver"), credential=credential)).settle_approval(
            approval_id, granted=True
        )
    assert (settled.channel, settled.grade) == (channel, grade)


def test_a_settlement_is_in_the_trace_with_who_how_and_why_at_once_and_again_when_it_counts(
    runtime: CRARuntime,
) -> None:
    session_id = session_of(runtime, who("ann"))

    def events(kind: str) -> list[dict[str, object]]:
        return [dict(event.payload) for event in runtime.get_trace(session_id) if event.event_type == kind]

    for number, (granted, kind) in enumerate(((False, "approval.rejected"), (True, "approval.granted"))):
        asked = runtime.execute_blocking(session_id, "do.pay", {"n": number}).approval
        assert asked is not None
        zoe = Access(runtime, known(who("zoe", "approver")))
        settled = zoe.settle_approval(asked.approval_id, granted=granted, comment="seen the invoice")
        expected = {
            "by": "zoe",
            "channel": "approver",
            "grade": "authenticated_approver",
            "comment": "seen the invoice",
            "approval_id": asked.approval_id,
        }
        assert (settled.decided_by, settled.comment) == ("zoe", "seen the invoice")
        assert expected.items() <= events("x.cra.approval.settled")[-1].items()
        assert events("x.cra.approval.settled")[-1]["granted"] is granted
        runtime.execute_blocking(session_id, "do.pay", {"n": number})
        assert expected.items() <= events(kind)[-1].items()


def test_a_settlement_counts_where_its_session_has_ended(runtime: CRARuntime) -> None:
    session_id = session_of(runtime, who("ann"))
    asked = runtime.execute_blocking(session_id, "do.pay", {}).approval
    assert asked is not None
    runtime.end_session(session_id)
    settled = Access(runtime, known(who("zoe", "approver"))).settle_approval(asked.approval_id, granted=False)
    assert (settled.status, settled.comment) == ("rejected", None)


def test_somebody_nobody_knows_settles_nothing(runtime: CRARuntime) -> None:
    approval_id = pending(runtime, who("ann"))
    nobody = Access(runtime, replace(who("anonymous", "operator"), credential="anonymous"))
    assert not nobody.may_approve
    with pytest.raises(ForbiddenError):
        nobody.pending_approvals()
    with pytest.raises(ForbiddenError):
        nobody.settle_approval(approval_id, granted=True)


def test_every_role_has_its_permissions_and_no_other_word_is_a_role() -> None:
    assert set(PERMISSIONS) == set(ROLES)
    assert roles_of(["agent", "root", 5]) == {"agent"}
    assert roles_of("agent") == frozenset()
    assert not may(Principal("x", roles=frozenset()), "read_own")
    require(who("x", "admin"), "manage_keys")
    with pytest.raises(ForbiddenError, match="manage_keys"):
        require(who("x", "operator"), "manage_keys")


def veiled(runtime: CRARuntime, tmp_path: Path) -> None:
    """Hide what could be told of from everybody but operators."""
    policy = {
        "policy_id": "veil",
        "type": "deny",
        "actions": ["do.*"],
        "disclose": False,
        "conditions": {"roles": ["agent", "approver"]},
    }
    path = tmp_path / "veil.json"
    path.write_text(json.dumps({"overlay_id": "veil", "policies": [policy]}))
    runtime.load_policy_file(path)


def test_a_hidden_action_is_not_there_for_whom_it_is_hidden(runtime: CRARuntime, tmp_path: Path) -> None:
    published = json.loads(json.dumps(ATLAS))
    published["atlas_id"] = "com.example.published"
    published["policies"] = []
    published["actions"] = [
        {**ATLAS["actions"][1], "action_id": "do.page", "publish": {"as": "resource", "uri": "app://page"}},
        {**ATLAS["actions"][1], "action_id": "do.letter", "publish": {"as": "prompt", "name": "letter"}},
    ]
    runtime.load_atlas_from_json(json.dumps(published))
    agent, operator = Access(runtime, who("ann")), Access(runtime, who("eve", "operator"))
    for access in (agent, operator):
        assert access.action("do.pay") is not None
        assert access.published("do_pay", "tool") is not None
        assert access.published("letter", "prompt") is not None
        assert [each.action_id for each in access.resources()] == ["do.page"]
    assert agent.published("letter", "tool") is None
    assert agent.published("nowhere", "prompt") is None
    assert agent.action("do.nowhere") is None
    assert Access(runtime, who("eve", "auditor")).published("letter", "prompt") is None, "it may not call"
    veiled(runtime, tmp_path)
    assert agent.action("do.pay") is None
    assert agent.published("do_pay", "tool") is None
    assert agent.published("letter", "prompt") is None
    assert agent.resources() == []
    assert operator.action("do.pay") is not None
    assert operator.published("letter", "prompt") is not None
    assert [each.action_id for each in operator.resources()] == ["do.page"]


def test_an_agent_reads_the_view_of_its_trace_and_an_auditor_what_is_stored(
    runtime: CRARuntime, tmp_path: Path
) -> None:
    veiled(runtime, tmp_path)
    session = session_of(runtime, who("ann"))
    runtime.execute_blocking(session, "do.pay", {"a": 1})
    stored = runtime.read_trace(session)
    for reader in ("auditor", "operator", "admin"):
        access = Access(runtime, who("eve", reader))
        assert access.sees_all
        assert access.read_trace(session) == stored
        assert access.read_trace(session, after=1, limit=2) == stored[2:4]
    agent = Access(runtime, who("ann"))
    assert not agent.sees_all
    lines = [json.loads(line) for line in agent.read_trace(session)]
    assert [line["sequence"] for line in lines] == list(range(len(stored)))
    assert [json.loads(line) for line in agent.read_trace(session, after=1, limit=2)] == lines[2:4]
    assert b"veil" in b"".join(stored)
    assert b"veil" not in b"".join(agent.read_trace(session))
    assert agent.verify_chain(session) == runtime.verify_chain(session)


def test_an_approver_is_not_told_of_a_call_of_what_is_hidden_from_it(runtime: CRARuntime, tmp_path: Path) -> None:
    approval_id = pending(runtime, who("ann"))
    approver, operator = Access(runtime, who("eve", "approver")), Access(runtime, who("eve", "operator"))
    approver, operator = (
        Access(runtime, replace(each.principal, credential="api_key")) for each in (approver, operator)
    )
    assert [each.approval_id for each in approver.pending_approvals()] == [approval_id]
    veiled(runtime, tmp_path)
    assert approver.pending_approvals() == []
    with pytest.raises(ApprovalError) as unknown:
        approver.settle_approval(approval_id, granted=True)
    assert unknown.value.code == "unknown_approval"
    assert [each.approval_id for each in operator.pending_approvals()] == [approval_id]
