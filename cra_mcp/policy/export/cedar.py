"""Policies in Cedar.

Rule: the decision is the same for every request made by ``cedar_request``, errors included. Cedar skips a ``forbid`` that comes to
an error; so no condition written here comes to one: each first asks whether what it reads is there, and a ``forbid`` applies
where it isn't. A request that doesn't fit the schema must not be asked: with the schema, Cedar refuses it.
Source: specs/policy.md, "Export"; the Cedar policy language reference.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from cra_mcp.policy.exact import as_string
from cra_mcp.policy.export.arguments import ArgumentTest, Compared, Constant, Given, Joined, Negated
from cra_mcp.policy.export.form import CallTest, Form, RoleTest, Scope, Statement, StatementLayer, Test, TextTest
from cra_mcp.policy.model import Facts, RiskTier

NAMESPACE = "CRA"

_APPROVED = "context has approved && context.approved == true"
_RECORDS: Final[Mapping[str, tuple[str, str]]] = {
    "string": ("texts", "String"),
    "int": ("numbers", "Long"),
    "bool": ("flags", "Bool"),
}
"""By kind of argument: the record of the context that has it, and its type."""
_INT64: Final = range(-(2**63), 2**63)
_NO_ARGUMENTS: Mapping[str, object] = {}
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}


def cedar_policies(form: Form) -> str:
    """The policies as Cedar text.

    A ``deny`` is a ``forbid``, a ``require_approval`` one unless the call is approved, a ``rate_limit`` or ``budget`` one where the
    request says that it is spent. A layer that is closed where nothing covers an action is one more ``forbid``, but for the atlas,
    whose ``allow`` and ``require_approval`` policies are the ``permit``s.
    """
    *overlays, atlas = form.layers
    texts = [text for statement in form.statements for text in _forbids(statement)]
    texts += [_closed(layer, form.actions) for layer in overlays if layer.default_effect == "deny"]
    if atlas.default_effect == "deny":
        texts += [_permit(each) for each in atlas.statements if each.type in {"allow", "require_approval"}]
    elif form.actions:
        texts.append(_policy(atlas.name, "permit", form.actions))
    return "\n".join(texts) if form.actions else ""


def cedar_schema(form: Form) -> str:
    """The schema, as Cedar text, that requests must fit and that the policies are valid for."""
    members = ", ".join(f"{_quoted(name)}?: String" for name in form.members)
    called = "".join(
        f"    {record}: {{ {', '.join(f'{_quoted(name)}?: {kind}' for name in form.arguments)} }},\n"
        for record, kind in _RECORDS.values()
        if form.arguments
    )
    called += "    given: Set<String>,\n" if form.arguments else ""
    actions = ", ".join(_quoted(name) for name in form.actions)
    applies = f"  action {actions} appliesTo {{ principal: [Agent], resource: [Atlas], context: Request }};\n"
    return (
        f"namespace {NAMESPACE} {{\n  entity Agent;\n  entity Atlas;\n  type Request = {{\n"
        "    agent: String,\n    subject: String,\n    roles: Set<String>,\n    task_risk: String,\n    approved: Bool,\n"
        f"    spent: Set<String>,\n    facts: {{ {members} }},\n{called}  }};\n{applies if form.actions else ''}}}\n"
    )


def cedar_request(
    form: Form,
    atlas_id: str,
    action_id: str,
    facts: Facts,
    *,
    approved: bool,
    spent: Iterable[str] = (),
    args: Mapping[str, object] = _NO_ARGUMENTS,
) -> dict[str, object]:
    """The request to ask Cedar, in its JSON form, for what ``PolicySet.decide`` would be asked.

    Of the context, ``facts`` has the members that are texts and that some policy reads: a member that is anything else is to a
    policy what a missing one is. Of the arguments, those that some policy reads are there by their kind, texts that an
    expression can't be given excepted. ``spent`` names the
    ``rate_limit`` and ``budget`` policies that have no room for the call: whoever asks keeps their counters.
    """
    return {
        "principal": {"type": f"{NAMESPACE}::Agent", "id": facts.agent_id},
        "action": {"type": f"{NAMESPACE}::Action", "id": action_id},
        "resource": {"type": f"{NAMESPACE}::Atlas", "id": atlas_id},
        "context": {
            "agent": facts.agent_id,
            "subject": facts.subject,
            "roles": sorted(facts.roles),
            "task_risk": facts.task_risk.value,
            "approved": approved,
            "spent": sorted(spent),
            "facts": {name: facts.context[name] for name in form.members if isinstance(facts.context.get(name), str)},
            **(_called(form.arguments, args) if form.arguments else {}),
        },
    }


def _called(names: Iterable[str], args: Mapping[str, object]) -> dict[str, object]:
    """Arguments by their kind, and the names of those that were sent, whatever they are."""
    sent = [name for name in names if name in args]
    kinds = {name: _kind_and_value(args[name]) for name in sent}
    records = {
        record: {name: value for name, (its_kind, value) in kinds.items() if its_kind == kind}
        for kind, (record, _) in _RECORDS.items()
    }
    return {**records, "given": sent}


def _kind_and_value(value: object) -> tuple[str, object]:
    """As the engine takes an argument: JSON doesn't tell 5.0 from 5."""
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return ("int" if value in _INT64 else ""), value
    return ("string" if isinstance(as_string(value), str) else ""), value


