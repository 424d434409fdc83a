"""``pending``, ``approve``, ``deny``: answering from another terminal while a server runs."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cra_mcp.errors import ApprovalError
from cra_mcp.faces.cli.exits import NO, USAGE
from cra_mcp.faces.cli.options import AsJson, DataDir, config_of
from cra_mcp.faces.cli.output import complain, emit_json, printable, say, say_text, table

if TYPE_CHECKING:
    from cra_mcp.approval.ledger import ApprovalLedger
    from cra_mcp.approval.model import Approval

Identifier = Annotated[
    str, typer.Argument(metavar="ID", help="Id of the approval, or a beginning of it that no other waiting one has.")
]

_MAX_LISTED = 60


def pending(
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="List at most so many; 0 lists all.")] = 100,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List the calls that wait for approval, the newest first."""
    with _open_ledger(data_dir) as ledger:
        every = ledger.pending()
    found = every[:limit] if limit else every
    if as_json:
        emit_json({"pending": [approval.to_dict() for approval in found], "more": len(every) - len(found)})
        return
    if not found:
        say("nothing is waiting")
        return
    rows = [
        (
            approval.approval_id,
            approval.action_id,
            approval.agent_id,
            _until(approval),
            _arguments(approval)[:_MAX_LISTED],
        )
        for approval in found
    ]
    table(("APPROVAL", "ACTION", "AGENT", "UNTIL", "ARGUMENTS"), rows)
    if len(every) > len(found):
        say(f"{len(every) - len(found)} older ones not listed; --limit 0 lists all")


def approve(
    identifier: Identifier,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask; needed where there is no terminal.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Let one waiting call go ahead, once.

    It counts for exactly the arguments shown, until it expires; the agent then makes the call again.
    """
    with _open_ledger(data_dir) as ledger:
        approval = _find(ledger, identifier)
        if not yes:
            _confirm(approval)
        _settle(ledger, approval, granted=True, as_json=as_json)


def deny(identifier: Identifier, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Reject a waiting call.

    The same call is then denied until the approval would have expired.
    """
    with _open_ledger(data_dir) as ledger:
        _settle(ledger, _find(ledger, identifier), granted=False, as_json=as_json)


def show_approval(approval: "Approval") -> None:
    """Tell a person what is asked for: agent, action, exact arguments, and which policy wants to know."""
    say(
        f"{printable(approval.agent_id)} wants to call {printable(approval.action_id)} (risk: {approval.risk_tier}) with"
    )
    say_text(_arguments(approval, indent=True))
    say(f"policy {printable(approval.policy_id)}: {printable(approval.reason or 'no reason given')}")


def agrees() -> bool:
    """Whether the person at the terminal says yes to what was shown."""
    return typer.confirm("Approve this one call?", default=False, err=True)


def _confirm(approval: "Approval") -> None:
    show_approval(approval)
    if not sys.stdin.isatty():
        complain("there is no terminal to ask on", "add --yes to approve without being asked")
        raise typer.Exit(USAGE)
    if not agrees():
        say("not approved; the call still waits (`cra-mcp deny` rejects it)")
        raise typer.Exit(NO)


def _settle(ledger: "ApprovalLedger", approval: "Approval", *, granted: bool, as_json: bool) -> None:
    settled = ledger.settle(approval.approval_id, granted=granted, by=who(), channel="cli")
    if as_json:
        emit_json(settled.to_dict())
    say(f"{settled.status}: {printable(settled.action_id)} for {printable(settled.agent_id)} ({settled.approval_id})")


def _find(ledger: "ApprovalLedger", identifier: str) -> "Approval":
    matching = [approval for approval in ledger.pending() if identifier and approval.approval_id.startswith(identifier)]
    if len(matching) > 1:
        raise typer.BadParameter(f"{len(matching)} waiting approvals begin with {identifier}", param_hint="ID")
    # What doesn't wait the ledger may still know: settled, or expired.
    return matching[0] if matching else ledger.get(identifier)


@contextmanager
def _open_ledger(data_dir: Path | None) -> Generator["ApprovalLedger"]:
    from cra_mcp.compose import open_ledger  # noqa: PLC0415 - not for --help

    config = config_of(data_dir=data_dir)
    ledger = open_ledger(config)
    try:
        yield ledger
    except ApprovalError as error:
        if error.code == "unknown_approval":
            error.hint = (
                f"see `cra-mcp pending`; this looked in {config.data_path}, --data-dir says where the server keeps its"
            )
        raise
    finally:
        ledger.close()


def who() -> str:
    """The account that answers."""
    import getpass  # noqa: PLC0415 - not for --help

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown user"


def _until(approval: "Approval") -> str:
    from datetime import UTC, datetime  # noqa: PLC0415 - not for --help

    return datetime.fromtimestamp(approval.expires_at_us / 1_000_000, UTC).astimezone().strftime("%H:%M:%S")


def _arguments(approval: "Approval", *, indent: bool = False) -> str:
    import orjson  # noqa: PLC0415 - not for --help

    if approval.parameters is None:  # a call's parameters are an object
        return f"(arguments that are not recorded; SHA-256 {approval.parameters_hash})"
    text = orjson.dumps(approval.parameters, option=orjson.OPT_INDENT_2 if indent else 0).decode()
    return "\n".join(printable(line) for line in text.split("\n"))
