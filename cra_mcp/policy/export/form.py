"""What can be said in other languages: policies for the actions of an atlas, reduced to tests of the requester.

Rule: nothing is approximated. A policy that bears on no action of the atlas is left out, because it decides nothing; one that
bears on some and can't be expressed is an obstacle, and all obstacles are named at once.
Source: specs/policy.md, "Export".
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cra_mcp.policy.conditions import higher, static_part_holds
from cra_mcp.policy.engine import governing
from cra_mcp.policy.export.arguments import ArgumentTest, BeyondError, argument_test, names_in
from cra_mcp.policy.matching import ActionIndex
from cra_mcp.policy.model import ActionFacts, Layer, Policy, PolicyType, RiskTier

ObstacleCode = Literal["expression", "arguments", "time_window", "evidence", "text"]


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a policy can't be exported.

    Attributes:
        layer: its overlay; "" for the atlas.
        policy_id: as its file has it.
        pointer: RFC 6901, below the policy.
        code: stable identifier.
        message: one line for people.
    """

    layer: str
    policy_id: str
    pointer: str
    code: ObstacleCode
    message: str


class InexpressibleError(ValueError):
    """Some policies have no exact form elsewhere. ``obstacles``: every one found, in file order."""

    def __init__(self, obstacles: Sequence[Obstacle]) -> None:
        super().__init__(f"{len(obstacles)} obstacles to an export")
        self.obstacles: tuple[Obstacle, ...] = tuple(obstacles)


@dataclass(frozen=True, slots=True)
class TextTest:
    """A text that any of some globs matches; where it is missing or no text, the test can't be evaluated.

    Attributes:
        fact: whose text: the agent's id, the principal's subject, or a member of the context.
        member: which member; "" for the others.
    """

    fact: Literal["agent", "subject", "context"]
    member: str
    globs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoleTest:
    """Any of these roles, sorted."""

    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CallTest:
    """A test of the arguments of a call."""

    of: ArgumentTest


Test = TextTest | RoleTest | CallTest