def _forbids(statement: Statement) -> Iterable[str]:
    when = _condition(statement)
    match statement.type:
        case "deny":
            yield _policy(statement.policy_id, "forbid", statement.actions, when=when, about=statement)
        case "require_approval":
            yield _policy(
                statement.policy_id,
                "forbid",
                statement.actions,
                when=when,
                unless=_APPROVED,
                about=statement,
                asks=True,
            )
        case "rate_limit" | "budget":
            spent = f"(if context has spent then context.spent.contains({_quoted(statement.policy_id)}) else true)"
            yield _policy(statement.policy_id, "forbid", statement.actions, when=(*when, spent), about=statement)
        case _:  # an allow: what it adds is a permit, or keeps a layer open
            return


def _permit(statement: Statement) -> str:
    return _policy(statement.policy_id, "permit", statement.actions, when=_condition(statement), about=statement)


def _closed(layer: StatementLayer, actions: tuple[str, ...]) -> str:
    """Forbid what no policy of a layer covers."""
    covering = [
        _joined("&&", [f"action in {_actions(each.actions)}", *_condition(each)])
        for each in layer.statements
        if each.type in {"allow", "require_approval"}
    ]
    return _policy(layer.name, "forbid", actions, unless=_any(covering) if covering else "")


def _policy(
    policy_id: str,
    effect: str,
    actions: tuple[str, ...],
    *,
    when: tuple[str, ...] = (),
    unless: str = "",
    about: Statement | None = None,
    asks: bool = False,
) -> str:
    lines = [f"@id({_quoted(policy_id)})"]
    if about is not None and about.reason:
        lines.append(f"@reason({_quoted(about.reason)})")
    if about is not None and not about.disclose:
        lines.append('@disclose("false")')
    if asks:
        lines.append('@effect("require_approval")')
    lines.append(f"{effect} (principal, action in {_actions(actions)}, resource)")
    if when:
        lines.append("when {\n  " + " &&\n  ".join(when) + "\n}")
    if unless:
        lines.append(f"unless {{\n  {unless}\n}}")
    return "\n".join(lines) + ";\n"


def _condition(statement: Statement) -> tuple[str, ...]:
    """When a policy applies: joined by &&; none: always."""
    lenient = statement.type == "allow"
    scopes = [_scope(scope, lenient=lenient, alone=len(statement.scopes) == 1) for scope in statement.scopes]
    parts = [_any(scopes)] if all(scopes) else []
    return (*parts, *(_test(test, lenient=lenient) for test in statement.tests))


def _scope(scope: Scope, *, lenient: bool, alone: bool) -> str:
    """The task's tier. Where it is none of the four, what restricts applies, and what allows does not."""
    parts = [] if alone else [f"action in {_actions(scope.actions)}"]
    if len(scope.tiers) < len(RiskTier):
        tiers = scope.tiers if lenient else tuple(tier for tier in RiskTier if tier not in scope.tiers)
        listed = ", ".join(_quoted(tier.value) for tier in tiers)
        known = f"context has task_risk && [{listed}].contains(context.task_risk)"
        parts.append(known if lenient else f"!({known})")
    return _joined("&&", parts)


def _test(test: Test, *, lenient: bool) -> str:
    otherwise = "false" if lenient else "true"
    if isinstance(test, CallTest):
        holds, fails = _outcomes(test.of)
        return holds if lenient else f"!{fails}"
    if isinstance(test, RoleTest):
        roles = ", ".join(map(_quoted, test.roles))
        return f"(if context has roles then context.roles.containsAny([{roles}]) else {otherwise})"
    given, value = _place(test)
    matches = " || ".join(f'{value} like "{_pattern(glob)}"' for glob in test.globs)
    return f"(if {given} then {matches} else {otherwise})"


def _outcomes(test: ArgumentTest) -> tuple[str, str]:
    """What asks whether a test is true, and what asks whether it is false; where neither is, it comes to an error."""
    match test:
        case Given(name):
            sent = f"context.given.contains({_quoted(name)})"
            return f"(context has given && {sent})", f"(context has given && !{sent})"
        case Negated(part):
            holds, fails = _outcomes(part)
            return fails, holds
        case Joined(operator, parts):
            holds, fails = zip(*map(_outcomes, parts), strict=True)
            other = "||" if operator == "&&" else "&&"
            return f"({_joined(operator, holds)})", f"({_joined(other, fails)})"
        case Compared(name, kind, comparison, constant):
            asked = f"{_read(name, kind)} {comparison} {_constant(constant)}"
        case _:
            name, kind = test.name, test.kind
            asked = f"[{', '.join(map(_constant, test.constants))}].contains({_read(name, kind)})"
    record = _RECORDS[kind][0]
    there = f"context has {record} && context.{record} has {_quoted(name)}"
    return f"({there} && {asked})", f"({there} && !({asked}))"


def _read(name: str, kind: str) -> str:
    return f"context.{_RECORDS[kind][0]}[{_quoted(name)}]"


def _constant(constant: Constant) -> str:
    if isinstance(constant, str):
        return _quoted(constant)
    return str(constant).lower()


def _place(test: TextTest) -> tuple[str, str]:
    """What asks whether a text is there, and what reads it."""
    if test.fact != "context":
        return f"context has {test.fact}", f"context.{test.fact}"
    name = _quoted(test.member)
    return f"context has facts && context.facts has {name}", f"context.facts[{name}]"


def _any(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else "(" + " ||\n   ".join(f"({part})" for part in parts) + ")"


def _joined(operator: str, parts: Iterable[str]) -> str:
    return f" {operator} ".join(parts)


def _actions(names: Iterable[str]) -> str:
    return "[" + ", ".join(f"{NAMESPACE}::Action::{_quoted(name)}" for name in names) + "]"


def _pattern(glob: str) -> str:
    """In ``like``, * stands for any run of characters, as it does here; nothing else has a meaning."""
    return "".join(_escaped(character) for character in glob)


def _quoted(text: str) -> str:
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return character if character.isascii() and character.isprintable() else f"\\u{{{ord(character):x}}}"
