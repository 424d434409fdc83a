"""``trace report``: one session as one HTML file, to read, print and keep."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

import cra_mcp
from cra_mcp.faces.cli.exits import NO
from cra_mcp.faces.cli.options import AsJson, DataDir, TraceDir, config_of
from cra_mcp.faces.cli.output import complain, emit_json, say
from cra_mcp.faces.cli.stores import open_traces
from cra_mcp.words import count_of

EXAMPLES = (
    "cra-mcp trace report latest -o session.html",
    "cra-mcp trace report 01a1fbca -o session.html --checkpoint /mnt/worm --key agents.vkey",
    "cra-mcp trace report ./copy.trace.jsonl -o copy.html --json",
)


def report(
    session: Annotated[
        str,
        typer.Argument(metavar="SESSION|FILE", help="Session id (or beginning, or `latest`), or .trace.jsonl file."),
    ] = "latest",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this new file, for its owner only; not to stdout.")
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE|DIR", help="Checkpoints kept elsewhere: the chain must agree. Can be repeated."),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="VKEY|FILE", help="Public key to trust, or a file of them. Can be repeated."),
    ] = None,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    as_json: AsJson = False,
) -> None:
    """Make an HTML report of a session.

    One file that loads nothing and runs nothing, to read in a browser or print: whether the chain holds and agrees with its
    checkpoints (as `verify` says), what happened, and all events with their hashes. What was hidden when it was recorded stays
    hidden. A trace that is broken is reported as such, with exit code 1. With --json, and --output: a summary on stdout.
    """
    from cra_mcp.faces.cli.evidence import gather, keys_of  # noqa: PLC0415 - not for --help
    from cra_mcp.faces.cli.kept_atlases import KeptAtlases  # noqa: PLC0415 - not for --help
    from cra_mcp.faces.cli.page import page  # noqa: PLC0415 - not for --help
    from cra_mcp.faces.cli.trace_export import opened_output  # noqa: PLC0415 - not for --help
    from cra_mcp.faces.cli.verifying import Look, examine  # noqa: PLC0415 - not for --help

    if as_json and output is None:
        raise typer.BadParameter("goes with --output, since the report itself is on stdout", param_hint="--json")
    config = config_of(data_dir=data_dir, trace_dir=trace_dir)
    keys = keys_of(key, config.data_path)
    look = Look(gather(checkpoint, keys) if checkpoint else None, keys, sure=bool(key))
    found = examine(open_traces(data_dir, trace_dir), session, None, look, config.trace_path)
    made = f"Made by cra-mcp {cra_mcp.__version__} on {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    with opened_output(output) as write:
        for piece in page(found, KeptAtlases(config.trace_path), made=made):
            write(piece.encode("utf-8", "replace"))
    if as_json:
        emit_json({"output": str(output), **found.to_dict()})
    elif output is not None:
        say(f"report of {count_of(len(found.lines), 'event')} in {output}")
    if not found.ok:
        complain("the trace is broken: the report says where", f"see `cra-mcp trace verify {session}`")
        raise typer.Exit(NO)
