"""What if: past calls decided by other policies, and which of them would now be decided otherwise.

Rule: the recorded calls are what was asked; nobody knows what else an agent would have asked. Limits are charged by the new
decisions, over all sessions in the order of time. Source: specs/trace.md, "What if".
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cra_mcp.policy.counters import Counters
from cra_mcp.policy.model import Decision
from cra_mcp.replay.again import LIMITS, decide
from cra_mcp.replay.library import Case, Library, Timeline
from cra_mcp.replay.recorded import RecordedCall, RecordedSession, Verdict

_Now = tuple[Verdict, Decision]


@dataclass(frozen=True, slots=True)
class Changed:
    """A past call that would now be decided otherwise.

    Attributes:
        requested_us: microseconds since the epoch.
        was: what policy made of it.
        was_policy: the policy that was named; None if none was.
        now: what it would make of it now.
        reason: the new deciding policy's.
    """

    session_id: str
    sequence: int
    requested_us: int
    agent_id: str
    action_id: str
    was: Verdict
    was_policy: str | None
    now: Verdict
    now_policy: str
    reason: str

    def to_dict(self) -> dict[str, object]:
        """As plain JSON."""
        return {
            "session_id": self.session_id,
            "sequence": self.sequence,
            "timestamp": datetime.fromtimestamp(self.requested_us / 1_000_000, UTC).isoformat(timespec="milliseconds"),
            "agent_id": self.agent_id,
            "action_id": self.action_id,
            "was": {"verdict": self.was, "policy_id": self.was_policy},
            "now": {"verdict": self.now, "policy_id": self.now_policy, "reason": self.reason},
        }


@dataclass(slots=True)
class Tally:
    """Counts of a what-if.

    Attributes:
        calls: how many were decided again.
        undetermined: how many could not be: the trace doesn't hold the arguments that are read.
        by_policy: changed calls by the policy that would now decide.
        by_agent: changed calls by agent.
        by_change: changed calls by ``was -> now``.
    """

    sessions: int = 0
    calls: int = 0
    undetermined: int = 0
    changed: int = 0
    by_policy: Counter[str] = field(default_factory=Counter[str])
    by_agent: Counter[str] = field(default_factory=Counter[str])
    by_change: Counter[str] = field(default_factory=Counter[str])

    def to_dict(self) -> dict[str, object]:
        """As plain JSON."""
        return {
            "sessions": self.sessions,
            "calls": self.calls,
            "changed": self.changed,
            "undetermined": self.undetermined,
            "by_policy": dict(self.by_policy.most_common()),
            "by_agent": dict(self.by_agent.most_common()),
            "by_change": dict(self.by_change.most_common()),
        }


def what_if(
    sessions: Iterable[tuple[int, Callable[[], RecordedSession]]], library: Library, tally: Tally
) -> Iterator[Changed]:
    """Past calls that would now be decided otherwise, in the order of time.

    Args:
        sessions: for each an instant before which nothing in it happened (microseconds), ascending, and what reads it. Only
            sessions that overlap in time are held at once.
        library: with the policies to try.
        tally: counts, added to on the way.

    Raises:
        TraceError: ``atlas_missing`` or ``not_replayable``.
    """
    counters = Counters()
    for timeline, session, call in _in_time_order(sessions, library, tally):
        tally.calls += 1
        if any(each.basis == "freeze" for each in call.evaluations) or (call.broken_off and not call.evaluations):
            continue  # what the operator stopped stays stopped, and nobody knows what was broken off
        decision = _decide(timeline, call, counters, library)
        if decision is None:
            tally.undetermined += 1
            continue
        now, named = decision
        if now == call.verdict or (call.verdict == "unanswered" and now == "require_approval"):
            continue
        changed = Changed(
            session.session_id,
            call.sequence,
            call.requested_us,
            session.facts.agent_id,
            call.action_id,
            call.verdict,
            call.policy_id,
            now,
            named.policy_id,
            named.reason,
        )
        tally.changed += 1
        tally.by_policy[changed.now_policy] += 1
        tally.by_agent[changed.agent_id] += 1
        tally.by_change[f"{changed.was} -> {changed.now}"] += 1
        yield changed


def _in_time_order(
    sessions: Iterable[tuple[int, Callable[[], RecordedSession]]], library: Library, tally: Tally
) -> Iterator[tuple[Timeline, RecordedSession, RecordedCall]]:
    waiting = iter(sessions)
    following = next(waiting, None)
    under_way: list[tuple[int, int, int, Timeline, RecordedSession, Iterator[RecordedCall], RecordedCall]] = []
    while under_way or following is not None:
        while following is not None and (not under_way or following[0] <= under_way[0][0]):
            session = following[1]()
            tally.sessions += 1
            calls = iter(session.calls)
            first = next(calls, None)
            if first is not None:
                entry = (_when(first), tally.sessions, first.sequence, library.timeline(session), session, calls, first)
                heapq.heappush(under_way, entry)
            following = next(waiting, None)
        if not under_way:
            continue
        _, number, _, timeline, session, calls, call = under_way[0]
        yield timeline, session, call
        after = next(calls, None)
        if after is None:
            heapq.heappop(under_way)
        else:
            heapq.heapreplace(under_way, (_when(after), number, after.sequence, timeline, session, calls, after))


def _when(call: RecordedCall) -> int:
    """The instant a call was decided for."""
    return call.evaluations[0].at_us if call.evaluations else call.requested_us


def _decide(timeline: Timeline, call: RecordedCall, counters: Counters, library: Library) -> _Now | None:
    """The new verdict and the decision behind it; None where it reads arguments that the trace doesn't hold."""
    case, at_us = timeline.case(call), _when(call)
    decision = decide(case, call, counters, at_us, consented=False)
    if decision is None or (decision.effect == "deny" and decision.basis not in LIMITS):
        return ("deny", decision) if decision is not None else None
    if _is_invalid(case, call, library):
        return "invalid", decision
    asks = decision.effect == "require_approval"
    if asks and call.approval == "approval.granted":
        decision = decide(case, call, counters, at_us, consented=True) or decision
    if decision.effect == "allow":
        counters.take(decision.limits, case.asked.facts, at_us, decision.charges)
    return ("require_approval" if asks and decision.effect != "deny" else decision.effect), decision


def _is_invalid(case: Case, call: RecordedCall, library: Library) -> bool:
    if call.formless:
        return True
    if call.parameters is None or case.found is None:
        return call.invalid  # refused for what the trace doesn't hold, which no policy changes
    return not library.parameters(*case.found).is_valid(call.parameters)
