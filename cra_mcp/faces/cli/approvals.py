"""``pending``, ``approve``, ``deny``: answering from another terminal while a server runs."""

import getpass
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from cra_mcp.errors import ApprovalError
from cra_mcp.faces.cli.options import AsJson, DataDir, config_of, reporting
from cra_mcp.faces.cli.output import NO, USAGE, complain, emit_json, printable, say, table

if TYPE_CHECKING:
    from cra_mcp.approval.ledger import ApprovalLedger
    from cra_mcp.approval.model import Approval

Identifier = Annotated[str, typer.Argument(help="Id of the approval, or the unique beginning of one.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]


def pending(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the approvals that wait for an answer, the oldest first.

    Examples:

      cra-mcp pending

      cra-mcp pending --json
    """
    with reporting():
        found = _ledger(data_dir).pending()
    if as_json:
        emit_json({"pending": [approval.to_dict() for approval in found]})
        return
    rows = [
        (approval.approval_id, approval.action_id, approval.agent_id, _until(approval), _arguments(approval)[:60])
        for approval in found
    ]
    table(("APPROVAL", "ACTION", "AGENT", "UNTIL", "ARGUMENTS"), rows)
    if not found:
        say("nothing is waiting")


def approve(identifier: Identifier, yes: Yes = False, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Let one waiting call go ahead, once, with exactly the arguments shown. The agent then calls again.

    Examples:

      cra-mcp approve 01a1fbca

      cra-mcp approve 01a1fbca-d011-720e-b030-f1034a65cba2 --yes
    """
    _settle(identifier, granted=True, yes=yes, data_dir=data_dir, as_json=as_json)


def deny(identifier: Identifier, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Reject a waiting call. The same call is then denied until the approval expires.

    Examples:

      cra-mcp deny 01a1fbca
    """
    _settle(identifier, granted=False, yes=True, data_dir=data_dir, as_json=as_json)


def _settle(identifier: str, *, granted: bool, yes: bool, data_dir: object, as_json: bool) -> None:
    with reporting():
        ledger = _ledger(data_dir)
        approval = _find(ledger, identifier)
        if granted and not yes:
            _confirm(approval)
        settled = ledger.settle(approval.approval_id, granted=granted, by=_who(), channel="cli")
    if as_json:
        emit_json(settled.to_dict())
    else:
        say(f"{settled.status}: {settled.action_id} for {settled.agent_id} ({settled.approval_id})")


def show_approval(approval: "Approval") -> None:
    """Tell a person what is asked for: agent, action, exact arguments, and which policy wants to know."""
    say(f"{printable(approval.agent_id)} wants to call {approval.action_id} (risk: {approval.risk_tier}) with")
    say(_arguments(approval, indent=True))
    say(f"policy {approval.policy_id}: {printable(approval.reason)}")


def _confirm(approval: "Approval") -> None:
    show_approval(approval)
    if not sys.stdin.isatty():
        complain("nobody is here to confirm", "add --yes to approve without being asked")
        raise typer.Exit(USAGE)
    if not typer.confirm("Approve this one call?", default=False, err=True):
        raise typer.Exit(NO)


def _find(ledger: "ApprovalLedger", identifier: str) -> "Approval":
    matching = [approval for approval in ledger.pending() if approval.approval_id.startswith(identifier)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise ApprovalError(f"{len(matching)} approvals begin with {identifier}", hint="give more of the id")
    # Not waiting: the ledger knows why (settled, expired, or never asked for).
    return ledger.get(identifier)


def _ledger(data_dir: object) -> "ApprovalLedger":
    from cra_mcp.compose import open_ledger  # noqa: PLC0415 - not for --help

    return open_ledger(config_of(data_dir=data_dir))


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown user"


def _until(approval: "Approval") -> str:
    return datetime.fromtimestamp(approval.expires_at_us / 1_000_000, UTC).astimezone().strftime("%H:%M:%S")


def _arguments(approval: "Approval", *, indent: bool = False) -> str:
    option = orjson.OPT_INDENT_2 if indent else 0
    text = orjson.dumps(approval.parameters, option=option).decode()
    return "\n".join(printable(line) for line in text.splitlines())
