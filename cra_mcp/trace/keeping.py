"""The checkpoints kept beside the traces: one file a session, ``<session>.checkpoints``, that only grows; another for timestamps.

Rule: these are for convenience and for crashes. Whoever can change the trace can change them too: copies elsewhere convict, these
don't. Source: specs/trace.md, "Checkpoints".
"""

import os
import stat
from pathlib import Path

from cra_mcp.errors import TraceUnavailableError
from cra_mcp.folders import open_private
from cra_mcp.trace.checkpoint import join_notes, split_notes

SUFFIX = ".checkpoints"
STAMPED = ".timestamps"
"""What the file is called by that holds the checkpoints with a timestamp in them."""
_MAX_BYTES = 256 * 1_048_576
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class KeptCheckpoints:
    """The checkpoints of a folder of traces. One process writes those of a session: the one that writes its chain.

    Args:
        folder: that of the traces.
        suffix: of their files: ``SUFFIX`` or ``STAMPED``.
    """

    def __init__(self, folder: Path, suffix: str = SUFFIX) -> None:
        self._folder = folder
        self._suffix = suffix

    def path(self, session_id: str) -> Path:
        """Where a session's are. The caller vouches for the form of the id."""
        return self._folder / f"{session_id}{self._suffix}"

    def read(self, session_id: str) -> list[bytes]:
        """A session's notes, the oldest first, unverified; none if there is no file. An unfinished last one is left out.

        Raises:
            TraceUnavailableError: they can't be read.
        """
        try:
            return read_notes(self.path(session_id))[0]
        except FileNotFoundError:
            return []

    def append(self, session_id: str, note: bytes) -> None:
        """Keep one more, flushed to disk. What a write that was cut off left is replaced.

        Raises:
            OSError: it can't be written.
            TraceUnavailableError: what is there can't be read.
        """
        path = self.path(session_id)
        try:
            notes, _ = read_notes(path)
        except FileNotFoundError:
            notes = []
        whole = len(join_notes(notes))
        fd = open_private(path, os.O_WRONLY | _FLAGS)
        try:
            data = join_notes([note])
            if os.fstat(fd).st_size < whole:  # the last one lacks its empty line
                whole, data = whole - 1, b"\n" + data
            os.ftruncate(fd, whole)
            os.lseek(fd, whole, os.SEEK_SET)
            written = os.write(fd, data)
            while written < len(data):  # the rest says why
                written += os.write(fd, data[written:])
            os.fsync(fd)
        finally:
            os.close(fd)


def read_notes(path: Path) -> tuple[list[bytes], bytes]:
    """The notes of a file, and what follows the last whole one.

    Raises:
        FileNotFoundError: it is not there.
        TraceUnavailableError: it can't be read, is no regular file, or far too large.
    """
    try:
        fd = os.open(path, os.O_RDONLY | _FLAGS)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
                raise TraceUnavailableError(f"{path.name} is no file of checkpoints", hint="Move it out of the folder.")
            with os.fdopen(fd, "rb", closefd=False) as file:
                return split_notes(file.read())
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise TraceUnavailableError(f"can't read {path.name}: {error.strerror or error}") from error
