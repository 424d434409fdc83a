"""Folders and files for their owner only, from the first moment and whatever the umask; those that others can write to are refused.

Rule: whoever can write to a folder can replace what is in it, and with it what happened. Source: specs/trace.md, "Files".
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

from cra_mcp.errors import SettingsError

OTHERS_WRITE: Final = 0o022
"""The right of a group, or of everybody, to write."""

_OWNER_ONLY: Final = 0o700
_OWNER_READS_AND_WRITES: Final = 0o600


def make_private(path: Path) -> None:
    """Make a folder, and those above it that are missing, with mode 0700. One that is there stays as it is.

    Raises:
        OSError: it can't be made, or is no folder.
    """
    try:
        os.mkdir(path, _OWNER_ONLY)  # never more than that for an instant: the umask only takes away
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    except FileNotFoundError:
        if path.parent == path:
            raise
        make_private(path.parent)
        make_private(path)
        return
    give_back(path, _OWNER_ONLY)


def give_back(path: Path, mode: int) -> None:
    """Give what was made just now the rights of its owner that the umask took.

    Raises:
        OSError: it can't be looked at or changed.
    """
    if os.name != "nt" and os.stat(path).st_mode & mode != mode:
        path.chmod(mode)


def open_private(path: "str | Path", flags: int) -> int:
    """Open a file that is made with mode 0600 if it is not there: no more for an instant, and no less, whatever the umask.

    Raises:
        OSError: it can't be opened.
    """
    fd = os.open(path, flags | os.O_CREAT, _OWNER_READS_AND_WRITES)
    try:
        mode = os.fstat(fd).st_mode
        if os.name != "nt" and mode & _OWNER_READS_AND_WRITES != _OWNER_READS_AND_WRITES:
            os.fchmod(fd, _OWNER_READS_AND_WRITES)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read. A pipe could wait for ever, a device never end.

    Raises:
        OSError: it can't be opened, or is no regular file.
    """
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return os.fdopen(fd, "rb")


def read_regular(path: Path, max_bytes: int = -1) -> bytes:
    """At most so many bytes of a regular file; all of them without a limit. Raises as ``open_regular``."""
    with open_regular(path) as file:
        return file.read(max_bytes)


def is_open(path: Path) -> bool:
    """Whether others than its owner can write to a folder; False of one that is not there."""
    try:
        return os.name != "nt" and bool(os.stat(path).st_mode & OTHERS_WRITE)
    except OSError:
        return False


def anybody_writes(file: os.stat_result, folder: os.stat_result) -> bool:
    """Whether every user of the machine can change a file, or put another in its place."""
    return anybody_replaces(folder) or (os.name != "nt" and bool(file.st_mode & stat.S_IWOTH))


def anybody_replaces(folder: os.stat_result) -> bool:
    """Whether every user of the machine can put something else in the place of what a folder holds (not as in ``/tmp``)."""
    return os.name != "nt" and bool(folder.st_mode & stat.S_IWOTH) and not folder.st_mode & stat.S_ISVTX


def check_private(*paths: Path, allowed: bool) -> None:
    """Refuse folders that others can write to, or put another in the place of, unless that is ``allowed``.

    Raises:
        SettingsError: ``insecure_folder``.
    """
    for path in () if allowed else paths:
        if is_open(path):
            raise insecure(path)
        parent = path.resolve().parent
        if parent.exists() and anybody_replaces(os.stat(parent)):
            raise insecure(parent)


def insecure(path: Path) -> SettingsError:
    """The error for a folder that others can write to."""
    return SettingsError(
        f"others than its owner can write to {path}, so they could forge or delete what is recorded there",
        code="insecure_folder",
        hint=f"run `chmod go-w {path}`, or give another folder; whoever trusts all who can write there can say "
        "--insecure-folders (CRA_INSECURE_FOLDERS=1)",
    )
