"""``policy explain``: how policy decides on one call, told policy by policy."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, cast

import typer

from cra_mcp.faces.cli.govern import RiskTier, read_parameters
from cra_mcp.faces.cli.options import AsJson, Atlases, DataDir, Overlays, PolicyFiles, config_of, runtime_of
from cra_mcp.faces.cli.output import emit, emit_json, paint, printable

if TYPE_CHECKING:
    from cra_mcp.gate.explaining import CallExplanation
    from cra_mcp.policy.explanation import Considered, Part, Room
    from cra_mcp.policy.model import Facts
    from cra_mcp.settings import RuntimeConfig

EXAMPLES = (
    "cra-mcp policy explain ticket.delete --atlas customer-support",
    "cra-mcp policy explain refund.create --atlas customer-support --args @refund.json --agent bot",
    "cra-mcp policy explain ticket.close --atlas customer-support --risk-tier critical --at 2026-11-21T22:00:00Z --json",
)

_MAX_SHOWN = 200  # characters of a value, in the form for people
_MARKS = {"decides": "*", "applies": "+", "waits": "?", "does_not_apply": "-", "other_actions": " "}
_COLOURS = {"allow": "green", "require_approval": "yellow", "deny": "red"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def explain(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="Id of the action.")],
    atlas: Atlases,
    args: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="Parameters, a JSON object; - reads standard input, @FILE a file. Default: not known yet.",
        ),
    ] = None,
    agent: Annotated[str | None, typer.Option("--agent", metavar="ID", help="Who the agent is.")] = None,
    principal: Annotated[str, typer.Option(metavar="SUBJECT", help="Whom it acts for.")] = "local",
    role: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Role of the principal. Can be repeated.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Tenant it belongs to.")] = None,
    session: Annotated[str, typer.Option(metavar="ID", help="Session, for what is counted by session.")] = "",
    context: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Value of the context, a text. Can be repeated.")
    ] = None,
    risk_tier: RiskTier = "low",
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="RFC 3339 instant, with its offset. Default: now.")
    ] = None,
    approved: Annotated[bool, typer.Option("--approved", help="As if a person had approved this very call.")] = False,
    policy: PolicyFiles = None,
    overlay: Overlays = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Explain what would be decided, and why.

    Shows every policy in the order in which they are evaluated, each condition with what it read, limits and budgets with what is
    spent, and the event that would be recorded. Makes no call and records nothing. It tells of hidden policies too: it is for
    whoever runs the server. Exit code 0 whatever the decision is.
    """
    arguments = None if args is None else _object(args)
    at_us = None if at is None else _instant(at)
    config = config_of(data_dir=data_dir, policy_files=policy, overlays=overlay)
    facts = _facts(config, agent, principal, role or [], tenant, session, _pairs(context or []), risk_tier)
    with runtime_of(config, atlas) as runtime:
        found = runtime.explain(action, arguments, facts=facts, at_us=at_us, approved=approved)
    if as_json:
        emit_json(found.to_dict())
    else:
        _show(found)


def _facts(
    config: "RuntimeConfig",
    agent: str | None,
    principal: str,
    roles: list[str],
    tenant: str | None,
    session: str,
    context: dict[str, object],
    risk_tier: str,
) -> "Facts":
    from cra_mcp.auth.roles import ROLES, roles_of  # noqa: PLC0415 - not for --help
    from cra_mcp.policy.model import Facts, RiskTier  # noqa: PLC0415 - not for --help

    if len(roles_of(roles)) != len(set(roles)):
        raise typer.BadParameter(f"there are {', '.join(ROLES)}", param_hint="--role")
    return Facts(
        agent_id=agent or config.agent_id,
        session_id=session,
        tenant=tenant or config.tenant,
        task_risk=RiskTier(risk_tier),
        context=context,
        subject=principal,
        roles=frozenset(roles),
    )


def _object(text: str) -> dict[str, object]:
    value = read_parameters(text)
    if not isinstance(value, dict):
        raise typer.BadParameter("must be a JSON object", param_hint="--args")
    return cast("dict[str, object]", value)


