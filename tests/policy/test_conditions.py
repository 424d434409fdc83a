from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cra_mcp.policy.conditions import ERROR, FALSE, TRUE, compile_conditions, compile_glob, compile_globs
from cra_mcp.policy.model import Conditions, Facts, RiskTier, TimeWindow

NEVER = TimeWindow(600, 660, days=frozenset({6}))
ALWAYS = TimeWindow(0, 0)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("*", "", True),
        ("*", "ticket.comment.delete", True),
        ("*.delete", "ticket.delete", True),
        ("*.delete", "ticket.comment.delete", True),
        ("*.delete", "delete", False),
        ("*.delete", "ticket.delete.all", False),
        ("ticket.*", "ticket.", True),
        ("ticket.*", "ticket", False),
        ("ticket.*", "tickets.read", False),
        ("ticket.read", "ticket.read", True),
        ("ticket.read", "ticketxread", False),
        ("ticket.read", "ticket.reader", False),
        ("a*b*c", "abc", True),
        ("a*b*c", "axxbxxc", True),
        ("a*b*c", "acb", False),
        ("a*bc*d", "abbcd", True),
        ("ab*ba", "aba", False),
        ("ab*b*ba", "abba", False),
        ("**", "x", True),
        ("", "", True),
        ("", "x", False),
        ("a?c", "abc", False),
        ("[ab]", "a", False),
        ("Ticket.*", "ticket.read", False),
        ("a*z", "a\nz", True),
    ],
)
def test_a_star_stands_for_any_run_of_characters_and_nothing_else_is_special(pattern, text, expected):
    assert compile_glob(pattern)(text) is expected


def texts_of(alphabet, longest):
    return ["".join(letters) for length in range(longest + 1) for letters in product(alphabet, repeat=length)]


def test_every_short_glob_matches_every_short_text_as_its_definition_reads(oracle):
    texts = texts_of("ab", 5)
    for pattern in [*texts_of("ab*", 5), *(f"*{pattern}*" for pattern in texts_of("ab*", 5))]:
        matches = compile_glob(pattern)
        assert [matches(text) for text in texts] == [oracle.glob_matches(pattern, text) for text in texts], pattern


@given(st.text("ab*", max_size=7), st.text("ab", max_size=9))
def test_globs_match_as_their_definition_reads(oracle, pattern, text):
    assert compile_glob(pattern)(text) == oracle.glob_matches(pattern, text)


@given(st.lists(st.text("ab*", max_size=4), min_size=1, max_size=4), st.text("ab", max_size=6))
def test_of_several_globs_one_match_is_enough(oracle, patterns, text):
    assert compile_globs(patterns)(text) == any(oracle.glob_matches(pattern, text) for pattern in patterns)


def test_no_glob_matches_where_there_is_none():
    assert not compile_globs([])("")


def test_a_pattern_made_to_backtrack_is_answered_at_once():
    assert not compile_glob("*a" * 5_000 + "*b")("a" * 100_000)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (Conditions(), TRUE),
        (Conditions(agents=("b*",)), TRUE),
        (Conditions(agents=("human", "robot")), FALSE),
        (Conditions(principals=("bo*", "an*")), TRUE),
        (Conditions(principals=("bob*",)), FALSE),
        (Conditions(roles=frozenset({"operator", "agent"})), TRUE),
        (Conditions(roles=frozenset({"admin"})), FALSE),
        (Conditions(principals=("*",), roles=frozenset({"admin"})), FALSE),
        (Conditions(context_matches=(("env", "prod*"),)), TRUE),
        (Conditions(context_matches=(("env", "dev"),)), FALSE),
        (Conditions(context_matches=(("region", "*"),)), ERROR),
        (Conditions(context_matches=(("count", "*"),)), ERROR),
        (Conditions(context_matches=(("region", "*"), ("env", "dev"))), FALSE),
        (Conditions(context_matches=(("env", "prod"), ("region", "*"))), ERROR),
        (Conditions(time_window=ALWAYS), TRUE),
        (Conditions(time_window=NEVER), FALSE),
        (Conditions(agents=("bot",), time_window=NEVER), FALSE),
        (Conditions(agents=("human",), context_matches=(("region", "*"),)), FALSE),
        (Conditions(context_matches=(("region", "*"),), time_window=NEVER), FALSE),
        (Conditions(context_matches=(("region", "*"),), time_window=ALWAYS), ERROR),
        (Conditions(risk_tiers=frozenset({RiskTier.HIGH})), TRUE),
        (Conditions(risk_tiers=frozenset({RiskTier.LOW, RiskTier.MEDIUM})), FALSE),
        (Conditions(capabilities=frozenset({"money", "tickets"})), TRUE),
        (Conditions(capabilities=frozenset({"money"})), FALSE),
        (Conditions(capabilities=frozenset({"money"}), context_matches=(("region", "*"),)), FALSE),
    ],
)
def test_conditions_are_true_false_or_not_to_be_evaluated(conditions, expected):
    facts = Facts(
        "bot",
        "s1",
        task_risk=RiskTier.HIGH,
        context={"env": "prod", "count": 3},
        subject="ann",
        roles=frozenset({"agent"}),
    )
    test = compile_conditions(conditions, risk=RiskTier.MEDIUM, capabilities=frozenset({"tickets"}))
    assert test(facts, 0) == expected


@pytest.mark.parametrize(
    ("own", "task", "expected"),
    [(RiskTier.HIGH, RiskTier.LOW, TRUE), (RiskTier.LOW, RiskTier.HIGH, TRUE), (RiskTier.LOW, RiskTier.MEDIUM, FALSE)],
)
def test_the_higher_of_two_risk_tiers_counts(own, task, expected):
    test = compile_conditions(Conditions(risk_tiers=frozenset({RiskTier.HIGH})), risk=own)
    assert test(Facts("bot", "s1", task_risk=task), 0) == expected
