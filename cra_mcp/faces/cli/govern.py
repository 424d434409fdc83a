"""``resolve`` and ``execute``: CARP from the command line."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cra_mcp.canonical import parse_json
from cra_mcp.errors import CanonicalError, SettingsError
from cra_mcp.faces.cli.approvals import show_approval
from cra_mcp.faces.cli.options import (
    AgentId,
    AsJson,
    Atlases,
    DataDir,
    Goal,
    TraceDir,
    config_of,
    reporting,
    runtime_of,
)
from cra_mcp.faces.cli.output import NO, OK, complain, emit, emit_json, say, table

if TYPE_CHECKING:
    from cra_mcp.approval.model import Answer, Approval, Channel
    from cra_mcp.resolution import Resolution

_MAX_ARGUMENTS = 16 * 1_048_576
_COLOURS = {"allowed": "green", "approval": "yellow", "denied": "red"}


def resolve(
    atlas: Atlases,
    goal: Goal,
    capability: Annotated[
        list[str] | None, typer.Option(help="Consider only this capability. Can be repeated.")
    ] = None,
    hint: Annotated[
        list[str] | None, typer.Option(help="Words that raise the rank of context. Can be repeated.")
    ] = None,
    risk_tier: Annotated[str, typer.Option(help="Risk of the task: low, medium, high or critical.")] = "low",
    agent_id: AgentId = None,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    as_json: AsJson = False,
) -> None:
    """What an agent may know and do for a goal.

    Examples:

      cra-mcp resolve --atlas customer-support --goal "Refund order 1001"

      cra-mcp resolve --atlas ./my-atlas --goal "Read tickets" --capability ticket.read --json
    """
    with reporting(), runtime_of(config_of(data_dir=data_dir, trace_dir=trace_dir), atlas) as runtime:
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
    action: Annotated[str, typer.Argument(help="Id of the action.")],
    atlas: Atlases,
    args: Annotated[str, typer.Option(help="Parameters as JSON; - reads stdin, @FILE a file.")] = "{}",
    goal: Goal = "",
    agent_id: AgentId = None,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    as_json: AsJson = False,
) -> None:
    """Have an action carried out through the gate, as an agent would.

    Examples:

      cra-mcp execute ticket.search --atlas customer-support --args '{"query": "refund"}'

      echo '{"ticket_id": "T-2001"}' | cra-mcp execute ticket.get --atlas customer-support --args - --json
    """
    with reporting(), runtime_of(config_of(data_dir=data_dir, trace_dir=trace_dir), atlas) as runtime:
        session = runtime.create_session(agent_id, goal)
        outcome = runtime.execute_blocking(session.session_id, action, _parameters(args), asker=_Terminal())
        if as_json:
            emit_json(outcome.to_dict())
        elif outcome.result is not None:
            content = outcome.result.content
            emit_json(outcome.value if content is None else list(content))
        if outcome.fault is not None:
            # The session ends with this command, so an approval given later would serve nobody.
            pending = outcome.status == "pending_approval"
            hint = "run it in a terminal, where you are asked" if pending else outcome.fault.hint
            complain(f"{outcome.fault.message} [{outcome.fault.code}]", hint)
        say(f"recorded in session {session.session_id}")
    raise typer.Exit(OK if outcome.status == "success" else NO)


@dataclass(frozen=True, slots=True)
class _Terminal:
    """Asks whoever runs the command; without a terminal nobody can be asked."""

    channel: "Channel" = "cli"

    async def ask(self, approval: "Approval") -> "Answer":
        """Show what is asked for and wait for y or n."""
        if not sys.stdin.isatty():
            return "unavailable"
        import anyio.to_thread  # noqa: PLC0415 - not for --help

        show_approval(approval)
        agreed = await anyio.to_thread.run_sync(
            lambda: typer.confirm("Approve this one call?", default=False, err=True)
        )
        return "granted" if agreed else "rejected"


def _parameters(text: str) -> Any:
    try:
        if text == "-":
            data = sys.stdin.buffer.read(_MAX_ARGUMENTS + 1)
        elif text.startswith("@"):
            data = Path(text[1:]).read_bytes()
        else:
            data = text.encode()
        return parse_json(data, max_bytes=_MAX_ARGUMENTS)
    except OSError as error:
        raise SettingsError(f"can't read the parameters: {error.strerror}", hint="check the file after @") from None
    except (CanonicalError, UnicodeEncodeError) as error:
        message = error.message if isinstance(error, CanonicalError) else "not valid UTF-8"
        raise SettingsError(
            f"--args is not JSON: {message}", hint="""quote it for the shell: --args '{"key": "value"}'"""
        ) from None
