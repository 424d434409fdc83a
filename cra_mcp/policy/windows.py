"""Time windows on a wall clock: open or not at an instant, and when that changes next.

Rule: the instant is an argument; no clock is read. A zone's rules are loaded once, when a schedule is made. What a
clock on the wall shows decides: where clocks skip an hour, the part of a window inside it doesn't happen; where they
repeat one, it happens twice.
Source: specs/policy.md, "Time windows".
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

from cra_mcp.policy.model import TimeWindow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SECOND_US = 1_000_000
_DAY_US = 86_400 * _SECOND_US
_MINUTES_A_DAY = 1_440
_HORIZON_DAYS = 16
"""A window that opens at all opens within a week of any instant, or within two where clocks skip over it once."""

_EVERY_DAY = frozenset(range(7))
_NOT_ZONES = frozenset({"Factory", "localtime", "posixrules", "posix", "right"})
"""Files beside the zones that differ between machines, or count leap seconds."""


def load_zone(name: str) -> tzinfo:
    """Find a time zone by its IANA name. ``UTC`` needs no time zone database.

    Raises:
        ValueError: there is no such zone.
    """
    if name == "UTC":
        return UTC
    if name.split("/", 1)[0] not in _NOT_ZONES:
        try:
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError):  # absent; not a zone; a folder of zones
            pass
    msg = f"unknown time zone {name!r}: use an IANA name such as 'Europe/Berlin', or 'UTC'"
    raise ValueError(msg)


class Schedule:
    """One time window, ready to be asked.

    The answer is kept with the span of time it is good for, so that asking again costs a comparison.
    """

    __slots__ = ("_span", "_window", "_zone")

    def __init__(self, window: TimeWindow) -> None:
        """Load the window's zone.

        Raises:
            ValueError: there is no such zone.
        """
        self._window = window
        self._zone = load_zone(window.timezone)
        self._span: tuple[int, int, bool, bool] = (0, 0, False, False)
        """From, until, open in between, and whether ``until`` is a change or only as far as was looked."""

    def is_open(self, now_us: int) -> bool | None:
        """Tell whether the window is open. None where the calendar ends (years before 1 or after 9999)."""
        span = self._at(now_us)
        return None if span is None else span[2]

    def next_change(self, now_us: int) -> int | None:
        """Return the first instant after ``now_us`` at which the window opens or closes; None if it never does."""
        span = self._at(now_us)
        return None if span is None or not span[3] else span[1]

    def good_until(self, now_us: int) -> int:
        """Return an instant after ``now_us`` before which ``is_open`` answers the same."""
        span = self._at(now_us)
        return now_us + 1 if span is None else span[1]

    def _at(self, now_us: int) -> tuple[int, int, bool, bool] | None:
        span = self._span
        return span if span[0] <= now_us < span[1] else self._look(now_us)

    def _look(self, now_us: int) -> tuple[int, int, bool, bool] | None:
        """Evaluate afresh and remember (one assignment, so that threads see the old span or the new one)."""
        try:
            state = self._open_at(now_us)
            change = self._find_change(now_us, state)
        except (OverflowError, ValueError):
            return None
        until = now_us + (_HORIZON_DAYS - 1) * _DAY_US if change is None else change
        self._span = span = (now_us, until, state, change is not None)
        return span

    def _open_at(self, now_us: int) -> bool:
        window, local = self._window, self._local(now_us)
        minute, day, days = local.hour * 60 + local.minute, local.weekday(), window.days or _EVERY_DAY
        if window.start < window.end:
            return window.start <= minute < window.end and day in days
        return (minute >= window.start and day in days) or (minute < window.end and (day - 1) % 7 in days)

    def _find_change(self, now_us: int, state: bool) -> int | None:
        for instant in sorted({instant for instant in self._candidates(now_us) if instant > now_us}):
            if self._open_at(instant) != state:
                return instant
        return None

    def _candidates(self, now_us: int) -> Iterator[int]:
        """Give every instant at which the window could open or close: its ends, and changes of the zone's offset."""
        today = self._local(now_us).date()
        for days in range(-2, _HORIZON_DAYS):
            day = today + timedelta(days=days)
            yield from self._instants(day, self._window.start)
            yield from self._instants(day, self._window.end)
        for days in range(_HORIZON_DAYS):
            yield from self._offset_change(now_us + days * _DAY_US, now_us + (days + 1) * _DAY_US)

    def _instants(self, day: date, minute: int) -> Iterator[int]:
        """Give the instants at which the wall shows this minute of this day: two where clocks are set back over it."""
        wall = datetime.combine(day + timedelta(days=minute // _MINUTES_A_DAY), time.min)
        wall += timedelta(minutes=minute % _MINUTES_A_DAY)
        for fold in (0, 1):
            yield (wall.replace(tzinfo=self._zone, fold=fold) - _EPOCH) // _MICROSECOND

    def _offset_change(self, from_us: int, until_us: int) -> Iterator[int]:
        """Find by bisection the second at which the zone's offset changes in a day, if it does."""
        before, after = from_us // _SECOND_US, until_us // _SECOND_US
        offset = self._local(before * _SECOND_US).utcoffset()
        if self._local(after * _SECOND_US).utcoffset() == offset:
            return
        while after - before > 1:
            middle = (before + after) // 2
            if self._local(middle * _SECOND_US).utcoffset() == offset:
                before = middle
            else:
                after = middle
        yield after * _SECOND_US

    def _local(self, now_us: int) -> datetime:
        return (_EPOCH + now_us * _MICROSECOND).astimezone(self._zone)
