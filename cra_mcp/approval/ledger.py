"""The record of approvals that all processes of one person share.

Rule: an approval is granted once, used once, by the session that asked, for exactly the arguments shown, before it expires.
Every step is one transaction, so two processes can't both take it.
"""

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace

import orjson

from cra_mcp.approval.model import Approval, Channel
from cra_mcp.errors import ApprovalError
from cra_mcp.state.database import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS approvals (
  approval_id TEXT PRIMARY KEY,
  session_id TEXT NOT NULL,
  agent_id TEXT NOT NULL,
  action_id TEXT NOT NULL,
  parameters_hash TEXT NOT NULL,
  parameters TEXT NOT NULL,
  policy_id TEXT NOT NULL,
  reason TEXT NOT NULL,
  risk_tier TEXT NOT NULL,
  requested_at_us INTEGER NOT NULL,
  expires_at_us INTEGER NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('pending', 'granted', 'rejected', 'expired', 'consumed')),
  decided_by TEXT,
  channel TEXT,
  decided_at_us INTEGER
) STRICT;
CREATE TABLE IF NOT EXISTS approval_comments (approval_id TEXT PRIMARY KEY, comment TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS approval_owners (
  approval_id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL,
  realm TEXT NOT NULL,
  subject TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS approvals_by_owner ON approval_owners (tenant, realm, subject);
CREATE INDEX IF NOT EXISTS approvals_by_call ON approvals (session_id, action_id, parameters_hash, requested_at_us);
CREATE INDEX IF NOT EXISTS approvals_by_status ON approvals (status, expires_at_us);
"""

Owner = tuple[str, str, str]
"""Tenant, realm and subject (specs/identity.md, "Ownership")."""

_COLUMNS = (
    "approval_id, session_id, agent_id, action_id, parameters_hash, parameters, policy_id, reason, risk_tier, "
    "requested_at_us, expires_at_us, status, decided_by, channel, decided_at_us"
)
_COMMENT = "(SELECT comment FROM approval_comments WHERE approval_id = approvals.approval_id) AS comment"
_READ = f"{_COLUMNS}, {_COMMENT}"


class ApprovalLedger:
    """Approvals in a database.

    Args:
        database: opened with ``SCHEMA``.
        now_us: the time, microseconds since the epoch.
        redact: what the ledger may keep and show of recorded parameters of an action; all of them where it is left out.
    """

    def __init__(
        self,
        database: Database,
        now_us: Callable[[], int],
        *,
        redact: Callable[[object, str], object] = lambda parameters, _: parameters,
    ) -> None:
        self._database = database
        self._now_us = now_us
        self._lock = threading.Lock()
        self._changes = 0
        self._listeners: tuple[Callable[[Approval], None], ...] = ()
        self._redact = redact

    def listen(self, listener: Callable[[Approval], None]) -> None:
        """Tell ``listener``, on any thread, of every approval that this object has requested, settled or found settled."""
        self._listeners = (*self._listeners, listener)

    def check(self) -> None:
        """Open the database, if it isn't open, and ask it something.

        Raises:
            StateUnavailableError: it can't be opened or read.
        """
        self._database.version()

    def tell(self, approval: Approval) -> None:
        """An approval is no longer as it was."""
        with self._lock:
            self._changes += 1
        for listener in self._listeners:
            listener(approval)

    def request(self, approval: Approval, *, owner: Owner | None = None, at_most: int = 0) -> Approval:
        """Record a new pending approval; what is returned is what was recorded.

        Args:
            approval: what is asked.
            owner: whose call it is.
            at_most: how many of one owner can wait at a time, in every process together; 0: any number.

        Raises:
            ApprovalError: ``too_many_pending``: as many of its owner's wait already.
            StateUnavailableError: it could not be recorded.
        """
        approval = replace(approval, parameters=self._redact(approval.parameters, approval.action_id))
        with self._database.transaction() as connection:
            if owner is not None:
                self._expire(connection)
                if at_most and self._waiting_of(connection, owner) >= at_most:
                    raise ApprovalError(
                        f"{at_most} calls of yours wait for approval already",
                        code="too_many_pending",
                        hint="have some of them answered first",
                    )
                connection.execute("INSERT INTO approval_owners VALUES (?, ?, ?, ?)", (approval.approval_id, *owner))
            connection.execute(
                f"INSERT INTO approvals ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",  # noqa: S608 - constant
                (
                    approval.approval_id,
                    approval.session_id,
                    approval.agent_id,
                    approval.action_id,
                    approval.parameters_hash,
                    orjson.dumps(approval.parameters).decode(),
                    approval.policy_id,
                    approval.reason,
                    approval.risk_tier,
                    approval.requested_at_us,
                    approval.expires_at_us,
                    approval.status,
                    approval.decided_by,
                    approval.channel,
                    approval.decided_at_us,
                ),
            )
        self.tell(approval)
        return approval

    def latest(self, session_id: str, action_id: str, parameters_hash: str) -> Approval | None:
        """The last approval asked for exactly this call, whatever the clock says, expired ones marked so; None if there is none."""
        with self._database.transaction() as connection:
            self._expire(connection)
            row = connection.execute(
                f"SELECT {_READ} FROM approvals WHERE session_id = ? AND action_id = ? AND parameters_hash = ? "  # noqa: S608
                "ORDER BY rowid DESC LIMIT 1",
                (session_id, action_id, parameters_hash),
            ).fetchone()
        return _approval(row) if row is not None else None

    def settle(
        self, approval_id: str, *, granted: bool, by: str, channel: Channel, comment: str | None = None
    ) -> Approval:
        """Grant or reject a pending approval.

        Raises:
            ApprovalError: ``unknown_approval``, ``approval_settled`` or ``approval_expired``.
            StateUnavailableError: it could not be recorded.
        """
        with self._database.transaction() as connection:
            self._expire(connection)
            found = self._get(connection, approval_id)
            if found.status == "expired":
                raise ApprovalError(
                    f"approval {approval_id} has expired",
                    code="approval_expired",
                    hint="have the agent call the action again; a new approval is asked for",
                )
            if found.status != "pending":
                raise ApprovalError(
                    f"approval {approval_id} is already {found.status}",
                    code="approval_settled",
                    hint="an approval is decided once; see `cra-mcp pending` for open ones",
                )
            connection.execute(
                "UPDATE approvals SET status = ?, decided_by = ?, channel = ?, decided_at_us = ? WHERE approval_id = ?",
                ("granted" if granted else "rejected", by, channel, self._now_us(), approval_id),
            )
            if comment is not None:
                connection.execute("INSERT INTO approval_comments VALUES (?, ?)", (approval_id, comment))
            settled = self._get(connection, approval_id)
        self.tell(settled)
        return settled

    def withdraw(self, approval_id: str, *, by: str, channel: Channel) -> bool:
        """Make a granted approval that was not used a rejected one. False if there was none.

        Raises:
            StateUnavailableError: it could not be recorded.
        """
        with self._database.transaction() as connection:
            cursor = connection.execute(
                "UPDATE approvals SET status = 'rejected', decided_by = ?, channel = ?, decided_at_us = ? "
                "WHERE approval_id = ? AND status = 'granted'",
                (by, channel, self._now_us(), approval_id),
            )
            return cursor.rowcount == 1

    def consume(self, approval_id: str) -> bool:
        """Use a granted approval up. False if it was not granted, is expired or was used before."""
        with self._database.transaction() as connection:
            self._expire(connection)
            cursor = connection.execute(
                "UPDATE approvals SET status = 'consumed' WHERE approval_id = ? AND status = 'granted'", (approval_id,)
            )
            return cursor.rowcount == 1

    def expire(self, approval_id: str) -> None:
        """Close a pending approval nobody will answer any more."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE approvals SET status = 'expired' WHERE approval_id = ? AND status = 'pending'", (approval_id,)
            )

    def get(self, approval_id: str) -> Approval:
        """One approval.

        Raises:
            ApprovalError: ``unknown_approval``.
        """
        with self._database.transaction() as connection:
            self._expire(connection)
            return self._get(connection, approval_id)

    def version(self) -> tuple[int, int]:
        """Something that differs once an approval has changed, in this process or another. Cheap: it takes no right to write.

        Raises:
            StateUnavailableError: the database can't be read.
        """
        return self._database.version(), self._changes

    def is_pending(self, approval_id: str) -> bool:
        """Whether an approval still waits for an answer, or has expired unanswered. Raises as ``version``."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT status FROM approvals WHERE approval_id = ?", (approval_id,)).fetchone()
        return row is not None and row["status"] == "pending"

    def pending(self) -> list[Approval]:
        """All approvals that wait for an answer, the newest first."""
        if not self._database.exists():
            return []
        with self._database.transaction() as connection:
            self._expire(connection)
            rows = connection.execute(
                f"SELECT {_READ} FROM approvals WHERE status = 'pending' "  # noqa: S608
                "ORDER BY requested_at_us DESC, approval_id DESC"
            ).fetchall()
        return [_approval(row) for row in rows]

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    @staticmethod
    def _waiting_of(connection: sqlite3.Connection, owner: Owner) -> int:
        (count,) = connection.execute(
            "SELECT count(*) FROM approval_owners JOIN approvals USING (approval_id) "
            "WHERE tenant = ? AND realm = ? AND subject = ? AND status = 'pending'",
            owner,
        ).fetchone()
        return count

    def _expire(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE approvals SET status = 'expired' WHERE status IN ('pending', 'granted') AND expires_at_us <= ?",
            (self._now_us(),),
        )

    def _get(self, connection: sqlite3.Connection, approval_id: str) -> Approval:
        row = connection.execute(
            f"SELECT {_READ} FROM approvals WHERE approval_id = ?",  # noqa: S608
            (approval_id,),
        ).fetchone()
        if row is None:
            raise unknown_approval()
        return _approval(row)


def unknown_approval() -> ApprovalError:
    """What asking for an approval that isn't there answers; one that is none of the asker's business answers the same."""
    return ApprovalError(
        "no approval has this id", hint="see `cra-mcp pending` (with the same data folder as the server)"
    )


def _approval(row: sqlite3.Row) -> Approval:
    return Approval(**{**dict(row), "parameters": orjson.loads(row["parameters"])})
