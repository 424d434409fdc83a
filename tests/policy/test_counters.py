import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from cra_mcp.policy.counters import Counters
from cra_mcp.policy.model import Limit

LIMIT = Limit("l", 2, 100)


def test_a_limit_admits_its_calls_and_then_says_how_long_to_wait(facts):
    counters, bot = Counters(), facts()
    assert counters.retry_after_us(LIMIT, bot, 0) == 0
    assert counters.take([LIMIT], bot, 0)
    assert counters.take([LIMIT], bot, 30)
    assert counters.retry_after_us(LIMIT, bot, 30) == 70
    assert counters.retry_after_us(LIMIT, bot, 99) == 1
    assert counters.retry_after_us(LIMIT, bot, 100) == 0


def test_the_window_slides_and_is_not_reset(facts):
    counters, bot = Counters(), facts()
    for instant in (90, 99, 190):
        assert counters.take([LIMIT], bot, instant)
    assert counters.retry_after_us(LIMIT, bot, 198) == 1
    assert counters.take([LIMIT], bot, 199)


def test_asking_charges_nothing(facts):
    counters, bot = Counters(), facts()
    for _ in range(5):
        assert counters.retry_after_us(LIMIT, bot, 0) == 0
    assert counters.spent(LIMIT, bot, 0) == 0
    assert len(counters) == 0


def test_a_refused_charge_charges_no_limit(facts):
    counters, bot = Counters(), facts()
    tight, loose = Limit("tight", 1, 100), Limit("loose", 5, 100)
    assert counters.take([loose, tight], bot, 0)
    assert not counters.take([loose, tight], bot, 1)
    assert not counters.take([tight, loose], bot, 1)
    assert counters.spent(loose, bot, 1) == 1


@pytest.mark.parametrize(
    ("scope", "shared", "apart"),
    [
        ("session", {"agent_id": "other", "tenant": "other"}, {"session_id": "s2"}),
        ("agent", {"session_id": "s2"}, {"agent_id": "other"}),
        ("agent", {"session_id": "s2"}, {"tenant": "other"}),
        ("tenant", {"session_id": "s2", "agent_id": "other"}, {"tenant": "other"}),
    ],
)
def test_calls_are_counted_for_the_scope(facts, scope, shared, apart):
    limit, counters = Limit("l", 1, 100, scope), Counters()
    assert counters.take([limit], facts(), 0)
    assert counters.retry_after_us(limit, facts(**shared), 0) == 100
    assert counters.retry_after_us(limit, facts(**apart), 0) == 0


def test_a_global_limit_counts_everybody(facts):
    limit, counters = Limit("l", 1, 100, "global"), Counters()
    assert counters.take([limit], facts(), 0)
    assert counters.retry_after_us(limit, facts("other", "s2", tenant="other"), 0) == 100


def test_limits_of_other_ids_and_scopes_count_apart(facts):
    counters, bot = Counters(), facts("same", "same", tenant="same")
    for scope in ("session", "agent", "tenant", "global"):
        assert counters.take([Limit("l", 1, 100, scope)], bot, 0)
    assert counters.take([Limit("m", 1, 100)], bot, 0)


def test_a_clock_set_back_frees_nothing_early(facts):
    counters, bot = Counters(), facts()
    assert counters.take([LIMIT], bot, 1_000)
    assert counters.take([LIMIT], bot, 500)
    assert counters.retry_after_us(LIMIT, bot, 500) == 600
    assert counters.retry_after_us(LIMIT, bot, 1_099) == 1


def test_a_call_given_back_is_no_longer_counted_and_the_others_are(facts):
    counters, bot = Counters(), facts()
    counters.take([LIMIT], bot, 10)
    counters.take([LIMIT], bot, 20)
    counters.give_back([LIMIT], bot, 10)
    assert counters.spent(LIMIT, bot, 20) == 1
    counters.take([LIMIT], bot, 30)
    assert counters.retry_after_us(LIMIT, bot, 30) == 90


def test_giving_back_what_was_never_taken_changes_nothing(facts):
    counters, bot = Counters(), facts()
    counters.give_back([LIMIT], bot, 10)
    counters.take([LIMIT], bot, 10)
    counters.give_back([LIMIT], bot, 11)
    assert counters.spent(LIMIT, bot, 10) == 1
    counters.give_back([LIMIT], bot, 10)
    assert len(counters) == 0


def test_memory_is_bounded_by_the_calls_that_still_count(facts):
    counters = Counters()
    for number in range(20_000):
        counters.take([LIMIT], facts(f"bot-{number}"), number)
    assert len(counters) <= 2_048


def test_pruning_forgets_no_counter_that_still_counts(facts):
    counters, bot = Counters(), facts()
    long = Limit("long", 1, 1_000_000)
    counters.take([long], bot, 0)
    for number in range(5_000):
        counters.take([LIMIT], facts(f"bot-{number}"), number)
        oldest = max(0, number - 99)
        assert counters.spent(LIMIT, facts(f"bot-{oldest}"), number) == 1
    assert counters.retry_after_us(long, bot, 5_000) == 995_000


def test_pruning_forgets_no_counter_that_was_charged_before_the_clock_was_set_back(facts):
    counters, bot = Counters(), facts()
    counters.take([LIMIT], bot, 1_000)
    counters.take([LIMIT], bot, 500)
    for number in range(2_000):
        counters.take([LIMIT], facts(f"bot-{number}"), 1_050)
    assert counters.retry_after_us(LIMIT, bot, 1_050) == 50


def test_a_counter_under_a_limit_made_narrower_keeps_what_the_wider_one_needs(facts):
    counters, bot = Counters(), facts()
    wide, narrow = Limit("l", 3, 200), Limit("l", 1, 100)
    for _ in range(3):
        assert counters.take([wide], bot, 0)
    assert counters.retry_after_us(narrow, bot, 0) == 100
    assert counters.retry_after_us(wide, bot, 0) == 200
    assert counters.take([narrow], bot, 100)
    assert counters.spent(wide, bot, 99) == 3


SET_BACK = [
    # charged at, asked at, of three a hundred: the wait, and what is spent
    ([0, 60, 100], 50, 0, 2),
    ([0, 60, 99], 50, 50, 3),
    ([0, 100, 199], 120, 0, 2),
    ([150, 160, 170], 50, 200, 3),
    ([0, 0, 0], -50, 150, 3),
]


@pytest.mark.parametrize(("charged", "now_us", "wait", "spent"), SET_BACK)
def test_a_clock_set_back_refuses_nothing_for_which_there_is_room_and_frees_nothing(
    facts, charged, now_us, wait, spent
):
    limit, counters, bot = Limit("l", 3, 100), Counters(), facts()
    for at in charged:
        assert counters.take([limit], bot, at)
    assert (counters.retry_after_us(limit, bot, now_us), counters.spent(limit, bot, now_us)) == (wait, spent)
    assert counters.take([limit], bot, now_us) == (wait == 0)
    assert wait == 0 or not counters.take([limit], bot, now_us + wait - 1)
    assert wait == 0 or counters.take([limit], bot, now_us + wait)


@pytest.fixture
def hasty_threads():
    """Switch threads as often as the interpreter can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("hasty_threads")
def test_threads_together_take_no_more_than_the_limits(facts):
    bot, limits = facts(), [Limit(f"l{number}", 5, 1_000) for number in range(10)]
    for _ in range(40):
        counters = Counters()
        with ThreadPoolExecutor(4) as pool:
            taken = list(pool.map(lambda _, counters=counters: counters.take(limits, bot, 0), range(40)))
        assert sum(taken) == 5
