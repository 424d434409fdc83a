"""Globs and conditions: whether a policy concerns a request.

Rule: a condition is true, false or can't be evaluated, and no test raises. What "can't be evaluated" leads to depends
on the policy's type and is the engine's business. No pattern makes matching backtrack.
Source: specs/policy.md, "Globs" and "Conditions".
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Literal, NamedTuple

from cra_mcp.policy.model import Conditions, Facts, RiskTier
from cra_mcp.policy.windows import Schedule

Truth = Literal[0, 1, 2, 3]
FALSE: Final = 0
TRUE: Final = 1
ERROR: Final = 2
UNKNOWN: Final = 3
"""Not a result of a test: of what must wait for the arguments."""

Matcher = Callable[[str], bool]
Test = Callable[[Facts, int], Truth]
"""A condition on what the requester brings, at an instant in microseconds since the epoch."""


def compile_glob(pattern: str) -> Matcher:
    """Make a matcher of whole texts: ``*`` stands for any run of characters, all others for themselves."""
    pieces = pattern.split("*")
    if len(pieces) == 1:
        return lambda text: text == pattern
    first, *middle, last = pieces
    middle = [piece for piece in middle if piece]
    if not middle:
        fixed = len(first) + len(last)
        return lambda text: len(text) >= fixed and text.startswith(first) and text.endswith(last)

    def matches(text: str) -> bool:
        if not (text.startswith(first) and text.endswith(last)):
            return False
        # The leftmost place for each piece in turn leaves the most room for those that follow: no backtracking.
        at, end = len(first), len(text) - len(last)
        for piece in middle:
            found = text.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True

    return matches


def compile_globs(patterns: Sequence[str]) -> Matcher:
    """Make a matcher that is true where at least one pattern matches."""
    if len(patterns) == 1:
        return compile_glob(patterns[0])
    exact = frozenset(pattern for pattern in patterns if "*" not in pattern)
    globs = tuple(compile_glob(pattern) for pattern in patterns if "*" in pattern)

    def matches(text: str) -> bool:
        if text in exact:
            return True
        for glob in globs:  # noqa: SIM110  (a generator costs more than the matching)
            if glob(text):
                return True
        return False

    return matches


class FactsCondition(NamedTuple):
    """The part of some conditions that depends on the requester and the time only.

    Attributes:
        test: always true where that part is empty.
        context_keys: what the test reads of the context, besides the agent id and the time.
        reads_principal: whether it reads the subject or the roles.
        schedule: the time window in it, for whoever needs to know when it opens or closes next.
    """

    test: Test
    context_keys: tuple[str, ...]
    schedule: Schedule | None
    reads_principal: bool = False


def facts_part(conditions: Conditions) -> Conditions:
    """Return what depends on the requester and the time: all but risk tiers, capabilities and arguments."""
    return replace(conditions, risk_tiers=frozenset(), capabilities=frozenset(), arguments="")


def compile_facts(conditions: Conditions) -> FactsCondition:
    """Compile agents, context matches, time window, principals and roles into one test.

    Raises:
        ValueError: the time window names a zone that doesn't exist.
    """
    tests: list[Test] = []
    if conditions.agents:
        tests.append(_agents_test(conditions.agents))
    if conditions.context_matches:
        tests.append(_context_test(conditions.context_matches))
    schedule = None
    if conditions.time_window is not None:
        schedule = Schedule(conditions.time_window)
        tests.append(_window_test(schedule))
    if conditions.principals:
        tests.append(_principals_test(conditions.principals))
    if conditions.roles:
        tests.append(_roles_test(conditions.roles))
    return FactsCondition(
        _all_of(tests),
        tuple(key for key, _ in conditions.context_matches),
        schedule,
        bool(conditions.principals or conditions.roles),
    )


def static_part_holds(conditions: Conditions, risk: RiskTier, capabilities: frozenset[str]) -> bool:
    """Tell whether risk tiers and capabilities hold. ``risk`` is the higher of the action's and the task's tier."""
    if conditions.risk_tiers and risk not in conditions.risk_tiers:
        return False
    return not conditions.capabilities or not conditions.capabilities.isdisjoint(capabilities)


def compile_conditions(
    conditions: Conditions, *, risk: RiskTier = RiskTier.LOW, capabilities: frozenset[str] = frozenset()
) -> Test:
    """Compile all of some conditions for one thing of a known risk tier and capabilities (a context pack, say).

    Raises:
        ValueError: the time window names a zone that doesn't exist.
    """
    by_task = {task: static_part_holds(conditions, higher(risk, task), capabilities) for task in RiskTier}
    facts_test = compile_facts(conditions).test

    def test(facts: Facts, now_us: int) -> Truth:
        return facts_test(facts, now_us) if by_task[facts.task_risk] else FALSE

    return test


def higher(one: RiskTier, other: RiskTier) -> RiskTier:
    """Return the riskier of two tiers."""
    return one if one.rank >= other.rank else other


def _agents_test(patterns: Sequence[str]) -> Test:
    matches = compile_globs(patterns)
    return lambda facts, _now_us: TRUE if matches(facts.agent_id) else FALSE


def _principals_test(patterns: Sequence[str]) -> Test:
    matches = compile_globs(patterns)
    return lambda facts, _now_us: TRUE if matches(facts.subject) else FALSE


def _roles_test(roles: frozenset[str]) -> Test:
    return lambda facts, _now_us: FALSE if roles.isdisjoint(facts.roles) else TRUE


def _context_test(pairs: Sequence[tuple[str, str]]) -> Test:
    matchers = tuple((key, compile_glob(pattern)) for key, pattern in pairs)

    def test(facts: Facts, _now_us: int) -> Truth:
        context = facts.context
        result: Truth = TRUE
        for key, matches in matchers:
            value = context.get(key)
            if not isinstance(value, str):
                result = ERROR
            elif not matches(value):
                return FALSE
        return result

    return test


def _window_test(schedule: Schedule) -> Test:
    is_open = schedule.is_open

    def test(_facts: Facts, now_us: int) -> Truth:
        state = is_open(now_us)
        return ERROR if state is None else TRUE if state else FALSE

    return test


def _all_of(tests: Sequence[Test]) -> Test:
    """Join tests: one that is false settles it, even where another can't be evaluated."""
    if len(tests) == 1:
        return tests[0]
    parts = tuple(tests)

    def test(facts: Facts, now_us: int) -> Truth:
        result: Truth = TRUE
        for part in parts:
            truth = part(facts, now_us)
            if truth == FALSE:
                return FALSE
            if truth == ERROR:
                result = ERROR
        return result

    return test
