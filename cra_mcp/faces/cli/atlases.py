"""``atlas``: checking and showing packages."""

from typing import TYPE_CHECKING, Annotated

import typer

from cra_mcp.errors import AtlasInvalidError
from cra_mcp.faces.cli.options import AsJson, reporting
from cra_mcp.faces.cli.output import NO, OK, complain, emit, emit_json, printable, say, table
from cra_mcp.faces.cli.shipped import atlas_path

if TYPE_CHECKING:
    from cra_mcp.atlas.model import Atlas

app = typer.Typer(name="atlas", help="Check and show atlases.", no_args_is_help=True)


@app.command()
def validate(
    paths: Annotated[list[str], typer.Argument(help="Atlas folders, .json files, or names of shipped atlases.")],
    test: Annotated[bool, typer.Option("--test", help="Run the policy tests in the atlas too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check atlases; every problem is reported as file:pointer: message.

    Examples:

      cra-mcp atlas validate ./my-atlas

      cra-mcp atlas validate customer-support devops --test --json
    """
    reports = []
    with reporting():
        reports = [_validate(path, test=test) for path in paths]
    failed = any(report["problems"] or report["failed"] for report in reports)
    if as_json:
        emit_json({"ok": not failed, "atlases": reports})
    else:
        for report in reports:
            _tell(report)
    raise typer.Exit(NO if failed else OK)


def _validate(text: str, *, test: bool) -> dict[str, list[object] | object]:
    from cra_mcp.atlas.loader import load_atlas  # noqa: PLC0415 - pydantic and schemas only for this command

    report: dict[str, object] = {"path": text, "problems": [], "failed": [], "tests": 0}
    try:
        atlas = load_atlas(atlas_path(text))
    except AtlasInvalidError as error:
        report["problems"] = [
            {"file": found.file, "pointer": found.pointer, "code": found.code, "message": found.message}
            for found in error.problems
        ]
        return report
    report |= {"atlas_id": atlas.atlas_id, "version": atlas.version, "digest": atlas.digest}
    if test:
        from cra_mcp.atlas.cases import run_cases  # noqa: PLC0415 - only where asked for

        results = run_cases(atlas)
        report["tests"] = len(results)
        report["failed"] = [
            f"{result.case.name}: {'; '.join(result.failures)}" for result in results if not result.passed
        ]
    return report


def _tell(report: dict[str, list[object] | object]) -> None:
    problems, failed = report["problems"], report["failed"]
    assert isinstance(problems, list)  # noqa: S101 - made above
    assert isinstance(failed, list)  # noqa: S101
    for problem in problems:
        emit(printable(f"{problem['file']}:{problem['pointer']}: {problem['message']}"))
    for line in failed:
        emit(printable(str(line)))
    if problems:
        complain(f"{report['path']}: {len(problems)} problem{'s' if len(problems) != 1 else ''}")
    elif failed:
        complain(f"{report['path']}: {len(failed)} of {report['tests']} policy tests failed")
    else:
        tests = f", {report['tests']} policy tests passed" if report["tests"] else ""
        say(f"{report['path']}: {report['atlas_id']} {report['version']} is valid{tests}")


@app.command()
def show(
    path: Annotated[str, typer.Argument(help="Atlas folder, .json file, or name of a shipped atlas.")],
    as_json: AsJson = False,
) -> None:
    """Show the actions, policies and context of an atlas.

    Examples:

      cra-mcp atlas show customer-support

      cra-mcp atlas show ./my-atlas --json
    """
    from cra_mcp.atlas.loader import load_atlas  # noqa: PLC0415 - as above

    with reporting():
        atlas = load_atlas(atlas_path(path))
    if as_json:
        emit_json({"digest": atlas.digest, "manifest": atlas.manifest})
        return
    _show(atlas)


def _show(atlas: "Atlas") -> None:
    emit(f"{atlas.name}: {atlas.atlas_id} {atlas.version}")
    emit(f"digest {atlas.digest}\n")
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
