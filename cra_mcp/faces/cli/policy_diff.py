"""``policy diff``: what a change of policies lets through more widely, or less."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cra_mcp.faces.cli.exits import NO, OK
from cra_mcp.faces.cli.options import AsJson
from cra_mcp.faces.cli.output import emit, emit_json, paint, printable, say
from cra_mcp.words import count_of

if TYPE_CHECKING:
    from cra_mcp.analysis.diff import Comparison
    from cra_mcp.atlas.model import Atlas

EXAMPLES = (
    "cra-mcp policy diff ./my-atlas-1.0 ./my-atlas-1.1",
    "cra-mcp policy diff old.yaml new.yaml --atlas customer-support --json",
)

_WHERE = "Atlas folder or .json file; with --atlas, a policy file."


def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help=_WHERE)],
    new: Annotated[str, typer.Argument(metavar="NEW", help=_WHERE)],
    atlas: Annotated[
        list[str] | None,
        typer.Option("--atlas", metavar="PATH", help="Atlas that policy files govern on both sides. Can be repeated."),
    ] = None,
    max_requests: Annotated[
        int, typer.Option(metavar="N", min=1, max=1_000_000, help="Requests to try for each action.")
    ] = 3_000,
    as_json: AsJson = False,
) -> None:
    """Find what NEW lets through and OLD doesn't.

    And the other way round. Tries many requests on both: actions, agents, roles, risk, context, both sides of time boundaries,
    arguments and earlier calls, chosen where policies and schemas tell them apart. Every example is true. It is a search, no
    proof: what it doesn't find may still differ. Exit code 1 if something is wider.
    """
    from cra_mcp.analysis.diff import compare  # noqa: PLC0415 - not for --help

    found = compare(_side(old, atlas or []), _side(new, atlas or []), max_requests)
    if as_json:
        emit_json(found.to_dict())
    else:
        _show(found)
    raise typer.Exit(NO if found.is_wider else OK)


def _side(text: str, atlases: list[str]) -> "tuple[Atlas, ...]":
    from cra_mcp.analysis.subject import load_subject  # noqa: PLC0415 - not for --help
    from cra_mcp.faces.cli.shipped import atlas_path  # noqa: PLC0415 - not for --help

    if not atlases:
        return load_subject([(text, atlas_path(text))]).atlases
    return load_subject([(each, atlas_path(each)) for each in atlases], [Path(text).expanduser()]).atlases


def _show(found: "Comparison") -> None:
    for change in found.changes:
        told = change.request.to_dict()
        direction = paint(change.direction, "red" if change.direction == "wider" else "green")
        was, now = (f"{each.effect} ({each.policy_id})" for each in (change.old, change.new))
        emit(f"{direction}: {printable(f'{change.request.action_id}: {was} becomes {now}')}, for example")
        emit_json(told, indent=False)
    for action_id in found.unsearched:
        say(printable(f"{action_id}: no valid arguments were found, so nothing is known of it; give it a policy test"))
    counts = {"wider": 0, "narrower": 0}
    for change in found.changes:
        counts[change.direction] += 1
    told = "; ".join(f"{direction}: {_found(count, found.requests)}" for direction, count in counts.items())
    say(f"{told}. A search is no proof.")


def _found(count: int, requests: int) -> str:
    """That a search found nothing says nothing of what it did not try."""
    return f"{count or 'not'} found in {count_of(requests, 'request')} tried"
