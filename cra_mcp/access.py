"""The runtime as one principal may use it: what it may see of sessions, traces and approvals, and do with them.

Rule: what is someone else's, or must not be told of, answers exactly as what isn't there. Every face that speaks to more than one
caller goes through here. Source: specs/identity.md; specs/policy.md, "Disclosure".
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Literal

from cra_mcp.actions.client import Client
from cra_mcp.approval.ledger import unknown_approval
from cra_mcp.approval.model import Approval, Asker, Channel
from cra_mcp.atlas.model import Action
from cra_mcp.auth.principal import Principal, Recheck
from cra_mcp.auth.roles import may, require
from cra_mcp.errors import ForbiddenError, RequestError, TraceError, UnknownTraceError
from cra_mcp.gate.call import ExecutionOutcome, Progress
from cra_mcp.ranking import Choice
from cra_mcp.resolution.model import Permission, Resolution
from cra_mcp.runtime import Runtime
from cra_mcp.session import Session
from cra_mcp.trace.event import Verification
from cra_mcp.trace.store import TraceInfo
from cra_mcp.trace.view import view_of


class Access:
    """What ``principal`` may see and do.

    Args:
        runtime: what is used.
        principal: who uses it.
        recheck: whom the principal's credential stands for by now, for calls that wait; None: it never changes.
    """

    def __init__(self, runtime: Runtime, principal: Principal, *, recheck: Recheck | None = None) -> None:
        self._runtime = runtime
        self.principal = principal
        self._recheck = recheck

    # --- actions ---------------------------------------------------------------------------------------------------

    def permissions(self) -> tuple[Permission, ...]:
        """Actions it could be allowed now; none where none of its roles may call."""
        return self._runtime.permissions(self.principal)

    def create_session(self, goal: str = "", *, parent_session_id: str | None = None) -> Session:
        """Start a session of the principal. Raises as ``Runtime.create_session``, and ``ForbiddenError``."""
        return self._runtime.create_session(goal=goal, parent_session_id=parent_session_id, principal=self.principal)

    def resolve(self, session_id: str, *, goal: str | None = None) -> Resolution:
        """What it may know and do in a session of its own, with its roles. Raises as ``Runtime.resolve``."""
        return self._runtime.resolve(session_id, goal=goal, principal=self.principal)

    def choose_context(
        self, session_id: str, need: str, *, hints: Sequence[str] = (), max_tokens: int
    ) -> tuple[Resolution, Choice]:
        """See ``Runtime.choose_context``, with the principal's roles."""
        return self._runtime.choose_context(
            session_id, need, hints=hints, max_tokens=max_tokens, principal=self.principal
        )

    async def execute(
        self,
        session_id: str,
        action_id: str,
        parameters: object = None,
        *,
        resolution_id: str | None = None,
        idempotency_key: str | None = None,
        asker: Asker | None = None,
        on_progress: Progress | None = None,
        client: Client | None = None,
        otel: Mapping[str, str] | None = None,
        called: str | None = None,
        offered: bool = True,
        host_arguments: Collection[str] = (),
    ) -> ExecutionOutcome:
        """Have an action carried out in a session of its own, decided by the principal's roles. As ``Runtime.execute``."""
        return await self._runtime.execute(
            session_id,
            action_id,
            parameters,
            resolution_id=resolution_id,
            idempotency_key=idempotency_key,
            asker=asker,
            on_progress=on_progress,
            client=client,
            otel=otel,
            called=called,
            offered=offered,
            host_arguments=host_arguments,
            principal=self.principal,
            recheck=self._recheck,
        )

    def check_caller(self, session_id: str, action_id: str) -> None:
        """Whether it may call in a session. Raises as ``Runtime.check_caller``."""
        self._runtime.check_caller(session_id, self.principal, action_id)

    def action(self, action_id: str) -> Action | None:
        """An action it may be told of, whatever else policy says of it."""
        hidden = self._runtime.hidden(self.principal)  # asked first: what isn't there takes the same steps
        return self._runtime.find_action(action_id) if action_id not in hidden else None

    def published(self, name: str, kind: Literal["tool", "prompt"]) -> Action | None:
        """An action it may be told of, by the name under which it is published as a ``kind``."""
        found = self.action(self._runtime.action_id_of(name) or "")
        return found if found is not None and found.publication.kind == kind and may(self.principal, "call") else None

    def resources(self) -> list[Action]:
        """The actions published as resources that it may be told of, in load order."""
        hidden = self._runtime.hidden(self.principal)
        return [each for each in self._runtime.published("resource") if each.action_id not in hidden]

    # --- traces ----------------------------------------------------------------------------------------------------

    def may_read(self, session_id: str) -> bool:
        """Whether it may read a trace; False, too, where there is none."""
        owner = self._runtime.owner_of(session_id)
        if owner is None or owner.tenant != self.principal.tenant:
            return False
        if may(self.principal, "read_tenant"):
            return True
        return owner == self.principal.owner and may(self.principal, "read_own")

    @property
    def sees_all(self) -> bool:
        """Whether it reads traces as they are stored; others read the view of an agent, in which nothing undisclosed is."""
        return may(self.principal, "read_tenant")

    def traces(self) -> Iterator[TraceInfo]:
        """Traces it may read, the most recently written first."""
        return (info for info in self._runtime.list_traces() if self.may_read(info.session_id))

    def newest_traces(self, limit: int) -> list[str]:
        """The sessions that began last, of those whose trace it may read, the newest first."""
        begun = sorted(
            (info.session_id for info in self._runtime.list_traces()), reverse=True
        )  # ids begin with the time
        return list(islice(filter(self.may_read, begun), limit))

    def read_trace(self, session_id: str, *, after: int = -1, limit: int | None = None) -> list[bytes]:
        """Lines of a trace: as they are stored, or of the view of it.

        Raises:
            UnknownTraceError: there is no such trace for it.
        """
        self._check(session_id)
        lines = self._runtime.read_trace(session_id, after=after, limit=limit)
        return lines if self.sees_all else [view_of(line, at) for at, line in enumerate(lines, max(after + 1, 0))]

    def verify_chain(self, session_id: str) -> Verification:
        """Check a whole chain. Raises as ``read_trace``."""
        self._check(session_id)
        return self._runtime.verify_chain(session_id)

    def _check(self, session_id: str) -> None:
        if not self.may_read(session_id):
            raise UnknownTraceError(f"no trace of session {session_id[:80]}")

    # --- approvals -------------------------------------------------------------------------------------------------

    @property
    def may_approve(self) -> bool:
        """Whether it may see and settle approvals. Somebody nobody knows may not, whatever the roles of the process."""
        return may(self.principal, "approve") and self.principal.credential != "anonymous"

    def pending_approvals(self) -> list[Approval]:
        """Approvals of its tenant that wait for an answer, the newest first.

        Raises:
            ForbiddenError: none of its roles may approve.
        """
        self._require_approver()
        return [each for each in self._runtime.pending_approvals() if self._concerns(each)]

    def may_settle(self, approval: Approval) -> bool:
        """Whether it may settle an approval of its tenant: not that of a call of its own, unless the operator allows that."""
        return self._runtime.config.allow_self_approval or not self._is_own(approval)

    def settle_approval(self, approval_id: str, *, granted: bool, comment: str | None = None) -> Approval:
        """Grant or reject a pending approval of its tenant. A session under way here records it.

        Raises:
            ApprovalError: ``unknown_approval``, ``approval_settled`` or ``approval_expired``.
            ForbiddenError: none of its roles may approve; or ``self_approval``.
        """
        self._require_approver()
        approval = self._runtime.approval(approval_id)
        if not self._concerns(approval):
            raise unknown_approval()
        if not self.may_settle(approval):
            raise ForbiddenError(
                "nobody settles the approval of their own call",
                code="self_approval",
                hint="somebody else with a role that may approve can; the operator can allow it (CRA_ALLOW_SELF_APPROVAL)",
            )
        settled = self._runtime.settle_approval(
            approval_id, granted=granted, by=self.principal.subject, channel=self._channel(approval), comment=comment
        )
        # The call records it too, when it comes. A session that has ended, or is another process's, can't.
        with suppress(RequestError, TraceError):
            self._runtime.record(approval.session_id, "x.cra.approval.settled", _settlement(settled))
        return settled

    def _require_approver(self) -> None:
        require(self.principal, "approve")
        if not self.may_approve:
            raise ForbiddenError("approvals are settled by callers with a credential", hint="use a key or a token")

    def _channel(self, approval: Approval) -> Channel:
        """Over a credential of their own, and for somebody else, it is worth more than what any client says."""
        known = self.principal.credential in {"api_key", "jwt"}
        return "approver" if known and not self._is_own(approval) else "client"

    def _concerns(self, approval: Approval) -> bool:
        owner = self._runtime.owner_of(approval.session_id)
        if owner is None or owner.tenant != self.principal.tenant:
            return False
        return self.sees_all or approval.action_id not in self._runtime.hidden(self.principal)

    def _is_own(self, approval: Approval) -> bool:
        return self._runtime.owner_of(approval.session_id) == self.principal.owner


def _settlement(approval: Approval) -> dict[str, object]:
    return {
        "approval_id": approval.approval_id,
        "action_id": approval.action_id,
        "granted": approval.status == "granted",
        "by": approval.decided_by,
        "channel": approval.channel,
        "grade": approval.grade,
        "comment": approval.comment,
    }
