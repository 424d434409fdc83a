"""Answers kept by everything they were worked out from, so that asking again costs one look-up.

Rule: the key holds all that the tests read: agent id, the context keys that occur in them, the principal if it does, and the
span of time in which no time window opens or closes. So an answer can't go stale, and there is nothing to invalidate.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from cra_mcp.policy.conditions import FactsCondition, Truth
from cra_mcp.policy.model import Facts

T = TypeVar("T")

_MAX_ROWS = 256
_MAX_CHARS = 1_024
"""Answers for longer inputs are not kept: they would keep the text alive."""
_FOREVER = 1 << 127


_Key = str | tuple[str | None, ...]
"""The agent id alone, or followed by the value of each context key (None where that is no string), and by the principal."""


class _Span(Generic[T]):
    """Answers that hold from ``since`` until just before ``until``."""

    __slots__ = ("rows", "since", "until")

    def __init__(self, since: int, until: int) -> None:
        self.since = since
        self.until = until
        self.rows: dict[_Key, T] = {}


class Memo(Generic[T]):
    """A function of the results of some tests."""

    __slots__ = ("_keys", "_make", "_plain", "_principal", "_schedules", "_span", "_tests")

    def __init__(self, conditions: Sequence[FactsCondition], make: Callable[[tuple[Truth, ...]], T]) -> None:
        """Keep what ``make`` returns for the results of ``conditions``, in their order. ``make`` must be pure."""
        self._make = make
        self._tests = tuple(condition.test for condition in conditions)
        self._keys = tuple({key: None for condition in conditions for key in condition.context_keys})
        self._principal = any(condition.reads_principal for condition in conditions)
        self._plain = not self._keys and not self._principal
        self._schedules = tuple(condition.schedule for condition in conditions if condition.schedule is not None)
        self._span: _Span[T] = _Span(0, 0) if self._schedules else _Span(-_FOREVER, _FOREVER)

    def get(self, facts: Facts, now_us: int) -> T:
        """Return the answer for this requester at this instant."""
        span = self._span
        if not span.since <= now_us < span.until:
            span = self._span = self._new_span(now_us)
        key = facts.agent_id
        if not self._plain:
            context = facts.context
            inputs: list[str | None] = [key]
            for name in self._keys:
                value = context.get(name)
                inputs.append(value if isinstance(value, str) else None)
            if self._principal:
                inputs += (facts.subject, *sorted(facts.roles))
            key = tuple(inputs)
        found = span.rows.get(key)
        return self._new_row(span, key, facts, now_us) if found is None else found

    def _new_span(self, now_us: int) -> _Span[T]:
        return _Span(now_us, min(schedule.good_until(now_us) for schedule in self._schedules))

    def _new_row(self, span: _Span[T], key: _Key, facts: Facts, now_us: int) -> T:
        row = self._make(tuple([test(facts, now_us) for test in self._tests]))
        texts = (key,) if isinstance(key, str) else key
        if sum(len(text) for text in texts if text is not None) <= _MAX_CHARS:
            if len(span.rows) >= _MAX_ROWS:
                span.rows.clear()
            span.rows[key] = row
        return row
