"""Calls that wait for approval: of one owner so many at a time, and everybody's found, the newest first."""

import json
from pathlib import Path

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.access import Access
from cra_mcp.auth.principal import Principal
from cra_mcp.errors import RequestError
from cra_mcp.faces.mcp import control_approvals
from tests.access.test_access import ATLAS, who

ZOE = who("zoe", "approver")


def opened(tmp_path: Path, **settings: object) -> CRARuntime:
    runtime = CRARuntime(RuntimeConfig(data_dir=tmp_path, **settings))
    runtime.load_atlas_from_json(json.dumps(ATLAS))
    return runtime


def session_of(runtime: CRARuntime, principal: Principal | None) -> str:
    return runtime.create_session(goal="g", principal=principal).session_id


@pytest.mark.parametrize("principal", [who("ann"), None], ids=["a principal", "whoever runs this"])
def test_of_one_owner_so_many_calls_wait_at_a_time_whatever_sessions_it_has(
    tmp_path: Path, principal: Principal | None
) -> None:
    with opened(tmp_path, max_pending_approvals=3) as runtime, opened(tmp_path, max_pending_approvals=3) as other:
        first = session_of(runtime, principal)
        waiting = [runtime.execute_blocking(first, "do.pay", {"n": n}).approval for n in range(2)]
        elsewhere = other.execute_blocking(session_of(other, principal), "do.pay", {})
        assert elsewhere.status == "pending_approval"
        second = session_of(runtime, principal)
        refused = runtime.execute_blocking(second, "do.pay", {"n": 9})
        assert (refused.status, refused.approval) == ("denied", None)
        assert refused.fault is not None
        assert refused.fault.code == "too_many_pending"
        kinds = [event.event_type for event in runtime.get_trace(second)]
        assert kinds[-2:] == ["approval.expired", "action.denied"]
        bob = runtime.execute_blocking(session_of(runtime, who("bob")), "do.pay", {})
        assert bob.status == "pending_approval", "nobody else loses anything"
        again = runtime.execute_blocking(first, "do.pay", {"n": 0})
        assert again.approval == waiting[0], "what waits is not asked again"
        assert waiting[0] is not None
        runtime.settle_approval(waiting[0].approval_id, granted=False, by="zoe")
        assert runtime.execute_blocking(second, "do.pay", {"n": 9}).status == "pending_approval"


def test_what_has_expired_no_longer_counts(tmp_path: Path) -> None:
    now = [1_800_000_000_000_000_000]

    def clock() -> int:
        now[0] += 1_000
        return now[0]

    with opened(tmp_path, max_pending_approvals=1, approval_ttl_s=60, clock_ns=clock) as runtime:
        session = session_of(runtime, who("ann"))
        assert runtime.execute_blocking(session, "do.pay", {"n": 1}).status == "pending_approval"
        assert runtime.execute_blocking(session, "do.pay", {"n": 2}).status == "denied"
        now[0] += 61_000_000_000
        assert runtime.execute_blocking(session, "do.pay", {"n": 2}).status == "pending_approval"


def test_every_call_that_waits_is_on_one_page_the_newest_first(tmp_path: Path) -> None:
    with opened(tmp_path, max_pending_approvals=0) as runtime:
        hers = runtime.execute_blocking(session_of(runtime, who("bob")), "do.pay", {}).approval
        flood = session_of(runtime, who("ann"))
        made = [runtime.execute_blocking(flood, "do.pay", {"n": n}).approval for n in range(205)]
        assert hers is not None
        expected = [each.approval_id for each in [hers, *made] if each is not None][::-1]
        access = Access(runtime, ZOE)
        assert [each.approval_id for each in access.pending_approvals()] == expected
        found: list[object] = []
        uri, sizes = control_approvals.URI, []
        while True:
            page = control_approvals.read_pending(access, uri)
            assert page is not None
            listed = page["approvals"]
            assert isinstance(listed, list)
            sizes.append((len(listed), page["more"]))
            found += [each["approval_id"] for each in listed]
            if page["next"] is None:
                break
            uri = f"{control_approvals.URI}?after={page['next']}"
            if len(sizes) == 1:  # what is settled or asked meanwhile moves no page
                runtime.settle_approval(str(found[-1]), granted=True, by="zoe")
                runtime.execute_blocking(flood, "do.pay", {"n": "late"})
        assert found == expected
        assert sizes == [(100, 106), (100, 6), (6, 0)]


@pytest.mark.parametrize("after", ["", "x", "5", "-", "٣-x", "1" * 30 + "-x"])
def test_what_is_no_page_is_said_to_be_none(tmp_path: Path, after: str) -> None:
    with opened(tmp_path) as runtime, pytest.raises(RequestError) as refused:
        control_approvals.pending(Access(runtime, ZOE), after)
    assert refused.value.code == "invalid_request"


@pytest.mark.parametrize("uri", ["cra://approvalsx", "cra://approvals?before=1", "cra://approvals/1"])
def test_a_uri_that_only_begins_alike_is_none(tmp_path: Path, uri: str) -> None:
    with opened(tmp_path) as runtime:
        assert control_approvals.read_pending(Access(runtime, ZOE), uri) is None
