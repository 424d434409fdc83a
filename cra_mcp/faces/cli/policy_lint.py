"""``policy lint``: what is wrong with policies that load."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cra_mcp.faces.cli.exits import NO, OK
from cra_mcp.faces.cli.options import AsJson
from cra_mcp.faces.cli.output import emit, emit_json, printable, say

EXAMPLES = (
    "cra-mcp policy lint ./my-atlas",
    "cra-mcp policy lint customer-support devops --policy operator.yaml --level note",
)

LintedFiles = Annotated[
    list[Path] | None,
    typer.Option("--policy", metavar="FILE", help="Policy file of the operator, JSON or YAML. Can be repeated."),
]


def lint(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="Atlas folder, .json file, or name of a shipped one; overlays too."),
    ],
    policy: LintedFiles = None,
    level: Annotated[
        Literal["error", "warning", "note"], typer.Option(help="The least grave findings that count.")
    ] = "warning",
    as_json: AsJson = False,
) -> None:
    """Find policies that do nothing, and what else is wrong.

    Tells of policies that are shadowed, unreachable, duplicate or constant, conditions that can't hold, arguments read that may be
    missing, globs that match no action, risky actions no policy is about, secrets in what is written, and names and schemas that
    hosts reject: each as file:pointer: code. All paths are looked at together. Exit code 1 if there is a finding of the level, or
    above it.
    """
    from cra_mcp.analysis.findings import is_grave  # noqa: PLC0415 - not for --help
    from cra_mcp.analysis.lint import lint_paths  # noqa: PLC0415 - not for --help
    from cra_mcp.faces.cli.shipped import atlas_path  # noqa: PLC0415 - not for --help

    findings = lint_paths([(path, atlas_path(path)) for path in paths], policy or [])
    grave = [each for each in findings if is_grave(each, level)]
    if as_json:
        emit_json({"ok": not grave, "level": level, "findings": [each.to_dict() for each in findings]})
    else:
        for each in grave:
            emit(printable(f"{each.file}:{each.pointer}: {each.level} {each.code}: {each.message}"))
        more = len(findings) - len(grave)
        below = f", {more} below the level" if more else ""
        say(f"{len(grave)} finding{'s' if len(grave) != 1 else ''}{below}")
    raise typer.Exit(NO if grave else OK)
