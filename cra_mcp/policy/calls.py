"""Conditions and costs that a call's arguments decide, or an expression: evaluated for each call.

Rule: a condition is true, false or can't be evaluated, and no test raises. What the arguments can't be asked about before they
are known is told apart (``reads_args``).
Source: specs/policy.md, "Expressions", "Arguments" and "Budgets".
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, cast

from cra_mcp.policy.cel import FIELD_READERS, NOT_KNOWN, EvaluationError, Inputs, Program, compile_program, reader
from cra_mcp.policy.conditions import ERROR, FALSE, TRUE, UNKNOWN, Truth
from cra_mcp.policy.exact import Withheld
from cra_mcp.policy.expression import Expression, ExpressionError, Kind, Reference
from cra_mcp.policy.model import MICRO, ActionFacts, Budget, Facts, Policy
from cra_mcp.policy.types import Typed, UnknownMemberError, type_at
from cra_mcp.schema_check import Validator, compile_schema

MAX_COST: Final = 10**15
"""Millionths. Costs above are an error, so that no sum of them leaves what a database column holds."""


_NOBODY: Final = Inputs(Facts("", ""), 0, NOT_KNOWN)


class CallTest(NamedTuple):
    """A condition of one policy on one action.

    Attributes:
        test: of a call whose arguments are known.
        reads_args: whether it reads them.
        known: what it comes to without them, where that is the same for every request; None where it must be asked.
    """

    test: Callable[[Inputs], Truth]
    reads_args: bool
    known: Truth | None = None

    def early(self, facts: Facts, now_us: int) -> Truth:
        """What it comes to before the arguments are known: true or false if it does whatever they are, else it waits for them."""
        if self.known is not None:
            return self.known
        return _early(self.test, Inputs(facts, now_us, NOT_KNOWN), reads_args=self.reads_args)


class Cost(NamedTuple):
    """What a call takes from a budget.

    Attributes:
        amount: in millionths, where it is the same for every call; None where ``program`` tells.
        program: an expression over the arguments, or over the result (then ``amount`` is what is reserved).
        settles: whether ``program`` reads the result.
    """

    amount: int | None
    program: Program | None = None
    settles: bool = False

    def before(self, inputs: Inputs) -> int | None:
        """Millionths to take when the call is approved; None if they can't be told."""
        if self.amount is not None:
            return self.amount
        return None if self.program is None else _millionths(self.program, inputs)

    def after(self, inputs: Inputs) -> int | None:
        """Millionths it has cost by its result; None if the result doesn't say, and what was reserved stands."""
        return None if self.program is None else _millionths(self.program, inputs)


def _millionths(program: Program, inputs: Inputs) -> int | None:
    """A cost, rounded up; None if it is none: no number, negative, not finite, too large."""
    try:
        value = program.value(inputs)
    except EvaluationError:
        return None
    return to_micro(value)


def to_micro(value: object) -> int | None:
    """Millionths of a cost, rounded up; None if the value is no cost."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    amount = math.ceil(value * MICRO)
    return amount if amount <= MAX_COST else None


def call_test(policy: Policy, action: ActionFacts) -> CallTest | None:
    """What ``policy`` asks of each call of ``action``; None if nothing.

    Raises:
        ExpressionError: its expression doesn't fit the action's parameters.
    """
    tests: list[Callable[[Inputs], Truth]] = []
    if policy.conditions.arguments:
        tests.append(_arguments_test(policy.conditions.arguments))
    if policy.when is not None:
        tests.append(_when_test(program_for(policy.when, "when", action), reads_args=policy.when.reads("args")))
    if not tests:
        return None
    test = tests[0] if len(tests) == 1 else _both(*tests)
    reads_args = policy.may_read_args
    known = _early(test, _NOBODY, reads_args=reads_args) if reads_args and not _reads_request(policy.when) else None
    return CallTest(test, reads_args, known)


def _early(test: Callable[[Inputs], Truth], inputs: Inputs, *, reads_args: bool) -> Truth:
    """An error without the arguments may be none with them."""
    truth = test(inputs)
    return UNKNOWN if truth == ERROR and reads_args else truth


def _reads_request(when: Expression | None) -> bool:
    """Whether it reads the requester or the clock."""
    return when is not None and (when.reads("context") or any(not name.startswith("action.") for name in when.fields))


def cost_of(budget: Budget, action: ActionFacts) -> Cost:
    """What a call of ``action`` takes from ``budget``.

    Raises:
        ExpressionError: the cost's expression doesn't fit the action's parameters.
    """
    if budget.cost is not None:
        return Cost(budget.reserve, program_for(budget.cost, "cost", action), settles=budget.reserve is not None)
    if budget.unit == "calls":
        return Cost(MICRO)
    return Cost(to_micro(action.cost or 0))


def program_for(expression: Expression, kind: Kind, action: ActionFacts) -> Program:
    """Compile an expression for an action.

    Raises:
        ExpressionError: it reads an argument the action doesn't have, or takes one for what it isn't.
    """
    return compile_program(expression, kind, action, _types(expression, action))


def withheld(expression: Expression, action: ActionFacts, inputs: Inputs) -> tuple[str, ...]:
    """What an expression reads and is not given, because it can't be given exactly: each with what it holds, in words."""
    found = {name: FIELD_READERS[name](inputs) for name in sorted(expression.fields) if name in FIELD_READERS}
    for reference, typed in zip(expression.references, _types(expression, action), strict=True):
        found[".".join((reference.root, *reference.path[: typed.steps]))] = reader(reference, typed)(inputs)
    return tuple(f"{name} holds {each.why}" for name, each in found.items() if isinstance(each, Withheld) and each.why)


