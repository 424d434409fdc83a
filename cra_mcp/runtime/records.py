"""What is on record: the traces of a store, read and verified, and the approvals of a ledger.

Rule: nothing here adds to a trace. Source: specs/trace.md; specs/carp.md, "Approval".
"""

from cra_mcp.approval.ledger import ApprovalLedger
from cra_mcp.approval.model import Approval, Channel
from cra_mcp.auth.principal import Owner
from cra_mcp.errors import TraceError
from cra_mcp.runtime import arguments
from cra_mcp.runtime.owners import Owners
from cra_mcp.trace.event import Event, Verification, parse, verify
from cra_mcp.trace.store import Recovery, TraceInfo, TraceStore


class Records:
    """The part of a runtime that looks things up and settles approvals."""

    def __init__(self, store: TraceStore, ledger: ApprovalLedger) -> None:
        self._store = store
        self._ledger = ledger
        self._owners = Owners(store)

    # --- traces ----------------------------------------------------------------------------------------------------

    def get_trace(self, session_id: str, *, after: int = -1, limit: int | None = None) -> list[Event]:
        """Events of a session whose sequence is above ``after``, oldest first.

        Raises:
            UnknownTraceError: no such trace.
            TraceError: ``malformed_event``; ``verify_chain`` says where.
        """
        return [
            parse(line) for line in self._store.read(arguments.text("session_id", session_id), after=after, limit=limit)
        ]

    def read_trace(self, session_id: str, *, after: int = -1, limit: int | None = None) -> list[bytes]:
        """The stored lines themselves: the bytes that were hashed.

        Raises:
            UnknownTraceError: no such trace.
        """
        return self._store.read(arguments.text("session_id", session_id), after=after, limit=limit)

    def newest_sequence(self, session_id: str) -> int | None:
        """Sequence of the newest event of a session; None if its chain can't be read."""
        try:
            head = self._store.head(session_id)
        except TraceError:
            return None
        return head.sequence if head is not None else None

    def verify_chain(self, session_id: str) -> Verification:
        """Check a whole chain.

        Raises:
            UnknownTraceError: no such trace.
        """
        lines = self._store.read(arguments.text("session_id", session_id))
        return verify(lines, session_id=session_id, tail=self._store.unfinished(session_id))

    def list_traces(self) -> list[TraceInfo]:
        """All traces in the store, the most recently written first."""
        return self._store.sessions()

    def owner_of(self, session_id: str) -> Owner | None:
        """Whoever a trace belongs to; None where there is no such trace."""
        return self._owners.of(session_id)

    def recover_trace(self, session_id: str) -> Recovery:
        """Keep the longest valid prefix of a trace nobody writes, and set the rest aside.

        Raises:
            TraceLockedError: it is being written.
            UnknownTraceError: no such trace.
        """
        return self._store.recover(session_id)

    # --- approvals -------------------------------------------------------------------------------------------------

    def pending_approvals(self) -> list[Approval]:
        """Approvals waiting for an answer in this data folder, the newest first."""
        return self._ledger.pending()

    def approval(self, approval_id: str) -> Approval:
        """One approval, whatever became of it.

        Raises:
            ApprovalError: ``unknown_approval``.
        """
        return self._ledger.get(arguments.text("approval_id", approval_id))

    def settle_approval(
        self,
        approval_id: str,
        *,
        granted: bool,
        by: str,
        channel: Channel = "library",
        comment: str | None = None,
    ) -> Approval:
        """Grant or reject a pending approval. The call it was asked for is then made again by the agent.

        Raises:
            ApprovalError: ``unknown_approval``, ``approval_settled`` or ``approval_expired``.
        """
        return self._ledger.settle(
            arguments.text("approval_id", approval_id), granted=granted, by=by, channel=channel, comment=comment
        )

    def withdraw_approval(self, approval_id: str, *, by: str, channel: Channel = "library") -> bool:
        """Take back a granted approval that was not used; it is a rejected one then. False if there was none."""
        return self._ledger.withdraw(approval_id, by=by, channel=channel)
