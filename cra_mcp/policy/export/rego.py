"""Policies in Rego.

Rule: the decision is the same for every input made by ``rego_input``, errors included. What Rego can't evaluate is undefined: what
restricts applies unless a rule shows that its condition is false, and what allows applies where a rule shows that it is true.
Source: specs/policy.md, "Export"; the Rego language reference, version 1.
"""

from collections.abc import Iterable, Mapping

from cra_mcp.policy.export.form import CallTest, Form, RoleTest, Scope, Statement, Test, TextTest
from cra_mcp.policy.model import Facts, PolicyType, RiskTier

PACKAGE = "cra"

_SETS: Mapping[PolicyType, str] = {
    "deny": "deny",
    "require_approval": "require_approval",
    "rate_limit": "spent",
    "budget": "spent",
}
_DECISION = """\
default decision := "deny"

decision := "allow" if {
  declared
  count(deny) == 0
  count(spent) == 0
  count(closed) == 0
  consented
}

decision := "require_approval" if {
  declared
  count(deny) == 0
  count(closed) == 0
  not consented
}

consented if count(require_approval) == 0

consented if input.approved == true
"""


def rego_policies(form: Form) -> str:
    """The policies as a Rego module: ``data.cra.decision``, and the ids of policies that refuse in ``deny`` and ``spent``.

    Args:
        form: of plain texts (``express(..., plain=True)``).
    """
    statements = list(form.statements)
    tests = list(dict.fromkeys(test for statement in statements for test in statement.tests))
    numbers = {test: number for number, test in enumerate(tests)}
    parts = [
        f"package {PACKAGE}\n",
        _DECISION,
        _rule("declared", [f"input.action in {_set(form.actions)}"]) if form.actions else _rule("declared", ["false"]),
        # A set without rules would be undefined, and so would what counts it.
        *(_rule(f'{name} contains ""', ["false"]) for name in ("deny", "require_approval", "spent", "closed")),
    ]
    for test, number in numbers.items():
        parts += _test(test, number)
    for number, statement in enumerate(statements):
        parts += _statement(statement, number, numbers)
    parts += _layers(form)
    return "\n".join(parts)


def rego_input(
    form: Form, action_id: str, facts: Facts, *, approved: bool, spent: Iterable[str] = ()
) -> dict[str, object]:
    """The input to ask about, for what ``PolicySet.decide`` would be asked. ``spent``: as for ``cedar_request``."""
    return {
        "action": action_id,
        "agent": facts.agent_id,
        "subject": facts.subject,
        "roles": sorted(facts.roles),
        "task_risk": facts.task_risk.value,
        "approved": approved,
        "spent": sorted(spent),
        "context": {name: facts.context[name] for name in form.members if name in facts.context},
    }


def _statement(statement: Statement, number: int, numbers: Mapping[Test, int]) -> Iterable[str]:
    lenient = statement.type == "allow"
    tests = [f"matches_{numbers[test]}" if lenient else f"not fails_{numbers[test]}" for test in statement.tests]
    yield f"# {_text(statement.policy_id)}\n"
    for scope in statement.scopes:
        yield _rule(f"applies_{number}", [*_scope(scope, lenient=lenient), *tests])
    name = _SETS.get(statement.type)
    if name is None:
        return
    conditions = [f"applies_{number}"]
    if name == "spent":
        yield _rule(f"room_{number}", ["is_array(input.spent)", f"not {_text(statement.policy_id)} in input.spent"])
        conditions.append(f"not room_{number}")
    yield _rule(f"{name} contains {_text(statement.policy_id)}", conditions)


def _layers(form: Form) -> Iterable[str]:
    number = 0
    for at, layer in enumerate(form.layers):
        covering = [
            number + index
            for index, statement in enumerate(layer.statements)
            if statement.type in {"allow", "require_approval"}
        ]
        number += len(layer.statements)
        if layer.default_effect == "deny":
            yield from (_rule(f"covered_{at}", [f"applies_{each}"]) for each in covering)
            yield _rule(f"closed contains {_text(layer.name)}", [f"not covered_{at}"] if covering else ["true"])


def _scope(scope: Scope, *, lenient: bool) -> Iterable[str]:
    """The action, and the task's tier: where that is none of the four, what restricts applies."""
    yield f"input.action in {_set(scope.actions)}"
    if len(scope.tiers) < len(RiskTier):
        if lenient:
            yield f"input.task_risk in {_set(scope.tiers)}"
        else:
            yield f"not input.task_risk in {_set(tier for tier in RiskTier if tier not in scope.tiers)}"


def _test(test: Test, number: int) -> Iterable[str]:
    assert not isinstance(test, CallTest)  # noqa: S101 - express() keeps them for Cedar only
    if isinstance(test, RoleTest):
        place, known = "input.roles", "is_array"
        yield _rule(f"matches_{number}", [f"some role in {place}", f"role in {_set(test.roles)}"])
    else:
        place, known = _place(test), "is_string"
        for glob in test.globs:
            yield _rule(f"matches_{number}", [f"is_string({place})", *_matches(place, glob)])
    yield _rule(f"fails_{number}", [f"{known}({place})", f"not matches_{number}"])


def _place(test: TextTest) -> str:
    return f"input.context[{_text(test.member)}]" if test.fact == "context" else f"input.{test.fact}"


def _matches(place: str, glob: str) -> Iterable[str]:
    """Whether a text matches a glob, without a regular expression: the leftmost place for each piece in turn."""
    first, *middle = glob.split("*")
    if not middle:
        yield f"{place} == {_text(first)}"
        return
    last = middle.pop()
    yield f"count({place}) >= {len(first) + len(last)}"
    yield f"startswith({place}, {_text(first)})"
    yield f"endswith({place}, {_text(last)})"
    pieces = [piece for piece in middle if piece]
    if pieces:
        yield f"rest_0 := substring({place}, {len(first)}, count({place}) - {len(first) + len(last)})"
    for at, piece in enumerate(pieces):
        yield f"at_{at} := indexof(rest_{at}, {_text(piece)})"
        yield f"at_{at} >= 0"
        if at + 1 < len(pieces):
            yield f"rest_{at + 1} := substring(rest_{at}, at_{at} + {len(piece)}, -1)"


def _rule(head: str, body: Iterable[str]) -> str:
    return f"{head} if {{\n  " + "\n  ".join(body) + "\n}\n"


def _set(texts: Iterable[str]) -> str:
    return "{" + ", ".join(_text(str(text)) for text in texts) + "}"


def _text(text: str) -> str:
    return f'"{text}"'  # plain
