"""The files of one chain: ``<session>.trace.jsonl``, then those in ``<session>.trace.d``, each named by its first sequence.

Rule: a segment is only ever appended to, and only the last; whoever reads goes through all of them in order, as through one file.
Source: specs/trace.md, "Files".
"""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cra_mcp.errors import TraceError, TraceUnavailableError
from cra_mcp.trace.disk import PLAIN
from cra_mcp.trace.event import parse

SUFFIX = ".trace.jsonl"
FOLDER = ".trace.d"
_TORN = b"\0"  # in no JSON
_TAIL_BYTES = 16_384
SEGMENT_NAME = re.compile(r"([0-9]{16})\.jsonl")
"""What a file in the folder of a chain is called: by the sequence of its first event."""


class Segment(NamedTuple):
    """One file of a chain; ``first`` is the sequence of its first event."""

    first: int
    path: Path


def first_segment(directory: Path, session_id: str) -> Segment:
    """The segment every chain begins with."""
    return Segment(0, directory / f"{session_id}{SUFFIX}")


def later_segment(directory: Path, session_id: str, first: int) -> Segment:
    """The segment whose first event has sequence ``first``."""
    return Segment(first, directory / f"{session_id}{FOLDER}" / f"{first:016d}.jsonl")


def statement_path(directory: Path, session_id: str) -> Path:
    """Where it is said what went when a chain was pruned."""
    return directory / f"{session_id}.pruned.json"


def segments_of(directory: Path, session_id: str) -> list[Segment]:
    """The files of a chain that are there, in order.

    Raises:
        OSError: the folder can't be read.
    """
    found: list[Segment] = []
    first = first_segment(directory, session_id)
    if os.path.lexists(first.path):
        found.append(first)
    try:
        names = os.listdir(_own(directory / f"{session_id}{FOLDER}"))
    except FileNotFoundError:
        return found
    matches = (SEGMENT_NAME.fullmatch(name) for name in names)
    found += sorted(later_segment(directory, session_id, int(match[1])) for match in matches if match)
    return found


def _own(folder: Path) -> Path:
    """``folder``, unless it is a link to somewhere else."""
    if folder.is_symlink():
        raise TraceUnavailableError(
            "a symbolic link stands where a trace folder should be", hint="Move it out of the folder."
        )
    return folder


def open_to_read(path: Path) -> BinaryIO:
    """Open a trace file for reading.

    Raises:
        OSError: it can't be opened.
        TraceUnavailableError: it is not a regular file.
    """
    fd = os.open(path, os.O_RDONLY | PLAIN)
    try:
        check_regular(fd)
        return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def check_regular(fd: int) -> None:
    """Refuse what is no file.

    Raises:
        TraceUnavailableError: it is something else.
    """
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise TraceUnavailableError(
            "what stands where the trace file should be is no regular file", hint="Move it out of the folder."
        )


def whole_lines(file: BinaryIO, end: int | None = None) -> Iterator[bytes]:
    """Lines up to byte ``end`` without their line feeds; an unfinished last one is left out."""
    place = 0
    for line in file:
        place += len(line)
        if not line.endswith(b"\n") or (end is not None and place > end):
            return
        yield line[:-1]


def _inner_line(line: bytes) -> bytes:
    """A line of a segment that is followed by another: one that is not finished is no event, though it may look like one."""
    return line[:-1] if line.endswith(b"\n") else line + _TORN


def misnamed(segments: Sequence[Segment]) -> Segment | None:
    """The first file of a chain that does not begin with the event it is named by; one that holds nothing says nothing.

    Raises:
        OSError: a file can't be read.
    """
    for segment in segments:
        with open_to_read(segment.path) as file:
            first = next(whole_lines(file), None)
        if first is not None and _sequence_of(first) not in {segment.first, None}:
            return segment
    return None


def _are_named_right(segments: Sequence[Segment]) -> bool:
    """Whether each file but the first begins where its name says, and the one before it ends there."""
    for before, segment in pairwise(segments):
        with open_to_read(segment.path) as file:
            first = file.readline()
        if (first and _sequence_of(first) != segment.first) or _last_sequence(before) != segment.first - 1:
            return False
    return True


def _last_sequence(segment: Segment) -> int | None:
    with open_to_read(segment.path) as file:
        size = os.fstat(file.fileno()).st_size
        for span in (_TAIL_BYTES, size):  # an event may be longer than most
            file.seek(max(0, size - span))
            before, feed, last = file.read(span).removesuffix(b"\n").rpartition(b"\n")
            if feed or before or span >= size:
                return _sequence_of(last)
    return None


def _sequence_of(line: bytes) -> int | None:
    """The sequence of an event; None where it is none."""
    try:
        return parse(line.removesuffix(b"\n")).sequence
    except TraceError:
        return None


def lines_of(segments: Sequence[Segment], *, after: int = -1, end: int | None = None) -> Iterator[bytes]:
    """Lines of a chain from sequence ``after + 1`` on, by position in its segments.

    Args:
        segments: all of its files, in order.
        after: leave out so many; segments that hold nothing else are not opened.
        end: bytes of the last segment that count; None: up to its last line feed.

    Raises:
        OSError: a file can't be read.
    """
    if after >= 0 and len(segments) > 1 and not _are_named_right(segments):
        yield from islice(lines_of(segments, end=end), after + 1, None)  # by their places, whatever the names say
        return
    for number, segment in enumerate(segments):
        is_last = number == len(segments) - 1
        if not is_last and segments[number + 1].first <= after + 1:
            continue
        skip = max(0, after + 1 - segment.first)
        with open_to_read(segment.path) as file:
            # Of a segment that is followed by another, all counts: what it ends with, if not a line feed, is a bad event.
            lines = whole_lines(file, end) if is_last else map(_inner_line, file)
            for line in lines:
                if skip:
                    skip -= 1
                else:
                    yield line
