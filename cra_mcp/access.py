"""The runtime as one principal may use it: what it may see of sessions, traces and approvals, and do with them.

Rule: what is someone else's answers exactly as what isn't there. Every face that speaks to more than one caller goes through here.
Source: specs/identity.md.
"""

from collections.abc import Iterator

from cra_mcp.approval.ledger import unknown_approval
from cra_mcp.approval.model import Approval, Channel
from cra_mcp.auth.principal import Principal
from cra_mcp.auth.roles import may, require
from cra_mcp.errors import UnknownTraceError
from cra_mcp.resolution import Permission
from cra_mcp.runtime import Runtime
from cra_mcp.trace.event import Verification
from cra_mcp.trace.store import TraceInfo


class Access:
    """What ``principal`` may see and do."""

    def __init__(self, runtime: Runtime, principal: Principal) -> None:
        self._runtime = runtime
        self.principal = principal

    # --- actions ---------------------------------------------------------------------------------------------------

    def permissions(self) -> tuple[Permission, ...]:
        """Actions it could be allowed now; none where none of its roles may call."""
        return self._runtime.permissions(self.principal)

    # --- traces ----------------------------------------------------------------------------------------------------

    def may_read(self, session_id: str) -> bool:
        """Whether it may read a trace; False, too, where there is none."""
        owner = self._runtime.owner_of(session_id)
        if owner is None or owner[0] != self.principal.tenant:
            return False
        if may(self.principal, "read_tenant"):
            return True
        return owner == self.principal.owner and may(self.principal, "read_own")

    def traces(self) -> Iterator[TraceInfo]:
        """Traces it may read, the most recently written first."""
        return (info for info in self._runtime.list_traces() if self.may_read(info.session_id))

    def read_trace(self, session_id: str, *, after: int = -1, limit: int | None = None) -> list[bytes]:
        """Stored lines of a trace.

        Raises:
            UnknownTraceError: there is no such trace for it.
        """
        self._check(session_id)
        return self._runtime.read_trace(session_id, after=after, limit=limit)

    def verify_chain(self, session_id: str) -> Verification:
        """Check a whole chain. Raises as ``read_trace``."""
        self._check(session_id)
        return self._runtime.verify_chain(session_id)

    def _check(self, session_id: str) -> None:
        if not self.may_read(session_id):
            raise UnknownTraceError(f"no trace of session {session_id[:80]}")

    # --- approvals -------------------------------------------------------------------------------------------------

    def pending_approvals(self) -> list[Approval]:
        """Approvals of its tenant that wait for an answer, the oldest first.

        Raises:
            ForbiddenError: none of its roles may approve.
        """
        require(self.principal, "approve")
        return [each for each in self._runtime.pending_approvals() if self._concerns(each)]

    def settle_approval(self, approval_id: str, *, granted: bool, channel: Channel = "library") -> Approval:
        """Grant or reject a pending approval of its tenant.

        Raises:
            ApprovalError: ``unknown_approval``, ``approval_settled`` or ``approval_expired``.
            ForbiddenError: none of its roles may approve.
        """
        require(self.principal, "approve")
        if not self._concerns(self._runtime.approval(approval_id)):
            raise unknown_approval()
        return self._runtime.settle_approval(approval_id, granted=granted, by=self.principal.subject, channel=channel)

    def _concerns(self, approval: Approval) -> bool:
        owner = self._runtime.owner_of(approval.session_id)
        return owner is not None and owner[0] == self.principal.tenant
