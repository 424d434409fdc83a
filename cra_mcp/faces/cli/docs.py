"""``docs``: the specifications that come with the package, as Markdown."""

from pathlib import Path
from typing import Annotated

import typer

from cra_mcp.errors import SettingsError
from cra_mcp.faces.cli.options import AsJson
from cra_mcp.faces.cli.output import emit_json, emit_text, table
from cra_mcp.faces.cli.shipped import data_folder

EXAMPLES = ("cra-mcp docs", "cra-mcp docs policy", "cra-mcp docs atlas | less")


def documents() -> dict[str, Path]:
    """What can be read, by name."""
    found = {path.stem: path for path in data_folder("specs").glob("*.md")}
    found["conformance"] = data_folder("conformance") / "README.md"
    return dict(sorted(found.items()))


def docs(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Which to print; without it, list them.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print a specification of this release.

    They have the form of atlases, policies and traces, every problem code, and the protocols, as Markdown.
    """
    found = documents()
    if name is None:
        titles = {each: _title(path) for each, path in found.items()}
        if as_json:
            emit_json({"documents": [{"name": each, "title": title} for each, title in titles.items()]})
        else:
            table(("NAME", "TITLE"), titles.items())
        return
    name = name.removesuffix(".md")
    if name not in found:
        raise SettingsError(f"there is no document {name[:40]!r}", hint=f"use one of {', '.join(found)}")
    text = found[name].read_text(encoding="utf-8")
    if as_json:
        emit_json({"name": name, "text": text})
    else:
        emit_text(text.removesuffix("\n"))


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as lines:
        return next(lines, "").removeprefix("# ").strip()
