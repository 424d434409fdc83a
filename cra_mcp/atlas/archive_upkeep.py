"""What is in an archive of atlases, and taking things out of it while servers use it.

Rule: only what was not used since a moment is taken out, and it is looked at once more when nobody can find it any longer. Sessions
say what they use when they start (``AtlasArchive.refresh``), and keep it again where it was taken out meanwhile.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from uuid import uuid4

import orjson

from cra_mcp.atlas.archive import DATABASES, DIGEST
from cra_mcp.atlas.package import MANIFEST

_GONE = ".gone-"


@dataclass(frozen=True, slots=True)
class KeptAtlas:
    """An atlas or policy file as it is kept.

    Attributes:
        digest: what it is kept under; the name of its folder.
        name: what an atlas says it is, id and version; None of a policy file.
        size_bytes: of all its files.
    """

    digest: str
    name: str | None
    size_bytes: int


def kept_before(root: Path, moment_ns: int) -> list[KeptAtlas]:
    """What was last used before a moment, nanoseconds since the epoch.

    Raises:
        OSError: it can't be read.
    """
    return [
        KeptAtlas(entry.name, _name(Path(entry.path)), sum(_sizes(Path(entry.path))))
        for entry in _entries(root)
        if DIGEST.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_mtime_ns < moment_ns
    ]


def remove(root: Path, digest: str, moment_ns: int) -> bool:
    """Take something out, unless it was used since a moment after all.

    Raises:
        OSError: it can't be removed.
    """
    _remove_unfinished(root, moment_ns)
    target, aside = root / digest, root / f"{_GONE}{uuid4()}"
    try:
        target.rename(aside)
    except FileNotFoundError:
        return False
    if aside.stat().st_mtime_ns >= moment_ns:
        with suppress(OSError):  # it was kept again already
            aside.rename(target)
            return False
    shutil.rmtree(aside)
    return True


def databases(root: Path) -> list[Path]:
    """The databases whose traces have their atlases here.

    Raises:
        OSError: it can't be told.
    """
    return sorted(
        Path(os.fsdecode(Path(entry.path).read_bytes().removesuffix(b"\n")))
        for entry in _entries(root / DATABASES)
        if not entry.name.startswith(".")
    )


def _entries(folder: Path) -> "Iterator[os.DirEntry[str]]":
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        yield from entries


def _remove_unfinished(root: Path, moment_ns: int) -> None:
    """Remove what an interrupted run left of something taken out."""
    for entry in list(_entries(root)):
        if entry.name.startswith(_GONE) and entry.stat(follow_symlinks=False).st_mtime_ns < moment_ns:
            shutil.rmtree(entry.path, ignore_errors=True)


def _sizes(folder: Path) -> Iterator[int]:
    for place, _, files in os.walk(folder):
        for name in files:
            yield os.stat(os.path.join(place, name), follow_symlinks=False).st_size


def _name(folder: Path) -> str | None:
    try:
        manifest = cast("object", orjson.loads((folder / MANIFEST).read_bytes()))
    except (OSError, ValueError):
        return None
    fields = cast("dict[str, object]", manifest) if isinstance(manifest, dict) else {}
    found = [text for text in (fields.get("atlas_id"), fields.get("version")) if isinstance(text, str)]
    return " ".join(found)[:200] or None
