"""Atlases that are edited while they are served.

Rule: an edit counts as a whole or not at all, and a broken one leaves the last good version in force and is said aloud. Files are
looked at twice a second instead of waiting for events: a handful of them, and it works alike on every file system and for
every way editors save. Source: specs/atlas.md, "Edited while it is served".
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from cra_mcp.errors import AtlasInvalidError, CRAError
from cra_mcp.runtime import Runtime

_INTERVAL_S: Final = 0.5
_SETTLE_S: Final = 0.1
_MAX_FILES: Final = 10_000
_SHOWN: Final = 3
_log = logging.getLogger("cra_mcp.atlas")

Look = tuple[tuple[str, int, int, int], ...]
"""What can be seen of an atlas without reading it: of each file its path, size, time and inode."""


class Reloader:
    """Loads atlases again when their files have changed.

    Args:
        runtime: where they are loaded.
        paths: of each, by atlas id.
        looks: what was seen of each path before it was loaded.
        interval_s: seconds between looks; an edit counts once two looks in a row see the same.
    """

    def __init__(
        self,
        runtime: Runtime,
        paths: Mapping[str, Path],
        looks: Mapping[Path, Look],
        *,
        interval_s: float = _INTERVAL_S,
    ) -> None:
        self._runtime = runtime
        self._paths = dict(paths)
        self._interval_s = interval_s
        self._settled = dict(looks)
        self._seen: dict[Path, Look] = {}

    async def run(self) -> None:
        """Until cancelled."""
        limiter = anyio.CapacityLimiter(1)
        while True:
            settled = await anyio.to_thread.run_sync(self._look, limiter=limiter)
            await anyio.sleep(self._interval_s if settled else min(self._interval_s, _SETTLE_S))

    def _look(self) -> bool:
        """Look at all, and load what has changed and settled; whether nothing is being edited just now."""
        settled = True
        for atlas_id, path in list(self._paths.items()):
            now = look_at(path)
            if now == self._seen.get(path) and now != self._settled.get(path):
                self._settled[path] = now
                self._reload(atlas_id, path)
            settled = settled and now == self._settled.get(path)
            self._seen[path] = now
        return settled

    def _reload(self, atlas_id: str, path: Path) -> None:
        before = self._runtime.atlas(atlas_id).digest
        try:
            info = self._runtime.replace_atlas(atlas_id, path)
        except AtlasInvalidError as error:
            said = "; ".join(map(str, error.problems[:_SHOWN]))
            _log.warning("%s: not reloaded, the last good version stays: %s", atlas_id, said)
        except CRAError as error:
            _log.warning("%s: not reloaded, the last good version stays: %s", atlas_id, error.message)
        else:
            if info.digest != before:
                _log.info("%s: reloaded, version %s", info.atlas_id, info.version)
            if info.atlas_id != atlas_id:
                del self._paths[atlas_id]
                self._paths[info.atlas_id] = path


def look_at(path: Path) -> Look:
    """What can be seen of an atlas; empty where nothing can. Follows no link out of it."""
    found: list[tuple[str, int, int, int]] = []
    folders = [path] if path.is_dir() else []
    if not folders:
        _add(path, found)
    while folders and len(found) < _MAX_FILES:
        try:
            entries = list(os.scandir(folders.pop()))
        except OSError:
            continue
        for entry in entries:
            if entry.name == "__pycache__" or entry.name.startswith(".git"):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
            else:
                _add(Path(entry.path), found)
    return tuple(sorted(found))


def _add(path: Path, found: list[tuple[str, int, int, int]]) -> None:
    try:
        status = path.lstat()
    except OSError:
        return
    found.append((str(path), status.st_size, status.st_mtime_ns, status.st_ino))
