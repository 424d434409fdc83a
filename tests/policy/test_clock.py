"""Until when an answer holds that rests on the clock."""

from datetime import datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cra_mcp.policy.calls import program_for
from cra_mcp.policy.cel import Inputs
from cra_mcp.policy.clock import ClockUse, clock_use
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.engine import compile_policies
from cra_mcp.policy.expression import parse_expression
from cra_mcp.policy.model import ActionFacts, Conditions, Facts, Layer, Policy, TimeWindow

SECOND_US, MINUTE_US, QUARTER_US = 1_000_000, 60_000_000, 900_000_000
NOON_US = 1_767_614_400_000_000  # Monday 2026-01-05 12:00 UTC
ANY = ClockUse(at_any=True)
AT_NOON = ClockUse((NOON_US, NOON_US + 1))


def use(text):
    return clock_use(parse_expression(text))


def test_what_does_not_read_the_clock_rests_on_nothing():
    assert use("args.now == 'now' && agent.id != 'now'") is None
    assert use("has(args.now)") is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("now < timestamp('2026-01-05T12:00:00Z')", AT_NOON),
        ("now >= timestamp(\"2026-01-05T13:00:00+01:00\") && agent.id == 'a'", AT_NOON),
        ("agent.id == 'a' || (timestamp('2026-01-05T12:00:00Z') == now)", AT_NOON),
        ("[now != timestamp('2026-01-05T12:00:00Z')][0]", AT_NOON),
        ("timestamp('2026-01-05T12:00:00.0000009Z') <= now ? true : false", AT_NOON),
        ("now.getHours('Europe/Berlin') >= 18", ClockUse(period_us=QUARTER_US)),
        ("now.getDayOfWeek() == 0 || now.getMinutes() == 5", ClockUse(period_us=MINUTE_US)),
        ("now.getMonth() == 0 && now < timestamp('2026-01-05T12:00:00Z')", ClockUse(AT_NOON.instants, QUARTER_US)),
        ("now.getSeconds() == 0", ClockUse(period_us=SECOND_US)),
        ("now.getMilliseconds() == 0", ClockUse(period_us=1_000)),
        ("now.getHours('+01:07') == 0", ClockUse(period_us=MINUTE_US)),
        ("now.getDate('05:45') == 0", ClockUse(period_us=MINUTE_US)),
        ("now.getHours('+01:07:30') == 0", ClockUse(period_us=SECOND_US)),
        ("now.getHours(context.zone) == 0", ClockUse(period_us=SECOND_US)),
        ("now.getSeconds(context.zone) == 0", ClockUse(period_us=SECOND_US)),
        ("now.getHours('+' + context.zone) == 0", ClockUse(period_us=SECOND_US)),
        ("string(now) < '2026'", ANY),
        ("now - duration('1h') < timestamp('2026-01-05T12:00:00Z')", ANY),
        ("now < timestamp('2026-01-05T12:00:00Z') + duration('1h')", ANY),
        ("duration('1h') + timestamp('2026-01-05T12:00:00Z') < now", ANY),
        ("timestamp('2026-01-05T12:00:00Z') < now + duration('1h')", ANY),
        ("true == now < timestamp('2026-01-05T12:00:00Z')", ANY),
        ("timestamp('2026-01-05T12:00:00Z') - now < duration('1h')", ANY),
        ("now < timestamp(context.until)", ANY),
        ("now < timestamp('2026-01-05T12:00:00')", ANY),
        ("now < timestamp('noon')", ANY),
        ("now < timestamp(r'2026-01-05T12:00:00Z')", ANY),
        ("now in [timestamp('2026-01-05T12:00:00Z')]", ANY),
        ("now < timestamp('2026-01-05T12:00:00Z') && now.getSeconds() == 1", ClockUse(AT_NOON.instants, SECOND_US)),
    ],
)
def test_how_the_clock_is_read(text, found):
    assert use(text) == found


