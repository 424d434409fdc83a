"""``policy export``: policies in the languages of other engines."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cra_mcp.faces.cli.exits import NO
from cra_mcp.faces.cli.options import AsJson
from cra_mcp.faces.cli.output import complain, emit_json, emit_text

if TYPE_CHECKING:
    from cra_mcp.atlas.overlay import Overlay
    from cra_mcp.errors import Problem
    from cra_mcp.policy.export.form import Form, InexpressibleError, Obstacle

EXAMPLES = (
    "cra-mcp policy export ./my-atlas --to cedar",
    "cra-mcp policy export ./my-atlas --to rego --policy operator.yaml --json",
)

_Place = tuple[str, str]


def export(
    path: Annotated[str, typer.Argument(metavar="PATH", help="Atlas folder, .json file, or name of a shipped one.")],
    to: Annotated[Literal["cedar", "rego"], typer.Option("--to", help="Language.")],
    policy: Annotated[
        list[Path] | None,
        typer.Option("--policy", metavar="FILE", help="Policy file that governs the atlas too. Can be repeated."),
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the schema of requests instead (Cedar).")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the policies of an atlas in another language.

    Exit code 1, and why, if a policy has no exact form there: nothing is approximated.
    """
    from cra_mcp.atlas.loader import load_atlas  # noqa: PLC0415 - pydantic and schemas only where atlases are read
    from cra_mcp.atlas.overlay import govern  # noqa: PLC0415 - as above
    from cra_mcp.atlas.overlay_loading import load_policy_file  # noqa: PLC0415 - as above
    from cra_mcp.faces.cli.shipped import atlas_path  # noqa: PLC0415 - not for --help
    from cra_mcp.policy.export.form import InexpressibleError, express  # noqa: PLC0415 - not for --help

    if schema and to != "cedar":
        raise typer.BadParameter("only Cedar has a schema", param_hint="--schema")
    where = atlas_path(path)
    overlays = [load_policy_file(file) for file in policy or ()]
    atlas = govern(load_atlas(where), overlays)
    facts = [action.facts for action in atlas.actions]
    layers = [overlay.layer for overlay in overlays]
    try:
        form = express(
            atlas.policies, facts, atlas.policy_set.default_effect, layers, plain=to == "rego", calls=to == "cedar"
        )
    except InexpressibleError as error:
        _refuse(_problems(error, where, overlays), as_json=as_json)
        raise typer.Exit(NO) from None
    written = _written(form, to)
    if as_json:
        emit_json({"ok": True, "to": to, "policy_digest": atlas.policy_set.digest, **written})
    else:
        emit_text(written["schema" if schema else "policies"].removesuffix("\n"))


def _written(form: "Form", language: str) -> Mapping[str, str]:
    if language == "rego":
        from cra_mcp.policy.export.rego import rego_policies  # noqa: PLC0415 - not for --help

        return {"policies": rego_policies(form)}
    from cra_mcp.policy.export.cedar import cedar_policies, cedar_schema  # noqa: PLC0415 - not for --help

    return {"policies": cedar_policies(form), "schema": cedar_schema(form)}


def _problems(error: "InexpressibleError", path: Path, overlays: Sequence["Overlay"]) -> list["Problem"]:
    from cra_mcp.atlas.places import policy_places  # noqa: PLC0415 - as above

    places: dict[tuple[str, str], _Place] = {("", policy_id): at for policy_id, at in policy_places(path).items()}
    for overlay in overlays:
        for policy, place in zip(overlay.layer.policies, overlay.places, strict=True):
            places[overlay.overlay_id, policy.policy_id] = place
    return [_problem(obstacle, places) for obstacle in error.obstacles]


def _problem(obstacle: "Obstacle", places: Mapping[tuple[str, str], _Place]) -> "Problem":
    from cra_mcp.errors import Problem  # noqa: PLC0415 - not for --help

    file, pointer = places[obstacle.layer, obstacle.policy_id]
    implied = obstacle.policy_id.startswith(
        "action:"
    )  # then the pointer leads to the field of the action that implies it
    return Problem(file, pointer if implied else pointer + obstacle.pointer, obstacle.code, obstacle.message)


def _refuse(problems: Sequence["Problem"], *, as_json: bool) -> None:
    if as_json:
        emit_json({"ok": False, "problems": [asdict(problem) for problem in problems]})
        return
    many = "s" if len(problems) != 1 else ""
    lines = [f"{problem.file}:{problem.pointer}: {problem.code}: {problem.message}" for problem in problems]
    complain(
        "\n".join([f"not exported: {len(problems)} obstacle{many}", *lines]),
        '`cra-mcp docs policy`, "Export", says what can be expressed',
    )
