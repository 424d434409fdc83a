"""``resolve`` and ``execute``: CARP from the command line."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cra_mcp.errors import CanonicalError
from cra_mcp.faces.cli.approvals import agrees, show_approval, who
from cra_mcp.faces.cli.exits import NO, OK
from cra_mcp.faces.cli.options import (
    AgentId,
    AsJson,
    Atlases,
    DataDir,
    Goal,
    Overlays,
    PolicyFiles,
    Store,
    TraceDir,
    config_of,
    runtime_of,
)
from cra_mcp.faces.cli.output import complain, emit, emit_json, say, table

if TYPE_CHECKING:
    from cra_mcp.approval.model import Approval
    from cra_mcp.compose import CRARuntime
    from cra_mcp.resolution.model import Resolution

RESOLVE_EXAMPLES = (
    'cra-mcp resolve --atlas customer-support --goal "Refund order O-3001"',
    'cra-mcp resolve --atlas ./my-atlas --goal "Read tickets" --capability ticket.read --json',
)
EXECUTE_EXAMPLES = (
    """cra-mcp execute ticket.search --atlas customer-support --args '{"query": "refund"}'""",
    "cra-mcp execute ticket.get --atlas customer-support --args @ticket.json --json",
)

_MAX_ARGUMENTS = 16 * 1_048_576
_POLL_S = 0.5
_COLOURS = {"allowed": "green", "approval": "yellow", "denied": "red"}

RiskTier = Annotated[
    Literal["low", "medium", "high", "critical"], typer.Option("--risk-tier", help="Risk of the task.")
]


def resolve(
    atlas: Atlases,
    goal: Goal,
    capability: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Consider only this capability. Can be repeated.")
    ] = None,
    hint: Annotated[
        list[str] | None, typer.Option(metavar="WORDS", help="Words that raise the rank of context. Can be repeated.")
    ] = None,
    risk_tier: RiskTier = "low",
    agent_id: AgentId = None,
    policy: PolicyFiles = None,
    overlay: Overlays = None,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Show what an agent may know and do.

    Resolves a goal as an agent would, in a session of its own, and records it. Exit code 1 if nothing is usable.
    """
    with runtime_of(
        config_of(data_dir=data_dir, trace_dir=trace_dir, store=store, policy_files=policy, overlays=overlay), atlas
    ) as runtime:
        session = runtime.create_session(agent_id, goal, risk_tier=risk_tier)
        resolution = runtime.resolve(
            session.session_id, context_hints=hint or (), required_capabilities=capability or ()
        )
    if as_json:
        emit_json(resolution.to_dict())
    else:
        _show(resolution)
    say(f"recorded in session {session.session_id}")
    raise typer.Exit(NO if resolution.decision_type == "deny" else OK)


def _show(resolution: "Resolution") -> None:
    rows = [
        (
            "approval" if permission.decision.effect == "require_approval" else "allowed",
            permission.action.action_id,
            permission.action.risk_tier.value,
            permission.decision.reason if permission.decision.effect == "require_approval" else "",
        )
        for permission in resolution.allowed_actions
    ]
    rows += [
        ("denied", permission.action.action_id, permission.action.risk_tier.value, permission.decision.reason)
        for permission in resolution.denied_actions
    ]
    emit(f"decision: {resolution.decision_type}, valid for {resolution.ttl_seconds} s")
    table(("DECISION", "ACTION", "RISK", "WHY"), rows, colours=_COLOURS)
    if resolution.context_blocks:
        emit("")
        table(
            ("CONTEXT", "PRIORITY", "TOKENS"),
            [(block.source, str(block.priority), str(block.token_estimate)) for block in resolution.context_blocks],
        )


def execute(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="Id of the action.")],
    atlas: Atlases,
    args: Annotated[
        str, typer.Option(metavar="JSON", help="Parameters, a JSON object; - reads standard input, @FILE a file.")
    ] = "{}",
    goal: Goal = "",
    risk_tier: RiskTier = "low",
    agent_id: AgentId = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for approval from another terminal.")] = False,
    policy: PolicyFiles = None,
    overlay: Overlays = None,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Have an action carried out, through the gate.

    Policy decides as it does for an agent. What needs approval is asked on this terminal; without one the call is not
    made, unless --wait lets `cra-mcp approve` answer.
    """
    parameters = read_parameters(args)
    with runtime_of(
        config_of(data_dir=data_dir, trace_dir=trace_dir, store=store, policy_files=policy, overlays=overlay), atlas
    ) as runtime:
        session = runtime.create_session(agent_id, goal, risk_tier=risk_tier)
        outcome = runtime.execute_blocking(session.session_id, action, parameters)
        if (
            outcome.approval is not None
            and outcome.status == "pending_approval"
            and _ask(runtime, outcome.approval, wait=wait)
        ):
            outcome = runtime.execute_blocking(session.session_id, action, parameters)
    if as_json:
        emit_json(outcome.to_dict())
    elif outcome.result is not None:
        content = outcome.result.content
        emit_json(outcome.value if content is None else list(content))
    if outcome.fault is not None:
        pending = outcome.status == "pending_approval"
        hint = "run it in a terminal, where you are asked, or with --wait" if pending else outcome.fault.hint
        complain(f"{outcome.fault.message} [{outcome.fault.code}]", hint)
    say(f"recorded in session {session.session_id}")
    raise typer.Exit(OK if outcome.status == "success" else NO)


def _ask(runtime: "CRARuntime", approval: "Approval", *, wait: bool) -> bool:
    """Get an answer to a pending approval; whether it is worth making the call again."""
    if wait:
        say(f"waiting for `cra-mcp approve {approval.approval_id}` in another terminal")
        while runtime.approval(approval.approval_id).status == "pending":
            time.sleep(_POLL_S)
        return True
    # The session ends with this command, so an answer given later would serve nobody: without a person it is no.
    answered = sys.stdin.isatty()
    if answered:
        show_approval(approval)
    granted = answered and agrees()
    runtime.settle_approval(approval.approval_id, granted=granted, by=who(), channel="cli")
    return answered


def read_parameters(text: str) -> Any:
    """What --args gives: JSON, ``-`` for standard input, ``@FILE`` for a file.

    Raises:
        typer.BadParameter: it is not JSON, or too much.
    """
    from cra_mcp.canonical import parse_json  # noqa: PLC0415 - not for --help

    if text == "-":
        data = sys.stdin.buffer.read(_MAX_ARGUMENTS + 1)
    elif text.startswith("@"):
        with Path(text[1:]).open("rb") as file:
            data = file.read(_MAX_ARGUMENTS + 1)
    else:
        data = text.encode("utf-8", "surrogateescape")
    try:
        return parse_json(data, max_bytes=_MAX_ARGUMENTS)
    except CanonicalError as error:
        raise typer.BadParameter(f"not usable as JSON: {error.message}", param_hint="--args") from None
