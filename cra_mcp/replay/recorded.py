"""What a trace says was asked and decided: the forms its requests and calls are put together in.

Source: specs/trace.md, "Event types" and "Replay".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from cra_mcp.policy.model import Facts
from cra_mcp.resolution.model import Query

Payload = Mapping[str, object]
Verdict = Literal["allow", "require_approval", "deny", "invalid", "unanswered"]


@dataclass(frozen=True, slots=True)
class AtlasRef:
    """An atlas as a trace names it."""

    atlas_id: str
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class CatalogueChange:
    """From ``sequence`` on another atlas is loaded, or one fewer, or an overlay more.

    Attributes:
        atlas: which; ``atlas_id`` is the name of an overlay.
        replaces: the id of the atlas, or the name of the overlay, in whose place it is loaded.
    """

    sequence: int
    kind: Literal["loaded", "unloaded", "overlay"]
    atlas: AtlasRef
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A CARP resolve and its recorded answer.

    Attributes:
        sequence: of the answer.
        at_us: the instant it was given for, microseconds since the epoch.
        masked: something of what was asked, or of the session's facts, was hidden before it was recorded.
        answer: payload of ``carp.resolution.completed``, or of ``carp.resolution.cached``; None for an error.
        error_code: of a request that was refused.
    """

    sequence: int
    at_us: int
    query: Query
    facts: Facts
    resolution_id: str | None
    answer: Payload | None
    error_code: str | None = None
    masked: bool = False


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One ``policy.evaluated``: what policy said of a call at an instant, with or without consent given before."""

    sequence: int
    at_us: int
    result: str
    policy_id: str
    basis: str
    determining: tuple[str, ...]
    consented: bool


@dataclass(slots=True)
class RecordedCall:
    """A call and everything that was decided on it.

    Attributes:
        sequence: of ``action.requested``.
        requested_us: when it is dated, microseconds since the epoch.
        parameters: None where the trace holds only a part or a hash of them, or they are no object.
        formless: they are known to be no JSON object, or to have no canonical form, or to be too large.
        resolution_id: None in traces that don't say it.
        evaluations: in order.
        invalid: its parameters were refused.
        broken_off: it ended before anything was decided on it: cancelled, or for want of the state that processes share.
        approval: what became of the consent it needed, an event type; None if it needed none or nobody has answered.
    """

    sequence: int
    requested_us: int
    span_id: str
    action_id: str
    parameters: Payload | None
    parameters_hash: str
    resolution_id: str | None
    formless: bool = False
    evaluations: list[Evaluation] = field(default_factory=list[Evaluation])
    invalid: bool = False
    approved: bool = False
    broken_off: bool = False
    denied_by: str | None = None
    approval: str | None = None

    @property
    def verdict(self) -> Verdict:
        """What policy made of the call: that consent was needed, whatever was answered, unless a limit refused it then."""
        if self.invalid:
            return "invalid"
        if self.evaluations and self.evaluations[-1].result == "deny":
            return "deny"
        if self.approval is not None:
            return "require_approval"
        return cast("Verdict", self.evaluations[0].result) if self.evaluations else "unanswered"

    @property
    def policy_id(self) -> str | None:
        """The policy that was named first."""
        return self.evaluations[0].policy_id if self.evaluations else self.denied_by


@dataclass(slots=True)
class RecordedSession:
    """A whole trace, as far as decisions go. Lists are in the order of the chain.

    Attributes:
        overlays: in force from the start, in load order; ``atlas_id`` is the name of an overlay.
        shadow: only the overlays' denials were enforced.
    """

    session_id: str
    started_us: int
    facts: Facts
    goal: str
    atlases: tuple[AtlasRef, ...]
    overlays: tuple[AtlasRef, ...] = ()
    shadow: bool = False
    changes: list[CatalogueChange] = field(default_factory=list[CatalogueChange])
    asked: list[Asked] = field(default_factory=list[Asked])
    calls: list[RecordedCall] = field(default_factory=list[RecordedCall])
    events: int = 0
