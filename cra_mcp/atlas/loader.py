"""Loading: a path or a text in, an atlas out, or every problem at once.

Rule: an atlas with one problem is not loaded at all.
Source: specs/atlas.md.
"""

import re
from collections.abc import Callable
from pathlib import Path

from cra_mcp.atlas.model import Atlas
from cra_mcp.atlas.package import Package, read_package, text_package
from cra_mcp.errors import AtlasInvalidError, Problem

MAX_PROBLEMS = 1_000

_DIGITS = re.compile(r"([0-9]+)")


Keep = Callable[[Package], None]
"""Told of the files of every atlas that was loaded."""


def load_atlas(path: Path, *, keep: Keep | None = None) -> Atlas:
    """Load an atlas folder, or an atlas of one ``.json`` file.

    Raises:
        AtlasInvalidError: with every problem found; files are relative to the atlas.
    """
    return _load(read_package(path), keep)


def load_atlas_text(text: str | bytes, *, name: str = "<text>", keep: Keep | None = None) -> Atlas:
    """Load an atlas of one JSON text, to be called ``name`` in problems.

    Raises:
        AtlasInvalidError: with every problem found.
    """
    return _load(text_package(text, name), keep)


def _load(package: Package, keep: Keep | None) -> Atlas:
    # pydantic and jsonschema-rs take 0.3 s to import: only where an atlas is read.
    from cra_mcp.atlas.assembly import assemble  # noqa: PLC0415
    from cra_mcp.atlas.build import build  # noqa: PLC0415
    from cra_mcp.atlas.checks import check  # noqa: PLC0415

    parts = assemble(package)
    check(parts)
    if parts.head is not None and not parts.problems:
        atlas = build(parts, parts.head)
        if not parts.problems:
            if keep is not None:
                keep(package)
            return atlas
    raise AtlasInvalidError(
        _sorted(parts.problems, package.manifest)[:MAX_PROBLEMS],
        hint="`cra-mcp docs atlas` explains every problem code",
    )


def _sorted(problems: list[Problem], manifest: str) -> list[Problem]:
    """The manifest's first, then by file; in a file by pointer, numbers by value."""

    def key(problem: Problem) -> tuple[object, ...]:
        steps = [[_part_key(part) for part in _DIGITS.split(step)] for step in problem.pointer.split("/")]
        return (problem.file != manifest, problem.file, steps, problem.code, problem.message)

    return sorted(set(problems), key=key)


def _part_key(part: str) -> tuple[int, str]:
    if not _DIGITS.fullmatch(part):
        return (0, part)
    digits = part.lstrip("0")
    return (1 + len(digits), digits)
