"""Following all traces of a folder as they grow.

Rule: only what was added is read, and only whole lines are given. How many files are looked at in one round is bounded, so that a
folder of a hundred thousand ended sessions costs no more than one of a few. Source: specs/trace.md, "Files".
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cra_mcp.errors import TraceUnavailableError
from cra_mcp.trace.event import is_identifier
from cra_mcp.trace.segments import FOLDER, SEGMENT_NAME, SUFFIX, open_to_read

_LOOKS = 2_000
_MAX_READ_BYTES = 4 * 1024 * 1024
_TAIL_BYTES = 64 * 1024
_RECENT_ROUNDS = 300
_SETTLED_NS = 2_000_000_000
_TIMESTAMP = b'"timestamp":"'
_TIMESTAMP_CHARS = 27


@dataclass(frozen=True, slots=True)
class Grown:
    """A line that was added to the trace of a session."""

    session_id: str
    line: bytes


@dataclass(slots=True)
class _Followed:
    """A file: how far it was read, and the round in which it grew last."""

    session_id: str
    path: Path
    end: int
    grew: int = 0


class Follower:
    """Follows a folder. What is there when it is made is not given again; ``last`` gives the end of it.

    Args:
        directory: where the traces are; it need not be there yet.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, _Followed] = {}
        self._folders: dict[str, str] = {}
        self._round = 0
        self._next = 0
        self._seen: dict[str, tuple[int, int]] = {}
        self._discover(from_end=True)

    def last(self, count: int) -> list[Grown]:
        """The latest lines of what was there at first, oldest first. Of one file no more than its last 64 KiB is read."""
        latest: list[tuple[int, _Followed]] = []
        for file in self._files.values():
            with suppress(OSError):
                latest.append((os.stat(file.path, follow_symlinks=False).st_mtime_ns, file))
        latest.sort(key=lambda each: each[0])
        found: list[Grown] = []
        for _, file in latest[-count:] if count else ():
            start = max(0, file.end - _TAIL_BYTES)
            lines = _read(file.path, start, file.end).split(b"\n")[:-1]
            found += [Grown(file.session_id, line) for line in lines[1 if start else 0 :]]
        return _by_time(found)[-count:] if count else []

    def poll(self) -> list[Grown]:
        """The lines added since the last round, by the time they name."""
        self._round += 1
        self._discover(from_end=False)
        found: list[Grown] = []
        for file in self._looked_at():
            found += self._growth(file)
        return _by_time(found)

    def _looked_at(self) -> list[_Followed]:
        """Files that grew lately, and of the others as many as may be looked at in one round."""
        files = list(self._files.values())
        if len(files) <= _LOOKS:
            return files
        lately = [file for file in files if self._round - file.grew < _RECENT_ROUNDS]
        chosen = {id(file) for file in lately}
        others = [files[(self._next + number) % len(files)] for number in range(_LOOKS)]
        self._next = (self._next + _LOOKS) % len(files)
        return [*lately, *(file for file in others if id(file) not in chosen)]

    def _growth(self, file: _Followed) -> Iterator[Grown]:
        try:
            size = os.stat(file.path, follow_symlinks=False).st_size
        except FileNotFoundError:  # pruned
            del self._files[str(file.path)]
            return
        file.end = min(file.end, size)  # shorter: what was torn was set aside, or somebody wrote it anew
        if size == file.end:
            return
        data = _read(file.path, file.end, min(size, file.end + _MAX_READ_BYTES))
        whole = data.rfind(b"\n") + 1
        if not whole and len(data) == _MAX_READ_BYTES:
            whole = len(data)  # no writer of ours makes such lines: given in pieces, as what can't be read
        if whole:
            file.end += whole
            file.grew = self._round
            for line in data[:whole].removesuffix(b"\n").split(b"\n"):
                yield Grown(file.session_id, line)

    def _discover(self, *, from_end: bool) -> None:
        """Take in files that are new, where a folder says that there may be some."""
        for session_id, folder in [(None, str(self._directory)), *self._folders.items()]:
            try:
                status = os.stat(folder, follow_symlinks=session_id is None)
            except FileNotFoundError:
                continue
            seen = (status.st_ino, status.st_mtime_ns)
            if seen == self._seen.get(folder):
                continue
            # A folder's time is only as fine as its disk's clock: one that changed just now may change again unnoticed.
            if time.time_ns() - status.st_mtime_ns > _SETTLED_NS:
                self._seen[folder] = seen
            self._scan(folder, session_id, from_end=from_end)

    def _scan(self, folder: str, inside: str | None, *, from_end: bool) -> None:
        """Take in the files of a folder: of all traces, or with ``inside`` of the later parts of one."""
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
            # Parts of a chain in their order.
            for entry in sorted(entries, key=lambda entry: entry.name):
                session_id, kind = (inside, SUFFIX) if inside is not None else (entry.name[:36], entry.name[36:])
                if entry.path in self._files or kind not in {SUFFIX, FOLDER} or not is_identifier(session_id):
                    continue
                if kind == FOLDER:
                    if entry.is_dir(follow_symlinks=False) and session_id not in self._folders:
                        self._folders[session_id] = entry.path
                        self._scan(entry.path, session_id, from_end=from_end)
                elif (inside is None or SEGMENT_NAME.fullmatch(entry.name)) and entry.is_file(follow_symlinks=False):
                    end = _last_line_end(entry.path) if from_end else 0
                    grew = -_RECENT_ROUNDS if from_end else self._round
                    self._files[entry.path] = _Followed(session_id, Path(entry.path), end, grew)


def _last_line_end(path: str) -> int:
    """Where the last whole line ends; an unfinished one is given when it is whole."""
    try:
        size = os.stat(path, follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0
    start = max(0, size - _TAIL_BYTES)
    tail = _read(Path(path), start, size)
    whole = tail.rfind(b"\n") + 1
    return start + whole if whole else (0 if not start else size)


def _read(path: Path, start: int, end: int) -> bytes:
    try:
        with open_to_read(path) as file:
            file.seek(start)
            return file.read(end - start)
    except (FileNotFoundError, TraceUnavailableError):  # gone, or a link put in its place, meanwhile
        return b""


def _by_time(grown: Iterable[Grown]) -> list[Grown]:
    """By the time lines name. Those of one session stay in their order, whatever they name."""
    latest: dict[str, bytes] = {}
    timed: list[tuple[bytes, Grown]] = []
    for each in grown:
        # The event's own stands behind its payload.
        place = each.line.rfind(_TIMESTAMP) + len(_TIMESTAMP)
        named = each.line[place : place + _TIMESTAMP_CHARS]
        when = latest[each.session_id] = max(latest.get(each.session_id, b""), named)
        timed.append((when, each))
    return [each for _, each in sorted(timed, key=lambda pair: pair[0])]
