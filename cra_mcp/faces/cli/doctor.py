"""``doctor``: whether this machine has what the runtime needs, and whether hosts will find it."""

import typer

from cra_mcp.faces.cli.exits import NO, OK
from cra_mcp.faces.cli.options import AsJson, DataDir, TraceDir, config_of
from cra_mcp.faces.cli.output import emit_json, table

_COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}


def doctor(data_dir: DataDir = None, trace_dir: TraceDir = None, as_json: AsJson = False) -> None:
    """Look for problems of this installation.

    Versions, folders, disk, programs, and the host configurations that start us. Exit code 1 on a problem; a note is none.
    """
    from dataclasses import asdict  # noqa: PLC0415 - not for --help

    from cra_mcp.faces.cli.health import examine  # noqa: PLC0415 - not for --help

    findings = examine(config_of(data_dir=data_dir, trace_dir=trace_dir))
    healthy = all(finding.state != "problem" for finding in findings)
    if as_json:
        emit_json({"ok": healthy, "findings": [asdict(finding) for finding in findings]})
    else:
        rows = [(finding.state, finding.name, finding.detail) for finding in findings]
        table(("STATE", "WHAT", "DETAIL"), rows, colours=_COLOURS)
    raise typer.Exit(OK if healthy else NO)
