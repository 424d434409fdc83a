"""``atlas from-openapi``: an atlas drafted from an OpenAPI document."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cra_mcp.errors import AtlasInvalidError, SettingsError
from cra_mcp.faces.cli.exits import NO, OK
from cra_mcp.faces.cli.new_files import new_file
from cra_mcp.faces.cli.output import complain, emit_text, printable, say
from cra_mcp.folders import read_regular
from cra_mcp.words import count_of, visible_json

if TYPE_CHECKING:
    from cra_mcp.atlas.openapi import Draft

EXAMPLES = (
    "cra-mcp atlas from-openapi openapi.yaml -o ./my-api",
    "cra-mcp atlas from-openapi openapi.json --include 'tickets.*' --server https://desk.example.com/v1",
)


def from_openapi(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="OpenAPI 3.1 or 3.0 document, JSON or YAML.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="New folder for the atlas. Default: one file, on stdout."),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Only actions whose id matches. Can be repeated."),
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="Where requests go, in place of the document's servers.")
    ] = None,
) -> None:
    """Draft an atlas from an OpenAPI document.

    One action an operation; reads allowed, writes need approval, deletions denied. What can't be taken over is said on stderr,
    with its place in the document. Exit code 1 if there is no action at all. Read the draft before you serve it.
    """
    from cra_mcp.atlas.loader import load_atlas_text  # noqa: PLC0415 - not for --help
    from cra_mcp.atlas.openapi import draft_atlas  # noqa: PLC0415 - not for --help
    from cra_mcp.atlas.openapi_document import MAX_BYTES, read_document  # noqa: PLC0415 - not for --help

    if server is not None:
        _check_server(server)
    if output is not None and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SettingsError(f"{output} is there already", hint="name a new or an empty folder")
    data = read_regular(spec, MAX_BYTES + 1)
    try:
        document = read_document(data, spec.name)
    except AtlasInvalidError as error:
        complain("\n".join(["the document can't be used", *map(str, error.problems)]), error.hint)
        raise typer.Exit(NO) from None
    draft = draft_atlas(document, server=server, include=include or ())
    for finding in draft.findings:
        say(printable(f"{spec.name}{finding}"))
    if not draft.actions:
        complain("no operation became an action", "see --include and --server, and what is said above")
        raise typer.Exit(NO)
    load_atlas_text(_text(draft.manifest()))  # what was drafted loads, or this says why not
    if output is None:
        emit_text(visible_json(_text(draft.manifest())))
    else:
        _write(draft, output)
    left_out = sum(finding.left_out is not None for finding in draft.findings)
    say(
        f"{count_of(len(draft.actions), 'action')}, {count_of(left_out, 'operation')} left out, "
        f"{count_of(len(draft.findings), 'finding')}"
    )
    raise typer.Exit(OK)


def _check_server(server: str) -> None:
    from cra_mcp.atlas.http_target import TargetError, TargetTemplate  # noqa: PLC0415 - not for --help

    try:
        plain = "{" not in server and "?" not in server and bool(TargetTemplate(server))
    except TargetError as error:
        raise SettingsError(f"--server: {error}", hint="as in https://api.example.com/v1") from error
    if not plain:
        raise SettingsError("--server has a query or a parameter", hint="as in https://api.example.com/v1")


def _write(draft: "Draft", folder: Path) -> None:
    """Write a folder: the manifest, the actions in one file a group, the policies."""
    groups: dict[str, list[dict[str, object]]] = {}
    for action in draft.actions:
        groups.setdefault(str(action["action_id"]).partition(".")[0], []).append(action)
    files: dict[str, object] = {"atlas.json": draft.head, "policies/policies.json": draft.policies}
    files |= {f"actions/{name}.json": actions for name, actions in groups.items()}
    for name, value in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as write:
            write(f"{_text(value)}\n".encode())


def _text(value: object) -> str:
    import json  # noqa: PLC0415 - not for --help

    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