def test_the_next_change():
    assert AT_NOON.next_change(NOON_US - 1) == NOON_US
    assert AT_NOON.next_change(NOON_US) == NOON_US + 1
    assert AT_NOON.next_change(NOON_US + 1) is None
    assert ClockUse(period_us=QUARTER_US).next_change(NOON_US) == NOON_US + QUARTER_US
    assert ClockUse(AT_NOON.instants, MINUTE_US).next_change(NOON_US - 2 * MINUTE_US) == NOON_US - MINUTE_US
    assert ClockUse(AT_NOON.instants, QUARTER_US).next_change(NOON_US - 1) == NOON_US
    assert ANY.next_change(NOON_US) == NOON_US + 1


_LITERAL = st.datetimes(datetime(2026, 1, 5), datetime(2026, 1, 6)).map(lambda at: f"timestamp('{at.isoformat()}Z')")
_PART = st.one_of(
    st.builds("now {} {}".format, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), _LITERAL),
    st.builds("{} {} now".format, _LITERAL, st.sampled_from(["<", "<=", ">", ">="])),
    st.builds(
        "now.{}('{}') {} {}".format,
        st.sampled_from(["getHours", "getDate", "getDayOfWeek", "getMinutes", "getDayOfYear", "getSeconds"]),
        st.sampled_from(
            ["UTC", "Asia/Kathmandu", "America/St_Johns", "Australia/Lord_Howe", "-03:30", "+01:07", "00:29"]
        ),
        st.sampled_from(["<", "==", ">"]),
        st.integers(0, 30),
    ),
)
_TEXT = st.lists(_PART, min_size=1, max_size=3).flatmap(
    lambda parts: st.sampled_from([" && ", " || "]).map(lambda mark: mark.join(f"({part})" for part in parts))
)


@given(_TEXT, st.integers(0, 86_400 * SECOND_US), st.floats(0, 1))
@example("(now.getDate('Australia/Lord_Howe') == 5)", 0, 0.999)
def test_nothing_changes_before_the_next_change(text, offset_us, part):
    expression = parse_expression(text)
    found = clock_use(expression)
    assert found is not None
    assert not found.at_any
    program = program_for(expression, "when", ActionFacts("a.b"))
    now_us = NOON_US - 43_200 * SECOND_US + offset_us
    until_us = found.next_change(now_us)
    until_us = now_us + 86_400 * SECOND_US if until_us is None else until_us

    def value(at_us):
        return program.value(Inputs(Facts("a", "s"), at_us, {}))

    assert now_us < until_us
    assert {value(at) for at in (now_us + int((until_us - 1 - now_us) * part), until_us - 1)} == {value(now_us)}


def test_a_set_of_policies_foresees_what_its_expressions_can_change():
    def policy(name, when, **conditions):
        return Policy(name, "deny", when=when and parse_expression(when), conditions=Conditions(**conditions))

    def boundary(*policies, overlay=()):
        layers = [Layer("o", tuple(overlay), "allow")] if overlay else []
        made = compile_policies(
            policies, [ActionFacts("a.b", parameters={"type": "object", "properties": {"n": {}}})], "allow", layers
        )
        assert made.decide("a.b", Facts("a", "s"), Counters(), NOON_US).effect in {"allow", "deny"}
        return made.next_boundary(NOON_US)

    hours = policy("hours", "now.getHours() > 18")
    assert boundary(hours) == NOON_US + QUARTER_US
    assert boundary(policy("plain", None), overlay=[hours]) == NOON_US + QUARTER_US
    assert boundary(policy("waits", "now.getHours() > 18 && has(args.n)")) == NOON_US + QUARTER_US
    assert boundary(policy("never", "has(args.n) && !has(args.n)")) is None
    window = policy("window", None, time_window=TimeWindow(0, 725))
    assert boundary(hours, window) == NOON_US + 5 * MINUTE_US
