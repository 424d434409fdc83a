"""``policy test``: the policy tests of atlases, and what they have seen of their policies."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cra_mcp.errors import AtlasConflictError, AtlasInvalidError
from cra_mcp.faces.cli.exits import ENVIRONMENT, NO, OK
from cra_mcp.faces.cli.new_files import check_new, new_file
from cra_mcp.faces.cli.options import AsJson, Overlays, PolicyFiles
from cra_mcp.faces.cli.output import complain, emit, emit_json, paint, printable, say
from cra_mcp.words import count_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cra_mcp.atlas.cases import CaseResult, Run
    from cra_mcp.atlas.model import Atlas
    from cra_mcp.atlas.overlay import Overlay
    from cra_mcp.faces.cli.junit import Case, Suite

EXAMPLES = (
    "cra-mcp policy test ./my-atlas",
    "cra-mcp policy test customer-support hipaa --min-coverage 80",
    "cra-mcp policy test ./my-atlas --policy ours.yaml --overlay no-destructive",
    "cra-mcp policy test --policy ours.yaml --cases ours.tests.yaml --min-coverage 100",
    "cra-mcp policy test ./my-atlas --policy ours.yaml --cases tests",
    "cra-mcp policy test ./my-atlas --min-coverage 100 --junit policy-tests.xml --json",
)


@dataclass(slots=True)
class _Report:
    """What was found in one atlas, or of the operator's policies."""

    path: str
    problems: list[str] = field(default_factory=list[str])
    atlas: "Atlas | None" = None
    run: "Run | None" = None
    least: float = 0

    @property
    def name(self) -> str:
        return self.atlas.atlas_id if self.atlas is not None else self.path

    @property
    def results(self) -> "Sequence[CaseResult]":
        return self.run.results if self.run is not None else ()

    @property
    def failed(self) -> "list[CaseResult]":
        return [result for result in self.results if not result.passed]

    @property
    def uncovered(self) -> bool:
        return self.run is not None and self.run.coverage.percent < self.least

    @property
    def ok(self) -> bool:
        return self.run is not None and bool(self.run.results) and not self.failed and not self.uncovered


