"""Counts and times of many traces: from the index where there is one, else from the lines themselves; both say the same.

Rule: total over any lines. They count what traces say, and verify nothing. Percentiles are exact, by nearest rank: the smallest
duration that at least so many of a hundred do not exceed.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Literal, cast

from cra_mcp.trace.entries import entry_of, place_of

By = Literal["action", "agent", "policy", "decision", "hour"]

_EXPRESSIONS = {
    "action": "action_id",
    "agent": "agent_id",
    "policy": "policy_id",
    "decision": "decision",
    "hour": "substr(timestamp, 1, 13)",
}
_HOUR_CHARS = len("2026-01-31T08")
_MAX_HOURS = 24 * 31
_TIMED = ("action.executed", "action.failed")


@dataclass(frozen=True, slots=True)
class Figures:
    """What events there were of a group.

    Attributes:
        key: the action, agent, policy, decision or hour; None for all together.
        calls: calls asked for; None by policy and by decision, since asking is neither.
        decided: decisions of policy, of which a call can have two.
        executed, failed, denied: how calls ended; the first two None by policy, since those events name none.
        asked, granted, refused: approvals asked for, given, and rejected or expired.
        errors: ``error.occurred``.
        p50_ms, p95_ms: milliseconds that carrying out took; None where nothing was carried out.
    """

    key: str | None
    events: int
    calls: int | None
    decided: int
    executed: int | None
    failed: int | None
    denied: int
    asked: int
    granted: int
    refused: int
    errors: int
    p50_ms: float | None
    p95_ms: float | None

    def to_dict(self) -> dict[str, object]:
        """A JSON object of the same names."""
        return asdict(self)


class Statistics:
    """Figures being counted.

    Args:
        by: what groups are made of. Events that have none of it count in the total only.
    """

    def __init__(self, by: By) -> None:
        self._by: By = by
        self._counts: dict[str | None, Counter[str]] = {}
        self._durations: dict[str | None, list[float]] = {}
        self._total: Counter[str] = Counter()
        self._all_durations: list[float] = []
        self.sessions: int = 0
        self.unreadable: int = 0

    def count_index(
        self, connection: sqlite3.Connection, *, sessions: Sequence[str] | None = None, since: str | None = None
    ) -> None:
        """Count what an index has.

        Args:
            connection: to the index.
            sessions: session ids; None for all.
            since: timestamp of the first moment wanted.
        """
        conditions, values = ["1"], cast("list[object]", [])
        if since is not None:
            conditions.append("event >= ?")
            values.append(place_of(since))
        if sessions is not None:
            conditions.append(
                "session IN (SELECT session FROM sessions WHERE session_id IN (SELECT value FROM json_each(?)))"
            )
            values.append(json.dumps(list(sessions)))
        where = " AND ".join(conditions)
        source = f"FROM events JOIN sessions USING (session) WHERE {where}"
        key = _EXPRESSIONS[self._by]
        rows = connection.execute(f"SELECT {key}, event_type, COUNT(*) {source} GROUP BY 1, 2", values)
        for group, event_type, count in rows:
            self._add(group, event_type, count)
        rows = connection.execute(
            f"SELECT {key}, duration_ms {source} AND event_type IN (?, ?) AND duration_ms IS NOT NULL",
            (*values, *_TIMED),
        )
        for group, duration_ms in rows:
            self._time(group, duration_ms)
        (self.sessions,) = connection.execute(f"SELECT COUNT(DISTINCT session) {source}", values).fetchone()
        chosen = "" if sessions is None else "WHERE session_id IN (SELECT value FROM json_each(?))"
        (self.unreadable,) = connection.execute(
            f"SELECT COALESCE(SUM(unreadable), 0) FROM sessions {chosen}",  # noqa: S608 - texts of ours
            () if sessions is None else (values[-1],),
        ).fetchone()

    def count_lines(self, lines: Iterable[bytes], *, since: str | None = None) -> None:
        """Count the stored lines of one session, from its first."""
        agent_id: str | None = None
        first = place_of(since) if since is not None else 0
        counts: Counter[tuple[str | None, str]] = Counter()
        times: list[tuple[str | None, float]] = []
        for line in lines:
            entry = entry_of(line)
            if entry is None:
                self.unreadable += 1
                continue
            _, timestamp, event_type, action_id, decision, policy_id, duration_ms = entry.columns
            if event_type == "session.started":
                told = entry.payload.get("agent_id")
                agent_id = told if isinstance(told, str) else None
            if entry.place < first:
                continue
            fields = {"action": action_id, "policy": policy_id, "decision": decision, "hour": timestamp[:_HOUR_CHARS]}
            group = fields.get(self._by)
            counts[group, event_type] += 1
            if event_type in _TIMED and duration_ms is not None:
                times.append((group, duration_ms))
        # A session is all of one agent: the one its beginning names, wherever that stands.
        whole = self._by == "agent"
        for (group, event_type), count in counts.items():
            self._add(agent_id if whole else group, event_type, count)
        for group, duration_ms in times:
            self._time(agent_id if whole else group, duration_ms)
        self.sessions += bool(counts)

    @property
    def total(self) -> Figures:
        """All events together."""
        return _figures(None, self._total, self._all_durations)

    def groups(self) -> list[Figures]:
        """The groups, those with the most calls first; hours in order, those without an event among them included."""
        found = [
            _figures(key, counts, self._durations.get(key, []), self._by)
            for key, counts in self._counts.items()
            if key is not None
        ]
        if self._by == "hour":
            return list(_every_hour(sorted(found, key=lambda each: each.key or "")))
        return sorted(found, key=lambda each: (-weight(each), -each.events, each.key or ""))

    def _add(self, group: str | None, event_type: str, count: int) -> None:
        self._total[event_type] += count
        self._counts.setdefault(group, Counter())[event_type] += count

    def _time(self, group: str | None, duration_ms: float) -> None:
        self._all_durations.append(duration_ms)
        self._durations.setdefault(group, []).append(duration_ms)


def weight(figures: Figures) -> int:
    """How much a group counts beside others: its calls, or decisions where calls are not known."""
    return figures.calls if figures.calls is not None else figures.decided


def percentile(ordered: Sequence[float], per_cent: int) -> float | None:
    """The nearest rank of sorted values; None of none."""
    return ordered[max(0, ceil(len(ordered) * per_cent / 100) - 1)] if ordered else None


def _figures(key: str | None, counts: Counter[str], durations: list[float], by: By | None = None) -> Figures:
    ordered = sorted(durations)
    asked_for, ended = by not in {"policy", "decision"}, by != "policy"
    return Figures(
        key=key,
        events=counts.total(),
        calls=counts["action.requested"] if asked_for else None,
        decided=counts["policy.evaluated"],
        executed=counts["action.executed"] if ended else None,
        failed=counts["action.failed"] if ended else None,
        denied=counts["action.denied"],
        asked=counts["approval.requested"],
        granted=counts["approval.granted"],
        refused=counts["approval.rejected"] + counts["approval.expired"],
        errors=counts["error.occurred"],
        p50_ms=percentile(ordered, 50),
        p95_ms=percentile(ordered, 95),
    )


def _every_hour(found: Sequence[Figures]) -> Iterator[Figures]:
    """With the hours between, so that a chart of them is one of time; as they are where they are too far apart."""
    try:
        first, last = (datetime.fromisoformat(f"{figures.key}:00") for figures in (found[0], found[-1]))
    except (ValueError, IndexError):
        yield from found
        return
    hours = int((last - first) / timedelta(hours=1)) + 1
    if hours > _MAX_HOURS:
        yield from found
        return
    known = {figures.key: figures for figures in found}
    for hour in range(hours):
        key = (first + timedelta(hours=hour)).strftime("%Y-%m-%dT%H")
        yield known.get(key) or _figures(key, Counter(), [])
