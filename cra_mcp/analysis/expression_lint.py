"""Comparisons in expressions that can't come out otherwise, and arguments read that may be missing.

Rule: read off the text, where a name stands beside a literal; a finding is certain for every action the policy is about.
Source: specs/policy.md, "Linting".
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final, cast, get_args

from cra_mcp.analysis.condition_lint import Object, can_be, property_of
from cra_mcp.analysis.findings import Finding, found
from cra_mcp.analysis.subject import Written
from cra_mcp.atlas.model import Action
from cra_mcp.auth.principal import Role
from cra_mcp.policy.expression import Expression, Reference, Token, plain_string, tokens_of
from cra_mcp.policy.model import Policy, RiskTier

_ROLES: Final = frozenset(get_args(Role))
_TIERS: Final = frozenset(RiskTier)
_COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">="})
_AROUND = frozenset({"&&", "||", "!", "(", ")", "?", ":", ","})


def lint_expression(policy: Policy, where: Written, actions: Sequence[Action], now: datetime) -> Iterator[Finding]:
    """Everything wrong with a policy's ``when``; ``actions`` it is about."""
    when = policy.when
    if when is None:
        return
    tokens = list(tokens_of(when.text))
    for code, at, message in (*_names(tokens), *_past(tokens, now), *_values(when, tokens, actions)):
        yield found(code, where, "/when", f"{message} (column {at + 1})")
    yield from _unguarded(when, where, actions)


def _names(tokens: Sequence[Token]) -> Iterator[tuple[str, int, str]]:
    """Roles and risk tiers that there aren't."""
    texts = [token.text for token in tokens]
    for at, token in enumerate(tokens):
        text = plain_string(token)
        if text is None:
            continue
        if texts[at + 1 : at + 5] == ["in", "principal", ".", "roles"] and text not in _ROLES:
            yield "unknown_role", token.start, f"there is no role {text}, only {', '.join(sorted(_ROLES))}"
        before, behind = texts[max(0, at - 4) : at], texts[at + 1 : at + 5]
        compared = (
            before[:-1] if before[-1:] in (["=="], ["!="]) else behind[1:] if behind[:1] in (["=="], ["!="]) else []
        )
        if compared in (["action", ".", "risk_tier"], ["task", ".", "risk_tier"]) and text not in _TIERS:
            yield "impossible_condition", token.start, f"there is no risk tier {text}, only {', '.join(RiskTier)}"


def _past(tokens: Sequence[Token], now: datetime) -> Iterator[tuple[str, int, str]]:
    texts = [token.text for token in tokens]
    for at, token in enumerate(tokens):
        if token.text != "timestamp" or texts[at + 1 : at + 2] != ["("] or texts[at + 3 : at + 4] != [")"]:
            continue
        beside = (texts[max(0, at - 2) : at], texts[at + 4 : at + 6][::-1])
        instant = _instant(tokens[at + 2])
        if (
            instant is not None
            and instant < now
            and any(name == "now" and sign in _COMPARISONS for name, sign in map(_pair, beside))
        ):
            yield "past_timestamp", token.start, "this instant has passed: the comparison never changes again"


def _pair(texts: Sequence[str]) -> tuple[str, str]:
    return (texts[0], texts[1]) if len(texts) == 2 else ("", "")  # noqa: PLR2004


def _instant(token: Token) -> datetime | None:
    try:
        found_at = datetime.fromisoformat(plain_string(token) or "")
    except ValueError:
        return None
    return found_at if found_at.tzinfo is not None else found_at.replace(tzinfo=UTC)


def _values(when: Expression, tokens: Sequence[Token], actions: Sequence[Action]) -> Iterator[tuple[str, int, str]]:
    """Literals that an argument is compared with, and which no action takes for it."""
    for reference in when.references:
        if reference.root != "args" or len(reference.path) != 1 or reference.tested or not actions:
            continue
        name = reference.path[0]
        schemas = [property_of(action.parameters_schema, name) for action in actions]
        for sign, literal in _compared(reference, tokens):
            value = _value(literal)
            if value is not None and not any(_makes_sense(each, sign, value) for each in schemas):
                yield "impossible_condition", literal.start, f"no action it is about takes such a value for {name}"


def _compared(reference: Reference, tokens: Sequence[Token]) -> Iterator[tuple[str, Token]]:
    """Each literal beside a reference that stands alone, and how it is compared."""
    before = [token for token in tokens if token.end <= reference.start]
    sign, *behind = [*(token for token in tokens if token.start >= reference.end), None]
    if sign is None or reference.arithmetic or (before and before[-1].text not in _AROUND):
        return
    first, second, *_ = [*behind, None, None]
    if sign.text in _COMPARISONS and first is not None and (second is None or second.text in _AROUND):
        yield sign.text, first
    elif sign.text == "in" and first is not None and first.text == "[":
        for one, other in pairwise(each for each in behind[1:] if each is not None):
            if one.text == "]":
                return
            if other.text in {",", "]"}:
                yield "==", one


def _value(literal: Token) -> str | int | float | None:
    if literal.kind == "string":
        return plain_string(literal)
    try:
        return float(literal.text) if literal.kind == "number" else None
    except ValueError:  # a whole number in another notation
        return None


def _makes_sense(schema: Object | bool, sign: str, value: str | float) -> bool:
    """Whether the argument can be so, and not be so, compared with a value."""
    if sign in {"==", "!="}:
        return can_be(schema, value)
    if isinstance(schema, bool) or isinstance(value, str) or schema.get("type") not in {"integer", "number"}:
        return schema is not False
    low, high = schema.get("minimum"), schema.get("maximum")
    if isinstance(high, int | float) and (value > high or (value == high and sign in {">", "<="})):
        return False
    return not (isinstance(low, int | float) and (value < low or (value == low and sign in {"<", ">="})))


def _unguarded(when: Expression, where: Written, actions: Sequence[Action]) -> Iterator[Finding]:
    """Arguments that an action may be called without, read where nothing asks for them."""
    asked = {each.path[0] for each in when.references if each.root == "args" and each.tested and each.path}
    read = {each.path[0]: each for each in when.references if each.root == "args" and not each.tested and each.path}
    for name, reference in read.items():
        optional = [each.action_id for each in actions if name not in _required(each)]
        if name not in asked and optional:
            message = f"{optional[0]} can be called without {name}, and then this can't be evaluated: ask has(args.{name}) first"
            yield found("unguarded_argument", where, "/when", f"{message} (column {reference.start + 1})")


def _required(action: Action) -> Sequence[str]:
    return cast("Sequence[str]", action.parameters_schema.get("required", ()))
