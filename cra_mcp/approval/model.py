"""Values of an approval: what is asked, of whom, and what came of it.

Source: specs/carp.md, "Approval".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from cra_mcp.policy.model import EVIDENCE

Status = Literal["pending", "granted", "rejected", "expired", "consumed"]
Channel = Literal["elicitation", "client", "cli", "library", "approver"]
Grade = Literal["client_elicitation", "application", "local_cli", "authenticated_approver"]
Answer = Literal["granted", "rejected", "unanswered", "unavailable"]
"""``unanswered``: asked, and no answer came. ``unavailable``: the client put the question aside, so it may be asked elsewhere."""

GRADES: dict[Channel, Grade] = {
    "elicitation": "client_elicitation",
    "client": "client_elicitation",
    "library": "application",
    "cli": "local_cli",
    "approver": "authenticated_approver",
}
"""What an answer over each channel is worth, weakest first.

``client_elicitation``: the MCP client said so, when it was asked or by calling a tool; a hook or a model may have answered for
the person.
``application``: the program that embeds the runtime said so.
``local_cli``: somebody with this user's account ran ``cra-mcp approve``.
``authenticated_approver``: somebody else than whose call it is, with a credential of their own and a role that may approve.
"""


def is_enough(grade: str | None, min_evidence: str | None) -> bool:
    """Whether evidence of a grade counts where ``min_evidence`` is asked for (None: any grade does)."""
    return min_evidence is None or (grade is not None and EVIDENCE.index(grade) >= EVIDENCE.index(min_evidence))


@dataclass(frozen=True, slots=True)
class Approval:
    """One request for consent, bound to one session, action and set of arguments.

    Times are microseconds since the epoch. ``parameters`` is what traces record of them, for people to read.
    """

    approval_id: str
    session_id: str
    agent_id: str
    action_id: str
    parameters_hash: str
    parameters: object
    policy_id: str
    reason: str
    risk_tier: str
    requested_at_us: int
    expires_at_us: int
    status: Status = "pending"
    decided_by: str | None = None
    channel: Channel | None = None
    decided_at_us: int | None = None
    comment: str | None = None
    """What whoever decided had to say."""

    def __repr__(self) -> str:
        return f"Approval(approval_id={self.approval_id!r}, action_id={self.action_id!r}, status={self.status!r})"

    @property
    def grade(self) -> Grade | None:
        """Worth of the evidence, once decided."""
        return GRADES[self.channel] if self.channel is not None else None

    def to_dict(self) -> Mapping[str, object]:
        """As plain JSON, for people and programs."""
        return {
            "approval_id": self.approval_id,
            "session_id": self.session_id,
            "agent_id": self.agent_id,
            "action_id": self.action_id,
            "parameters": self.parameters,
            "parameters_hash": self.parameters_hash,
            "policy_id": self.policy_id,
            "reason": self.reason,
            "risk_tier": self.risk_tier,
            "requested_at_us": self.requested_at_us,
            "expires_at_us": self.expires_at_us,
            "status": self.status,
            "decided_by": self.decided_by,
            "channel": self.channel,
            "grade": self.grade,
            "decided_at_us": self.decided_at_us,
            "comment": self.comment,
        }


class Asker(Protocol):
    """A way to ask the person behind the caller while the call waits."""

    @property
    def channel(self) -> Channel:
        """Over which channel the answer comes."""
        ...

    async def ask(self, approval: Approval) -> Answer:
        """Put the question and wait for the answer; bounded by the caller."""
        ...