def run_tests(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH", help="Atlas folder, or name of a shipped one. Default: this folder; with --cases, none."
        ),
    ] = None,
    policy: PolicyFiles = None,
    overlay: Overlays = None,
    cases: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="File or folder of tests of your own policies, run instead of those of atlases. Can be repeated.",
        ),
    ] = None,
    min_coverage: Annotated[
        float, typer.Option(metavar="PERCENT", min=0, max=100, help="Coverage that each atlas must reach.")
    ] = 0,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the results as JUnit XML to this new file, too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the policy tests of atlases, or of your own policies.

    Those of an atlas are its tests/*.json. Those of your own policies come with --cases: they are about the actions they bring and
    those of the atlases named, and coverage is that of your policies. Nothing is executed.

    Coverage counts each policy that has decided a test, and each condition seen true, false and, where it can be, in error. Exit
    code 1 if a test fails or coverage is too low, 3 if there is none.
    """
    if junit is not None:
        check_new(junit.expanduser())
    overlays = _overlays(policy, overlay)
    if cases:
        if not overlays:
            raise typer.BadParameter("name what is tested with --policy or --overlay", param_hint="--cases")
        reports = [_report_of_policies(cases, overlays, paths or [], min_coverage)]
    else:
        reports = [_report(path, overlays, min_coverage) for path in paths or ["."]]
    if junit is not None:
        from cra_mcp.faces.cli.junit import document  # noqa: PLC0415 - only where asked for

        with new_file(junit) as write:
            write(document([_suite(report) for report in reports]))
    if as_json:
        shown = [_to_dict(report) for report in reports]
        ok = all(report.ok for report in reports)
        emit_json({"ok": ok, "policies": shown[0]} if cases else {"ok": ok, "atlases": shown})
    else:
        for report in reports:
            _tell(report)
    raise typer.Exit(_exit_code(reports))


def _exit_code(reports: "Sequence[_Report]") -> int:
    """No tests are no answer; a test that fails is one, whatever else there is not."""
    if all(report.ok for report in reports):
        return OK
    are_empty = [report.run is not None and not report.run.results for report in reports]
    return ENVIRONMENT if all(report.ok or empty for report, empty in zip(reports, are_empty, strict=True)) else NO


def _overlays(policy_files: list[Path] | None, overlays: list[Path] | None) -> "list[Overlay]":
    """What governs every action besides, in the order a runtime loads it."""
    from cra_mcp.atlas.overlay_loading import load_overlay_atlas, load_policy_file  # noqa: PLC0415 - not for --help
    from cra_mcp.faces.cli.options import config_of  # noqa: PLC0415 - as above

    config = config_of(policy_files=policy_files, overlays=overlays)
    return [*map(load_policy_file, config.policy_files), *map(load_overlay_atlas, config.overlays)]


def _report(text: str, overlays: "Sequence[Overlay]", least: float) -> _Report:
    from cra_mcp.atlas.cases import run  # noqa: PLC0415 - pydantic and schemas only where atlases are read
    from cra_mcp.atlas.loader import load_atlas  # noqa: PLC0415 - as above
    from cra_mcp.faces.cli.shipped import atlas_path  # noqa: PLC0415 - not for --help

    report = _Report(text, least=least)
    try:
        report.atlas = load_atlas(atlas_path(text))
        report.run = run(report.atlas, overlays)
    except AtlasInvalidError as error:
        report.problems = [str(problem) for problem in error.problems]
    except AtlasConflictError as error:
        report.problems = [f"{error.code}: {error.message}"]
    return report


def _report_of_policies(
    cases: "Sequence[Path]", overlays: "Sequence[Overlay]", paths: "Sequence[str]", least: float
) -> _Report:
    from cra_mcp.atlas.case_files import load_case_files  # noqa: PLC0415 - pydantic only where files are read
    from cra_mcp.atlas.cases import run_case_files  # noqa: PLC0415 - as above
    from cra_mcp.atlas.loader import load_atlas  # noqa: PLC0415 - as above
    from cra_mcp.faces.cli.shipped import atlas_path  # noqa: PLC0415 - not for --help

    report = _Report(", ".join(overlay.overlay_id for overlay in overlays), least=least)
    try:
        atlases = [load_atlas(atlas_path(text)) for text in paths]
        report.run = run_case_files(load_case_files([path.expanduser() for path in cases]), overlays, atlases)
    except AtlasInvalidError as error:
        report.problems = [str(problem) for problem in error.problems]
    except AtlasConflictError as error:
        report.problems = [f"{error.code}: {error.message}"]
    return report


def _tell(report: _Report) -> None:
    for problem in report.problems:
        emit(printable(problem))
    if report.problems:
        complain(f"{report.path} can't be tested", "`cra-mcp docs atlas` has the form and every problem code")
    if report.run is None:
        return
    for result in report.failed:
        _tell_failure(result)
    run = report.run
    emit(f"{printable(report.name)}: {_counted(report)}, {_coverage(run)}")
    from cra_mcp.atlas.case_coverage import sentences  # noqa: PLC0415 - not for --help

    for sentence in sentences(run.coverage.policies):
        emit(f"  {printable(sentence)}")
    if not run.results:
        complain(f"{report.path} has no policy tests", '`cra-mcp docs atlas`, "Policy tests", says how to write them')
    elif report.failed:
        complain(f"{report.path}: {len(report.failed)} of {len(run.results)} policy tests failed")
    if report.uncovered:
        complain(
            f"{report.path}: coverage is {run.coverage.percent:.1f} %, below {report.least:g} %",
            "write tests for what is listed above",
        )
    if report.ok:
        say(f"{report.path}: ok")


def _counted(report: _Report) -> str:
    total = len(report.results)
    return f"{total - len(report.failed)} of {count_of(total, 'policy test')} passed"


def _coverage(run: "Run") -> str:
    coverage = run.coverage
    decided = sum(each.decided for each in coverage.policies)
    outcomes = coverage.total - len(coverage.policies)
    return (
        f"coverage {coverage.percent:.1f} % "
        f"({decided} of {count_of(len(coverage.policies), 'policy', 'policies')}, "
        f"{coverage.covered - decided} of {count_of(outcomes, 'outcome')} of conditions)"
    )


def _tell_failure(result: "CaseResult") -> None:
    case = result.case
    emit(f"{paint('FAILED', 'red')} {printable(case.file)}: {printable(case.name)}")
    for line in _why(result):
        emit(f"  {printable(line)}")


def _why(result: "CaseResult") -> list[str]:
    """What was expected and came, and what led there."""
    decision = result.decision
    lines = [*result.failures, f"why: {decision.basis} decided: {decision.reason or 'no reason given'}"]
    for each in result.considered:
        mark = "*" if each.policy_id in decision.determining else " "
        conditions = ", ".join(f"{name} {word}" for name, word in each.conditions.items()) or "no conditions"
        lines.append(f"{mark} {each.policy_id} ({each.type}): {conditions}")
    return lines


def _to_dict(report: _Report) -> dict[str, object]:
    from cra_mcp.atlas.cases import answer  # noqa: PLC0415 - not for --help

    run, atlas = report.run, report.atlas
    return {
        "path": report.path,
        "ok": report.ok,
        "problems": report.problems,
        "atlas_id": None if atlas is None else atlas.atlas_id,
        "version": None if atlas is None else atlas.version,
        "digest": None if atlas is None else atlas.digest,
        "tests": len(report.results),
        "failed": len(report.failed),
        "coverage": None if run is None else run.coverage.to_dict(),
        "cases": [
            {
                "file": each.case.file,
                "name": each.case.name,
                "action_id": each.case.action_id,
                "passed": each.passed,
                "failures": list(each.failures),
                "expected": dict(each.case.expect),
                "decision": {
                    **answer(each.decision),
                    "reason": each.decision.reason,
                    "determining": list(each.decision.determining),
                },
                "considered": [asdict(policy) for policy in each.considered],
            }
            for each in report.results
        ],
    }


def _suite(report: _Report) -> "Suite":
    from cra_mcp.faces.cli.junit import Case, Suite  # noqa: PLC0415 - only where asked for

    if report.run is None:
        return Suite(report.name, [Case("the atlas loads", report.path, error=_told(report.problems))])
    cases = [_case(report, result) for result in report.run.results]
    coverage = f"{report.run.coverage.percent:.2f}"
    if report.uncovered:
        cases.append(
            Case("coverage", report.name, failure=_told([f"coverage is {coverage} %, below {report.least:g} %"]))
        )
    if not report.run.results:
        cases.append(Case("there are policy tests", report.name, error=_told(["the atlas has no policy tests"])))
    return Suite(report.name, cases, {"coverage": coverage})


def _case(report: _Report, result: "CaseResult") -> "Case":
    from cra_mcp.faces.cli.junit import Case  # noqa: PLC0415 - as above

    place = f"{report.name}/{result.case.file}"
    return Case(result.case.name, place, failure=None if result.passed else _told(_why(result)))


def _told(lines: "Sequence[str]") -> tuple[str, str]:
    return lines[0], "\n".join(lines)
