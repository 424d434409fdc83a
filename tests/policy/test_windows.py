from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cra_mcp.policy.model import TimeWindow
from cra_mcp.policy.windows import Schedule, load_zone

MINUTE_US = 60_000_000
DAY_US = 1_440 * MINUTE_US
BERLIN = "Europe/Berlin"
WEEKDAYS = frozenset(range(5))


def instant_us(text):
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def hour(value):
    return int(value * 60)


@pytest.mark.parametrize(
    ("window", "at", "expected"),
    [
        (TimeWindow(hour(9), hour(17)), "2026-01-05T08:59:59.999999Z", False),
        (TimeWindow(hour(9), hour(17)), "2026-01-05T09:00:00Z", True),
        (TimeWindow(hour(9), hour(17)), "2026-01-05T16:59:59.999999Z", True),
        (TimeWindow(hour(9), hour(17)), "2026-01-05T17:00:00Z", False),
        (TimeWindow(hour(9), hour(17), BERLIN), "2026-01-05T08:00:00Z", True),
        (TimeWindow(hour(9), hour(17), BERLIN), "2026-07-06T07:00:00Z", True),
        (TimeWindow(hour(9), hour(17), BERLIN), "2026-07-06T15:00:00Z", False),
        (TimeWindow(hour(9), hour(17), days=WEEKDAYS), "2026-01-09T12:00:00Z", True),
        (TimeWindow(hour(9), hour(17), days=WEEKDAYS), "2026-01-10T12:00:00Z", False),
        (TimeWindow(hour(22), hour(6)), "2026-01-05T23:00:00Z", True),
        (TimeWindow(hour(22), hour(6)), "2026-01-06T05:59:59Z", True),
        (TimeWindow(hour(22), hour(6)), "2026-01-06T06:00:00Z", False),
        (TimeWindow(hour(22), hour(6), days=frozenset({4})), "2026-01-09T23:00:00Z", True),
        (TimeWindow(hour(22), hour(6), days=frozenset({4})), "2026-01-10T05:00:00Z", True),
        (TimeWindow(hour(22), hour(6), days=frozenset({4})), "2026-01-09T05:00:00Z", False),
        (TimeWindow(hour(22), hour(6), days=frozenset({4})), "2026-01-10T23:00:00Z", False),
        (TimeWindow(0, 1_440, days=frozenset({6})), "2026-01-11T23:59:59Z", True),
        (TimeWindow(0, 1_440, days=frozenset({6})), "2026-01-12T00:00:00Z", False),
        (TimeWindow(hour(9), hour(9), days=frozenset({6})), "2026-01-12T08:59:59Z", True),
        (TimeWindow(hour(9), hour(9), days=frozenset({6})), "2026-01-11T08:59:59Z", False),
    ],
)
def test_a_window_is_open_by_the_clock_on_the_wall_on_days_it_starts(window, at, expected):
    assert Schedule(window).is_open(instant_us(at)) is expected


@pytest.mark.parametrize(
    ("window", "at", "expected"),
    [
        # 2026-03-29 in Berlin: 02:00 becomes 03:00 at 01:00Z.
        (TimeWindow(hour(1), hour(2.5), BERLIN), "2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z"),
        (TimeWindow(hour(2.25), hour(2.75), BERLIN), "2026-03-28T12:00:00Z", "2026-03-30T00:15:00Z"),
        (TimeWindow(hour(2.5), hour(4), BERLIN), "2026-03-28T23:00:00Z", "2026-03-29T01:00:00Z"),
        # 2026-10-25: 03:00 becomes 02:00 at 01:00Z, so 02:15 to 02:45 happens twice.
        (TimeWindow(hour(2.25), hour(2.75), BERLIN), "2026-10-25T00:15:00Z", "2026-10-25T00:45:00Z"),
        (TimeWindow(hour(2.25), hour(2.75), BERLIN), "2026-10-25T00:45:00Z", "2026-10-25T01:15:00Z"),
        (TimeWindow(hour(2.25), hour(2.75), BERLIN), "2026-10-25T01:15:00Z", "2026-10-25T01:45:00Z"),
        (TimeWindow(hour(1), hour(2.5), BERLIN), "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z"),
        # Apia skipped all of 2011-12-30; a window of Fridays only missed one.
        (TimeWindow(0, 1_440, "Pacific/Apia", frozenset({4})), "2011-12-25T00:00:00Z", "2012-01-05T10:00:00Z"),
        (TimeWindow(hour(9), hour(17)), "2026-01-05T09:00:00Z", "2026-01-05T17:00:00Z"),
        (TimeWindow(hour(9), hour(17)), "2026-01-05T17:00:00Z", "2026-01-06T09:00:00Z"),
        (TimeWindow(hour(9), hour(17), days=frozenset({0})), "2026-01-05T17:00:00Z", "2026-01-12T09:00:00Z"),
    ],
)
def test_the_next_change_is_found_where_clocks_are_set_too(window, at, expected):
    schedule = Schedule(window)
    assert schedule.next_change(instant_us(at)) == instant_us(expected)
    assert schedule.good_until(instant_us(at)) == instant_us(expected)


