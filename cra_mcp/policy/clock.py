"""When what an expression says by the clock can change: so long, and no longer, an answer that rests on it may be kept.

Rule: never too late. What is understood has exact boundaries; of everything else no answer is kept.
Source: specs/policy.md, "Expressions".
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cra_mcp.policy.expression import Expression, Token, plain_string, tokens_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SECOND_US: Final = 1_000_000
_MINUTE_US: Final = 60 * _SECOND_US
_QUARTER_US: Final = 15 * _MINUTE_US
"""Offsets of all zones are whole quarters of an hour: what a calendar shows changes at no other instants."""

_PERIODS_US: Final = {
    "getMilliseconds": 1_000,
    "getSeconds": _SECOND_US,
    "getMinutes": _MINUTE_US,
    **dict.fromkeys(
        ("getHours", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getMonth", "getFullYear"), _QUARTER_US
    ),
}
_OFFSET = re.compile(r"[-+]?[0-9]{2}:[0-9]{2}")
_COMPARISONS: Final = frozenset({"<", "<=", ">", ">=", "==", "!="})
_BEFORE: Final = frozenset({"(", "[", ",", "&&", "||", "?", ":"})
_BEHIND: Final = frozenset({")", "]", ",", "&&", "||", "?", ":"})


@dataclass(frozen=True, slots=True)
class ClockUse:
    """How an expression reads ``now``.

    Attributes:
        instants: microseconds since the epoch, in order: it can change at each of them.
        period_us: it can change at every multiple of this many microseconds; None: at no such.
        at_any: it can change at any instant.
    """

    instants: tuple[int, ...] = ()
    period_us: int | None = None
    at_any: bool = False

    def next_change(self, now_us: int) -> int | None:
        """Return an instant after ``now_us`` before which it doesn't change; None if it never changes."""
        if self.at_any:
            return now_us + 1
        changes = [instant for instant in self.instants if instant > now_us][:1]
        if self.period_us is not None:
            changes.append((now_us // self.period_us + 1) * self.period_us)
        return min(changes, default=None)


def clock_use(expression: Expression) -> ClockUse | None:
    """How an expression reads ``now``; None if it doesn't."""
    if "now" not in expression.fields:
        return None
    tokens = list(tokens_of(expression.text))
    instants: set[int] = set()
    periods: list[int] = []
    for at, token in enumerate(tokens):
        if token.text != "now" or _text(tokens, at - 1) == ".":
            continue
        period = _period(tokens, at)
        instant = _compared_with(tokens, at)
        if period is not None:
            periods.append(period)
        elif instant is not None:
            instants.update((instant, instant + 1))  # the last instant of which something holds, or the first
        else:
            return ClockUse(at_any=True)
    return ClockUse(tuple(sorted(instants)), min(periods, default=None))


def _period(tokens: Sequence[Token], at: int) -> int | None:
    """How often ``now.get...(zone)`` changes, where it is such.

    An offset may be any of whole minutes; of a zone that isn't written out nothing is known.
    """
    period = _PERIODS_US.get(_text(tokens, at + 2)) if _text(tokens, at + 1) == "." else None
    if period is None or _text(tokens, at + 4) == ")":
        return period
    zone = (plain_string(tokens[at + 4]) or "") if _text(tokens, at + 5) == ")" else ""
    if _OFFSET.fullmatch(zone):
        return min(period, _MINUTE_US)
    return period if zone[:1].isalpha() else min(period, _SECOND_US)


def _compared_with(tokens: Sequence[Token], at: int) -> int | None:
    """The instant that ``now`` is compared with, in a comparison that stands alone; None if there is no such."""
    if _text(tokens, at + 1) in _COMPARISONS:
        literal, first, last = at + 4, at, at + 5
    else:
        literal, first, last = at - 3, at - 5, at
    call = [_text(tokens, each) for each in (literal - 2, literal - 1, literal + 1)]
    comparison = _text(tokens, at + 1 if first == at else at - 1)
    before, behind = _text(tokens, first - 1), _text(tokens, last + 1)
    if call != ["timestamp", "(", ")"] or comparison not in _COMPARISONS:
        return None
    if before not in {"", *_BEFORE} or behind not in {"", *_BEHIND}:
        return None
    return _instant(tokens[literal])


def _instant(token: Token) -> int | None:
    """Microseconds since the epoch; None if no instant is written out."""
    try:
        return (datetime.fromisoformat(plain_string(token) or "") - _EPOCH) // _MICROSECOND
    except (ValueError, TypeError):  # no instant; or one without a zone
        return None


def _text(tokens: Sequence[Token], at: int) -> str:
    return tokens[at].text if 0 <= at < len(tokens) else ""
