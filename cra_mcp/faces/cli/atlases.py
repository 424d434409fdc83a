"""``atlas``: checking and showing packages."""

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from cra_mcp.errors import AtlasInvalidError
from cra_mcp.faces.cli.exits import CODES, NO, OK, epilog
from cra_mcp.faces.cli.from_openapi import EXAMPLES, from_openapi
from cra_mcp.faces.cli.options import AsJson, GroupHelp
from cra_mcp.faces.cli.output import complain, emit, emit_json, printable, say, table

if TYPE_CHECKING:
    from cra_mcp.atlas.model import Atlas

app = typer.Typer(name="atlas", no_args_is_help=True)

app.command("from-openapi", epilog=epilog(*EXAMPLES))(from_openapi)

_WHERE = "Atlas folder, .json file, or name of a shipped one."


@app.callback(epilog=CODES)
def _group(_help: GroupHelp = False) -> None:
    """Check and show atlases."""


@dataclass(slots=True)
class _Report:
    """What was found in one atlas."""

    path: str
    ok: bool = False
    atlas_id: str | None = None
    version: str | None = None
    digest: str | None = None
    problems: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    tests: int = 0
    failures: list[str] = field(default_factory=list[str])
    notes: list[dict[str, object]] = field(default_factory=list[dict[str, object]])


@app.command(
    epilog=epilog("cra-mcp atlas validate ./my-atlas", "cra-mcp atlas validate customer-support devops --test")
)
def validate(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help=_WHERE)],
    test: Annotated[bool, typer.Option("--test", help="Run the policy tests in the atlas too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Report every problem, as file:pointer: message.

    Exit code 1 if there is one, or if a policy test fails.
    """
    reports = [_validate(path, test=test) for path in paths]
    ok = all(report.ok for report in reports)
    if as_json:
        emit_json({"ok": ok, "atlases": [asdict(report) for report in reports]})
    else:
        for report in reports:
            _tell(report)
    raise typer.Exit(OK if ok else NO)


def _validate(text: str, *, test: bool) -> _Report:
    from cra_mcp.analysis.host_lint import lint_schemas  # noqa: PLC0415 - as above
    from cra_mcp.analysis.subject import load_subject  # noqa: PLC0415 - as above
    from cra_mcp.atlas.loader import load_atlas  # noqa: PLC0415 - pydantic and schemas only where atlases are read
    from cra_mcp.faces.cli.shipped import atlas_path  # noqa: PLC0415 - not for --help

    report = _Report(text)
    try:
        atlas = load_atlas(atlas_path(text))
    except AtlasInvalidError as error:
        report.problems = [asdict(problem) for problem in error.problems]
        return report
    report.atlas_id, report.version, report.digest = atlas.atlas_id, atlas.version, atlas.digest
    report.notes = [each.to_dict() for each in lint_schemas(load_subject([(text, atlas_path(text))]))]
    if test:
        from cra_mcp.atlas.cases import run_cases  # noqa: PLC0415 - only where asked for

        results = run_cases(atlas)
        report.tests = len(results)
        report.failures = [f"{item.case.name}: {'; '.join(item.failures)}" for item in results if not item.passed]
    report.ok = not report.failures
    return report


def _tell(report: _Report) -> None:
    for problem in report.problems:
        emit(printable(f"{problem['file']}:{problem['pointer']}: {problem['code']}: {problem['message']}"))
    for line in report.failures:
        emit(printable(line))
    for note in report.notes:
        say(printable(f"{note['file']}:{note['pointer']}: note: {note['message']}"))
    if report.problems:
        many = "s" if len(report.problems) != 1 else ""
        complain(
            f"{report.path}: {len(report.problems)} problem{many}",
            "`cra-mcp docs atlas` has the form and every problem code",
        )
    elif report.failures:
        complain(f"{report.path}: {len(report.failures)} of {report.tests} policy tests failed")
    else:
        tests = f", {report.tests} policy tests passed" if report.tests else ""
        say(f"{report.path}: {report.atlas_id} {report.version} is valid{tests}")


@app.command(epilog=epilog("cra-mcp atlas show customer-support", "cra-mcp atlas show ./my-atlas --json"))
def show(
    path: Annotated[str, typer.Argument(metavar="PATH", help=_WHERE)],
    as_json: AsJson = False,
) -> None:
    """Show actions, policies and context of an atlas."""
    from cra_mcp.atlas.loader import load_atlas  # noqa: PLC0415 - as above
    from cra_mcp.faces.cli.shipped import atlas_path  # noqa: PLC0415 - not for --help

    atlas = load_atlas(atlas_path(path))
    if as_json:
        emit_json({"digest": atlas.digest, "manifest": atlas.manifest})
    else:
        _show(atlas)


def _show(atlas: "Atlas") -> None:
    emit(printable(f"{atlas.name}: {atlas.atlas_id} {atlas.version}"))
    emit(f"digest {atlas.digest}")
    emit("")
    rows = [
        (action.action_id, action.risk_tier.value, action.executor.type if action.executor else "-", action.name)
        for action in atlas.actions
    ]
    table(("ACTION", "RISK", "EXECUTOR", "NAME"), rows)
    if atlas.policies:
        emit("")
        policies = [
            (policy.policy_id, policy.type, " ".join(policy.actions), policy.reason) for policy in atlas.policies
        ]
        table(("POLICY", "TYPE", "ACTIONS", "REASON"), policies)
    if atlas.context_blocks:
        emit("")
        blocks = [(block.block_id, str(block.priority), str(block.token_estimate)) for block in atlas.context_blocks]
        table(("CONTEXT", "PRIORITY", "TOKENS"), blocks)
