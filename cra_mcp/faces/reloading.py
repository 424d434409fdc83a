"""Atlases and operator policies that are edited while they are served.

Rule: an edit counts as a whole or not at all. A broken one, or a file that is gone, leaves the last good version in force and is
said aloud. Files are looked at twice a second instead of waiting for events: a handful of them, and it works alike on every
file system and for every way editors save. Source: specs/atlas.md, "Edited while it is served".
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from cra_mcp.errors import AtlasInvalidError, CRAError, TraceError
from cra_mcp.runtime import Runtime

_INTERVAL_S: Final = 0.5
_SETTLE_S: Final = 0.1
_MAX_FILES: Final = 10_000
_SHOWN: Final = 3
_DIGEST_SHOWN: Final = 12
_NONE: Final[Mapping[str, Path]] = {}
_log = logging.getLogger("cra_mcp.atlas")

Look = tuple[tuple[str, int, int, int], ...]
"""What can be seen of an atlas without reading it: of each file its path, size, time and inode."""


@dataclass(slots=True)
class _Watched:
    """``name`` is that of what was loaded from ``path`` last.

    ``refused``: its last edit was not used. ``unrecorded``: because a trace could not be written.
    """

    name: str
    path: Path
    overlay: bool
    refused: bool = False
    unrecorded: bool = False


class Reloader:
    """Loads atlases, policy files and overlay atlases again when their files have changed.

    Args:
        runtime: where they are loaded.
        paths: of each atlas, by atlas id.
        looks: what was seen of each path before it was loaded.
        overlays: paths of the policy files and overlay atlases, by overlay id.
        interval_s: seconds between looks; an edit counts once two looks in a row see the same.
    """

    def __init__(
        self,
        runtime: Runtime,
        paths: Mapping[str, Path],
        looks: Mapping[Path, Look],
        *,
        overlays: Mapping[str, Path] = _NONE,
        interval_s: float = _INTERVAL_S,
    ) -> None:
        self._runtime = runtime
        self._watched = [_Watched(name, path, overlay=True) for name, path in overlays.items()]
        self._watched += [_Watched(name, path, overlay=False) for name, path in paths.items()]
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
        for each in self._watched:
            path, now = each.path, look_at(each.path)
            if now == self._seen.get(path) and (now != self._settled.get(path) or each.unrecorded):
                self._settled[path] = now
                self._reload(each)
            settled = settled and now == self._settled.get(path)
            self._seen[path] = now
        return settled

    def _reload(self, watched: _Watched) -> None:
        runtime = self._runtime
        before = {each.digest for each in (*runtime.overlays(), *runtime.atlases())}
        try:
            if watched.overlay:
                loaded = runtime.replace_overlay(watched.name, watched.path)
                name = loaded.overlay_id
            else:
                loaded = runtime.replace_atlas(watched.name, watched.path)
                name = loaded.atlas_id
        except TraceError as error:
            # Nobody edits a file again because a disk was full, so it is tried until the change can be recorded.
            if not watched.unrecorded:
                _log.warning("%s: not reloaded yet, the change can't be recorded: %s", watched.name, error.message)
            watched.refused = watched.unrecorded = True
            return
        except CRAError as error:
            problems = error.problems[:_SHOWN] if isinstance(error, AtlasInvalidError) else (error.message,)
            said = "; ".join(map(str, problems))
            _log.warning("%s: not reloaded, the last good version stays: %s", watched.name, said)
            watched.refused, watched.unrecorded = True, False
            return
        watched.name, watched.refused, watched.unrecorded = name, False, False
        if loaded.digest not in before:
            _log.info("%s: reloaded, version %s", name, loaded.version or f"sha256:{loaded.digest[:_DIGEST_SHOWN]}")
            self._try_again()

    def _try_again(self) -> None:
        """What was refused beside the version that is now replaced may fit the new one."""
        for each in self._watched:
            if each.refused:
                self._settled.pop(each.path, None)


def look_at(path: Path) -> Look:
    """What can be seen of an atlas or a file; empty where nothing can. Follows no link out of an atlas.

    A link to a file is followed: some systems edit a file by having a link show another one.
    """
    found: list[tuple[str, int, int, int]] = []
    folders = [path] if path.is_dir() else []
    if not folders:
        _add(path, found, follow=True)
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


def _add(path: Path, found: list[tuple[str, int, int, int]], *, follow: bool = False) -> None:
    try:
        status = path.stat(follow_symlinks=follow)
    except OSError:
        return
    found.append((str(path), status.st_size, status.st_mtime_ns, status.st_ino))