@pytest.mark.parametrize(
    "window",
    [
        TimeWindow(0, 0),
        TimeWindow(hour(9), hour(9)),
        TimeWindow(0, 1_440),
        TimeWindow(0, 0, BERLIN, frozenset(range(7))),
    ],
)
def test_a_window_that_never_closes_has_no_next_change(window):
    schedule, now_us = Schedule(window), instant_us("2026-03-20T12:00:00Z")
    assert schedule.is_open(now_us) is True
    assert schedule.next_change(now_us) is None
    assert schedule.good_until(now_us) > now_us + 7 * DAY_US


windows = st.builds(
    TimeWindow,
    start=st.integers(0, 1_439),
    end=st.integers(0, 1_440),
    timezone=st.sampled_from(["UTC", BERLIN, "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    days=st.frozensets(st.integers(0, 6), max_size=6),
)
SET_BACK_OR_FORWARD = [
    instant_us(text)
    for text in ("2026-03-29T01:00:00Z", "2026-10-25T01:00:00Z", "2018-11-04T03:00:00Z", "2026-04-04T15:00:00Z")
]


@given(windows, st.sampled_from(SET_BACK_OR_FORWARD), st.integers(-3 * DAY_US, DAY_US))
@settings(deadline=None)
def test_windows_change_where_a_watch_kept_every_minute_sees_it(oracle, window, around, offset):
    schedule, now_us = Schedule(window), around + offset
    state = oracle.window_is_open(window, now_us)
    assert schedule.is_open(now_us) is state
    first_minute = now_us // MINUTE_US * MINUTE_US + MINUTE_US
    minutes = range(first_minute, first_minute + 2 * DAY_US, MINUTE_US)
    seen = next((minute for minute in minutes if oracle.window_is_open(window, minute) != state), None)
    change = schedule.next_change(now_us)
    if seen is None:
        assert change is None or change > minutes[-1]
    else:
        assert change == seen


def test_a_schedule_asked_about_the_past_does_not_answer_for_the_present():
    schedule = Schedule(TimeWindow(hour(9), hour(17)))
    noon = instant_us("2026-01-05T12:00:00Z")
    assert schedule.is_open(noon) is True
    assert schedule.is_open(noon - 6 * 60 * MINUTE_US) is False
    assert schedule.is_open(noon) is True


@pytest.mark.parametrize("now_us", [-(1 << 80), 1 << 80, 253_402_300_799_000_000, -62_135_596_800_000_000])
def test_beyond_the_calendar_a_window_can_not_be_evaluated(now_us):
    schedule = Schedule(TimeWindow(hour(9), hour(17), BERLIN))
    assert schedule.is_open(now_us) is None
    assert schedule.next_change(now_us) is None
    assert schedule.good_until(now_us) == now_us + 1


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "EST5EDT"])
def test_zones_are_known_by_their_iana_names(name):
    assert str(load_zone(name)) == name


@pytest.mark.parametrize(
    "name",
    [
        "Europe/Atlantis",
        "europe",
        "Europe",
        "",
        "../UTC",
        "/etc/localtime",
        "Europe/../UTC",
        "zone.tab",
        "leapseconds",
        "localtime",
        "posix/UTC",
        "right/UTC",
        "Factory",
        "Europe/Berlin\x00",
        "Europe//Berlin",
    ],
)
def test_what_is_no_zone_is_refused(name):
    with pytest.raises(ValueError, match="unknown time zone"):
        load_zone(name)