def unknown_everywhere(expression: Expression, actions: Sequence[ActionFacts]) -> tuple[Reference, str] | None:
    """The first member of the arguments that no one of ``actions`` has, guarded by ``has`` or not, and its name."""
    for reference in expression.references:
        missing = [_unknown(reference, action) for action in actions] if reference.root == "args" else []
        if missing and all(name is not None for name in missing):
            return reference, missing[0] or ""
    return None


def _unknown(reference: Reference, action: ActionFacts) -> str | None:
    try:
        type_at(action.parameters, reference.path)
    except UnknownMemberError as error:
        return ".".join(reference.path[: error.steps])
    return None


def _types(expression: Expression, action: ActionFacts) -> tuple[Typed, ...]:
    tested = {reference.path for reference in expression.references if reference.tested and reference.root == "args"}
    return tuple(_typed(reference, action, tested) for reference in expression.references)


def _typed(reference: Reference, action: ActionFacts, tested: set[tuple[str, ...]]) -> Typed:
    path = reference.path
    if reference.root != "args":
        return Typed("has", len(path)) if reference.tested else Typed("dyn", min(1, len(path)))
    try:
        typed = type_at(action.parameters, path)
    except UnknownMemberError as error:
        # A policy for many actions asks first whether an argument is there.
        if not any(path[: error.steps] == known[: error.steps] for known in tested):
            name = ".".join(path[: error.steps])
            raise ExpressionError(
                f"{action.action_id} has no argument {name}: correct the name, or ask has(args.{name}) first",
                reference.start + 1,
            ) from error
        typed = Typed("dyn", error.steps)
    return Typed("has", len(path)) if reference.tested else typed


def _when_test(program: Program, *, reads_args: bool) -> Callable[[Inputs], Truth]:
    def test(inputs: Inputs) -> Truth:
        try:
            value = program.value(inputs)
        except EvaluationError:
            if not reads_args or inputs.args is NOT_KNOWN:
                return ERROR
            # A loop over arguments that runs out of its budget ends the evaluation, where CEL would let another part settle it:
            # what is decided without them stays decided.
            return test(inputs._replace(args=NOT_KNOWN))
        return TRUE if value is True else FALSE if value is False else ERROR

    return test


def _arguments_test(schema: str) -> Callable[[Inputs], Truth]:
    validator = _validator(schema)

    def test(inputs: Inputs) -> Truth:
        if inputs.args is NOT_KNOWN:
            return ERROR
        try:
            return TRUE if validator.is_valid(inputs.args) else FALSE
        except Exception:  # noqa: BLE001 - foreign code; a value it has no form for
            return ERROR

    return test


@lru_cache(maxsize=1_024)
def _validator(schema: str) -> Validator:
    return compile_schema(cast("Mapping[str, object]", json.loads(schema)))


def _both(one: Callable[[Inputs], Truth], other: Callable[[Inputs], Truth]) -> Callable[[Inputs], Truth]:
    """Join two tests: one that is false settles it, even where the other can't be evaluated."""

    def test(inputs: Inputs) -> Truth:
        first = one(inputs)
        if first == FALSE:
            return FALSE
        second = other(inputs)
        if second == FALSE:
            return FALSE
        return ERROR if ERROR in (first, second) else TRUE

    return test