@dataclass(frozen=True, slots=True)
class Scope:
    """Actions, and the risk tiers of a task at which a policy bears on them: all four where it makes no difference."""

    actions: tuple[str, ...]
    tiers: tuple[RiskTier, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """A policy that bears on some actions.

    Attributes:
        policy_id: as decisions name it, the overlay's name included.
        scopes: disjoint; together all actions it can bear on.
        tests: all must hold.
    """

    policy_id: str
    type: PolicyType
    reason: str
    disclose: bool
    scopes: tuple[Scope, ...]
    tests: tuple[Test, ...]

    @property
    def actions(self) -> tuple[str, ...]:
        """All actions of its scopes."""
        return tuple(action for scope in self.scopes for action in scope.actions)


@dataclass(frozen=True, slots=True)
class StatementLayer:
    """Statements of one layer; ``name`` is how its default is called in decisions."""

    name: str
    default_effect: Literal["allow", "deny"]
    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Form:
    """Everything that decides, ready to be written in another language.

    Attributes:
        actions: all that are declared.
        layers: overlays as loaded, the atlas last.
        members: those of the context that are read, sorted.
        arguments: names of those that are read, sorted.
    """

    actions: tuple[str, ...]
    layers: tuple[StatementLayer, ...]
    members: tuple[str, ...]
    arguments: tuple[str, ...] = ()

    @property
    def statements(self) -> Iterator[Statement]:
        """Of all layers."""
        return (each for layer in self.layers for each in layer.statements)


def express(
    policies: Sequence[Policy],
    actions: Sequence[ActionFacts],
    default_effect: Literal["allow", "deny"],
    overlays: Sequence[Layer] = (),
    *,
    plain: bool = False,
    calls: bool = False,
) -> Form:
    """Reduce policies to what other languages can say.

    Args:
        policies: of the atlas; this and the next three as ``compile_policies`` takes them.
        actions: in order of declaration.
        default_effect: what holds where none of its policies decides.
        overlays: policies that govern every action besides.
        plain: refuse texts that need escapes, for a language whose engines read those differently.
        calls: keep expressions over arguments, where they have an exact form.

    Raises:
        InexpressibleError: a policy that bears on one of the actions can't be expressed.
    """
    ordered = tuple(sorted(policies, key=lambda policy: policy.order))
    index = ActionIndex([action.action_id for action in actions])
    obstacles = list(_unwritable("", "", "", [action.action_id for action in actions], plain=plain))
    layers: list[StatementLayer] = []
    for layer in [*overlays, Layer("", ordered, default_effect)]:
        statements: list[Statement] = []
        named = governing(layer).policies if layer.overlay_id else layer.policies
        for policy in named:
            scopes = _scopes(policy, [actions[at] for at in sorted(index.matching(policy.actions))])
            if scopes:
                bearing = {name for scope in scopes for name in scope.actions}
                of = _call_test(policy, [each for each in actions if each.action_id in bearing]) if calls else None
                obstacles += _obstacles(policy, layer.overlay_id, of, plain=plain)
                statements.append(_statement(policy, scopes, of))
        name = f"{layer.overlay_id}/default" if layer.overlay_id else "default"
        layers.append(StatementLayer(name, layer.default_effect, tuple(statements)))
    if obstacles:
        raise InexpressibleError(obstacles)
    tests = [test for layer in layers for statement in layer.statements for test in statement.tests]
    members = {test.member for test in tests if isinstance(test, TextTest) and test.fact == "context"}
    arguments = {name for test in tests if isinstance(test, CallTest) for name in names_in(test.of)}
    return Form(
        tuple(action.action_id for action in actions), tuple(layers), tuple(sorted(members)), tuple(sorted(arguments))
    )


def _call_test(policy: Policy, actions: Sequence[ActionFacts]) -> ArgumentTest | None:
    """What ``when`` asks of a call; None if there is none, or it can't be said."""
    try:
        return argument_test(policy.when, actions) if policy.when is not None else None
    except BeyondError:
        return None


def _scopes(policy: Policy, actions: Iterable[ActionFacts]) -> tuple[Scope, ...]:
    found: dict[tuple[RiskTier, ...], list[str]] = {}
    for action in actions:
        tiers = tuple(
            task
            for task in RiskTier
            if static_part_holds(policy.conditions, higher(action.risk_tier, task), action.capabilities)
        )
        if tiers:
            found.setdefault(tiers, []).append(action.action_id)
    return tuple(Scope(tuple(names), tiers) for tiers, names in found.items())


def _statement(policy: Policy, scopes: tuple[Scope, ...], of: ArgumentTest | None) -> Statement:
    conditions = policy.conditions
    tests: list[Test] = []
    if conditions.agents:
        tests.append(TextTest("agent", "", conditions.agents))
    if conditions.principals:
        tests.append(TextTest("subject", "", conditions.principals))
    if conditions.roles:
        tests.append(RoleTest(tuple(sorted(conditions.roles))))
    tests += [TextTest("context", key, (pattern,)) for key, pattern in conditions.context_matches]
    tests += [CallTest(of)] if of is not None else []
    return Statement(policy.policy_id, policy.type, policy.reason, policy.disclose, scopes, tuple(tests))


def _obstacles(policy: Policy, overlay_id: str, of: ArgumentTest | None, *, plain: bool) -> Iterator[Obstacle]:
    own_id = policy.policy_id.removeprefix(f"{overlay_id}/") if overlay_id else policy.policy_id

    def obstacle(pointer: str, code: ObstacleCode, message: str) -> Obstacle:
        return Obstacle(overlay_id, own_id, pointer, code, message)

    if policy.when is not None and of is None:
        yield obstacle("/when", "expression", "this expression has no exact form elsewhere")
    if policy.conditions.arguments:
        yield obstacle("/conditions/arguments", "arguments", "a JSON Schema of arguments has no exact form elsewhere")
    if policy.conditions.time_window is not None:
        yield obstacle(
            "/conditions/time_window", "time_window", "wall clocks of time zones have no exact form elsewhere"
        )
    if policy.min_evidence is not None:
        yield obstacle("/parameters/min_evidence", "evidence", "approvals are granted or not: grades would be lost")
    for pointer, values in _texts(policy).items():
        yield from _unwritable(overlay_id, own_id, pointer, values, plain=plain)


def _texts(policy: Policy) -> Mapping[str, Sequence[str]]:
    conditions = policy.conditions
    return {
        "/policy_id": (policy.policy_id,),
        "/reason": (policy.reason,),
        "/conditions/agents": conditions.agents,
        "/conditions/principals": conditions.principals,
        "/conditions/roles": tuple(conditions.roles),
        "/conditions/context_matches": tuple(text for pair in conditions.context_matches for text in pair),
    }


def _unwritable(layer: str, policy_id: str, pointer: str, texts: Sequence[str], *, plain: bool) -> Iterator[Obstacle]:
    """Half a surrogate pair is a character here, and none anywhere else."""
    everything = "".join(texts)
    if any("\ud800" <= character <= "\udfff" for character in everything):
        yield Obstacle(layer, policy_id, pointer, "text", "half a surrogate pair is no text elsewhere")
    elif plain and (not everything.isprintable() or '"' in everything or "\\" in everything):
        yield Obstacle(
            layer, policy_id, pointer, "text", "engines read escapes differently: no quotes, backslashes, controls"
        )
