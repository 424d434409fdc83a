"""``trace prune``: letting old traces go."""

import os
import re
import time
from typing import TYPE_CHECKING, Annotated

import typer

from cra_mcp.faces.cli.options import AsJson, DataDir, TraceDir, config_of
from cra_mcp.faces.cli.output import emit, emit_json, say

if TYPE_CHECKING:
    from cra_mcp.settings import RuntimeConfig
    from cra_mcp.trace.retention import Pruning, Sign

PRUNE_EXAMPLES = ("cra-mcp trace prune --keep 30d --dry-run", "cra-mcp trace prune --keep 7y --json")

_UNITS_S = {"h": 3_600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_PERIOD = re.compile(r"([1-9][0-9]{0,4})([hdwy])")


def _seconds(text: str) -> int:
    match = _PERIOD.fullmatch(text)
    if match is None:
        raise typer.BadParameter("must be a number and one of h, d, w, y: 12h, 30d, 7y", param_hint="--keep")
    return int(match[1]) * _UNITS_S[match[2]]


def prune(
    keep: Annotated[str, typer.Option("--keep", metavar="PERIOD", help="What stays: 12h, 30d, 4w, 7y.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; change nothing.")] = False,
    damaged: Annotated[bool, typer.Option("--damaged", help="Let traces that do not verify go as well.")] = False,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    as_json: AsJson = False,
) -> None:
    """Let go the traces of sessions that ended long ago.

    Of each a statement stays, <session>.pruned.json: how many events, from when to when, and the hash of the last. Traces that are
    being written stay, and so do those that do not verify.
    """
    keep_s = _seconds(keep)
    from cra_mcp.trace import retention  # noqa: PLC0415 - not for --help

    config = config_of(data_dir=data_dir, trace_dir=trace_dir)
    found: list[Pruning] = []
    rule = retention.Rule(keep_s, damaged=damaged, dry_run=dry_run)
    for done in retention.prune(config.trace_path, rule, time.time_ns(), sign=None if dry_run else _signing(config)):
        found.append(done)
        if not as_json:
            _tell(done, dry_run=dry_run)
    if not dry_run and any(done.statement is not None for done in found):
        _forget(config)
    gone = sum(done.statement is not None for done in found)
    if as_json:
        statements = [done.statement for done in found if done.statement is not None]
        kept = [{"session_id": done.session_id, "because": done.kept_because} for done in found if done.kept_because]
        emit_json({"dry_run": dry_run, "pruned": statements, "kept": kept})
    else:
        say(f"{gone} traces {'would go' if dry_run else 'gone'}, {len(found) - gone} old ones kept")


def _signing(config: "RuntimeConfig") -> "Sign | None":
    """What signs statements: the key of checkpoints, where there is one."""
    from cra_mcp.trace.checkpoint import encode  # noqa: PLC0415 - not for --help
    from cra_mcp.trace.keyfile import KEY_FILE, load_key  # noqa: PLC0415 - not for --help
    from cra_mcp.trace.retention import FORM  # noqa: PLC0415 - not for --help

    if config.checkpoint_key is None and not (config.data_path / KEY_FILE).exists():
        return None
    key = load_key(config.checkpoint_key, config.data_path, os.environ)
    return lambda data: {"vkey": key.verifier.encode(), "ed25519": encode(key.sign_statement(FORM, data))}


def _forget(config: "RuntimeConfig") -> None:
    """The index must not know what is gone; it is made anew with the next search."""
    from cra_mcp.compose import open_index  # noqa: PLC0415 - not for --help

    index = open_index(config)
    if index is not None:
        index.discard()


def _tell(done: "Pruning", *, dry_run: bool) -> None:
    if done.statement is None:
        emit(f"kept    {done.session_id}  {done.kept_because}")
    else:
        what = "would go" if dry_run else "pruned"
        emit(f"{what}  {done.session_id}  {done.statement['events']} events until {done.statement['last_timestamp']}")