def _pairs(texts: list[str]) -> dict[str, object]:
    pairs: dict[str, object] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--context")
        pairs[key] = value
    return pairs


def _instant(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise typer.BadParameter("must be an instant such as 2026-11-21T22:00:00Z", param_hint="--at")
    return (moment - _EPOCH) // timedelta(microseconds=1)


# --- for people --------------------------------------------------------------------------------------------------------


def _show(found: "CallExplanation") -> None:
    _show_decision(found)
    policies = found.policy.policies
    if policies:
        emit("")
        emit("POLICIES, as they are evaluated (* decides, + applies, ? waits for arguments, - does not apply)")
    for each in policies:
        if each.glob is not None:
            _show_policy(each)
    elsewhere = sum(each.glob is None for each in policies)
    if elsewhere:
        emit(f"  {elsewhere} more about other actions")
    for layer in found.policy.layers:
        state = {
            False: "",
            True: ", closed: nothing in it lets the call through",
            None: ", open only if what waits applies",
        }
        emit(f"{printable(layer.overlay) or 'the atlas'}: default {layer.default_effect}{state[layer.closed]}")
    if found.event is not None:
        emit("")
        emit("EVENT policy.evaluated")
        emit_json(found.event)


def _show_decision(found: "CallExplanation") -> None:
    decision = found.decision
    effect = paint(decision.effect, _COLOURS[decision.effect])
    emit(
        f"{printable(found.policy.action_id)}: {effect} by {printable(decision.policy_id)} ({decision.basis}), at {found.at}"
    )
    notes = [decision.reason]
    if found.policy.arguments == "unknown":
        notes.append("the arguments are not known: this is what the best ones would be told; give them with --args")
    if not decision.disclose:
        notes.append("not disclosed: the agent is told that there is no such action")
    if decision.retry_after_seconds is not None:
        notes.append(f"there is room again in {decision.retry_after_seconds} s")
    notes += [f"the arguments are not valid: {fault.pointer or '/'}: {fault.message}" for fault in found.faults]
    for note in notes:
        if note:
            emit(printable(f"  {note}"))


def _show_policy(each: "Considered") -> None:
    policy = each.policy
    failed = ", failed closed" if each.applies and each.truth == "error" else ""
    line = f"{_MARKS[each.outcome]} {policy.type:<16} {policy.policy_id}"
    priority = f", priority {policy.priority}" if policy.priority else ""
    reached = "" if each.consulted else ", not reached"
    emit(printable(f"{line}  [{each.glob}{priority}] {each.outcome.replace('_', ' ')}{failed}{reached}"))
    for part in each.parts:
        _show_part(part)
    if each.room is not None:
        _show_room(each.room)


def _show_part(part: "Part") -> None:
    wanted = part.wanted if isinstance(part.wanted, str) else _short(part.wanted)
    emit(printable(f"      {part.truth:<8} {part.name}: {wanted}"))
    for name, value in part.values.items():
        emit(printable(f"               {name} = {_short(value)}"))
    for name in part.missing:
        emit(printable(f"               {name} is missing"))
    for name in part.withheld:
        emit(printable(f"               {name}: the expression can't be evaluated exactly, so it fails closed"))
    for fault in part.faults:
        emit(printable(f"               {fault}"))


def _show_room(room: "Room") -> None:
    told = room.to_dict()
    takes = "unknown" if told["takes"] is None else f"{told['takes']:g}"
    wait = f", room in {told['wait_seconds']} s" if told["wait_seconds"] else ""
    emit(
        printable(
            f"      {told['spent']:g} of {told['maximum']:g} {room.unit} spent in {told['window_seconds']:g} s per {room.scope}; "
            f"this call takes {takes}{wait}"
        )
    )
    for name in room.withheld:
        emit(printable(f"               {name}: what the call costs can't be told exactly, so the budget refuses it"))


def _short(value: object) -> str:
    import orjson  # noqa: PLC0415 - not for --help

    from cra_mcp.canonical import lossy  # noqa: PLC0415 - not for --help

    text = orjson.dumps(lossy(value)).decode()
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"
