"""Recovery of a chain nobody writes: the longest valid prefix stays, the rest is set aside.

Rule: the copy of what is set aside is on disk before anything is cut; a failure in between leaves both.
Source: specs/trace.md, "Recovery".
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from cra_mcp.trace.disk import PLAIN, Disk, write_all
from cra_mcp.trace.event import Head, Verification, verify
from cra_mcp.trace.segments import Segment, open_to_read
from cra_mcp.trace.store import Recovery

_COPY_BYTES = 1_048_576


def recover(
    segments: Sequence[Segment], session_id: str, disk: Disk
) -> tuple[Recovery, Head | None, Sequence[Segment]]:
    """Keep the longest valid prefix of a chain; the rest is moved to a file beside its first segment.

    Returns:
        What was done, the head of what is left, and its segments.

    Raises:
        OSError: a file can't be read, copied or cut.
        TraceUnavailableError: something that is no regular file stands in its place.
    """
    if not segments:
        return Recovery(session_id, 0, 0, None), None, segments
    sizes = [_size(segment) for segment in segments]
    check, at, kept = _examine(segments, session_id)
    # An empty file at the end was made for events that never came: it stays, for those that will.
    rest = sizes[at] - kept + sum(sizes[at + 1 :])
    if not rest and at == len(segments) - 1:
        return Recovery(session_id, check.events, 0, None), check.head, segments
    aside = _set_aside(segments[at:], kept, session_id, disk) if rest else None
    left = segments[: at + 1]
    if not kept and not at and segments[0].first:  # what it should follow is gone: the chain begins anew
        left = ()
    for segment in reversed(segments[len(left) :]):
        disk.unlink(segment.path)
        disk.sync_folder(segment.path.parent)
    if left:
        _cut(left[-1], kept, disk)
    if aside is None:
        return Recovery(session_id, check.events, 0, None), check.head, left
    return Recovery(session_id, check.events, rest, str(aside), check.code or "truncated"), check.head, left


def _cut(segment: Segment, size: int, disk: Disk) -> None:
    fd = disk.open(segment.path, os.O_RDWR | PLAIN)
    try:
        disk.truncate(fd, size)
        disk.sync(fd)
    finally:
        disk.close(fd)


def _examine(segments: Sequence[Segment], session_id: str) -> tuple[Verification, int, int]:
    """Verify; and where the good part ends: the number of the segment, and bytes into it."""
    check = verify((line for line, _ in _whole_lines(segments)), session_id=session_id)
    at, kept = 0, 0
    for _, place in islice(_whole_lines(segments), check.events):
        at, kept = place
    if check.ok:
        # Segments after the last good line that are empty belong to the chain as they are.
        while at < len(segments) - 1 and not _size(segments[at + 1]) and kept == _size(segments[at]):
            at, kept = at + 1, 0
    return check, at, kept


def _whole_lines(segments: Sequence[Segment]) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Lines without their line feeds, each with where it ends: the number of its segment, and bytes into that."""
    for number, segment in enumerate(segments):
        place = 0
        with open_to_read(segment.path) as file:
            for line in file:
                if not line.endswith(b"\n"):
                    return  # torn; what follows, if there is another segment, can't be linked to it
                place += len(line)
                yield line[:-1], (number, place)


def _set_aside(segments: Sequence[Segment], skip: int, session_id: str, disk: Disk) -> Path:
    """Copy what follows the first ``skip`` bytes of ``segments`` to a file of its own, and that to disk."""
    first = segments[0].path
    folder = first.parent if first.name.startswith(session_id) else first.parent.parent
    number = 1
    while True:
        aside = folder / f"{session_id}.torn-{number}"
        try:
            fd = disk.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | PLAIN, 0o600)
        except FileExistsError:
            number += 1
            continue
        try:
            try:
                for segment in segments:
                    with open_to_read(segment.path) as source:
                        source.seek(skip if segment is segments[0] else 0)
                        while part := source.read(_COPY_BYTES):
                            write_all(disk, fd, part)
                disk.sync(fd)
            finally:
                disk.close(fd)
            disk.sync_folder(folder)
        except BaseException:
            with suppress(OSError):  # the chain still holds all of it, and recovery is tried again
                disk.unlink(aside)
            raise
        return aside


def _size(segment: Segment) -> int:
    with open_to_read(segment.path) as file:
        return os.fstat(file.fileno()).st_size
