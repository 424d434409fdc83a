"""Whether what is written to is still there: the file that was opened, where it was opened, holding what was written.

Rule: a file that was moved, replaced or cut under its writer takes writes as before, and loses them. So this is looked at before
anything is acknowledged, and before anything is signed. Source: specs/trace.md, "Files".
"""

import os
from pathlib import Path
from typing import Final, Literal

from cra_mcp.errors import SettingsError, TraceUnavailableError
from cra_mcp.folders import check_private
from cra_mcp.trace.disk import unavailable

Reason = Literal["missing", "replaced", "cut", "grown", "changed"]

Identity = tuple[int, int]
"""Device and number of a file: what stays the same however it is called."""

Stamp = tuple[Identity, int, int]
"""Which file, its size and when it was changed."""

TAIL_BYTES: Final = 320
"""How much of the end of a file is compared: of a line that is the hash before it, its sequence, its span and its time."""

_END: Final = "or end the session and start another"
_SAID: Final[dict[Reason, tuple[str, str]]] = {
    "missing": (
        "{name} is not where it was opened: it, or its folder, was moved, renamed or deleted",
        f"Put it back and recording goes on by itself, {_END}.",
    ),
    "replaced": (
        "something else stands where {name} was opened",
        f"Put back the one that was opened (a copy is another one) and recording goes on by itself, {_END}.",
    ),
    "cut": (
        "{name} is shorter than what was written to it",
        f"Write back into it what was cut off, {_END}. Rotating logs with copytruncate does this: leave traces out of it.",
    ),
    "grown": (
        "{name} holds more than was written to it",
        "Find out what else writes to it; end the session and start another.",
    ),
    "changed": (
        "{name} does not hold what was written to it",
        f"Find out what changed it. Write back what it held, {_END}.",
    ),
}


def lost(reason: Reason, name: str) -> TraceUnavailableError:
    """The error for a file that is not where it was put, or does not hold what was written: what became of it, and what to do."""
    message, hint = _SAID[reason]
    return TraceUnavailableError(f"can't record an event: {message.format(name=name)}", hint=hint, reason=reason)


def identity_of(status: os.stat_result) -> Identity:
    """Which file it is."""
    return status.st_dev, status.st_ino


def check_folder(folder: Path, *, allowed: bool) -> None:
    """Refuse to write where others could replace what is written, unless that is ``allowed``.

    Raises:
        TraceUnavailableError: others can write to it.
    """
    try:
        check_private(folder, allowed=allowed)
    except SettingsError as error:
        raise TraceUnavailableError(error.message, hint=error.hint, reason="insecure") from error


def check_place(path: str, identity: Identity, size: int, *, exactly: bool = True) -> None:
    """Refuse to go on unless ``path`` is the file of ``identity``, with ``size`` bytes; or no fewer, if not ``exactly``.

    Raises:
        TraceUnavailableError: it is not; ``reason`` says why. Or it can't be looked at.
    """
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise lost("missing", os.path.basename(path)) from None
    except OSError as error:
        raise unavailable("look at the trace file", error) from error
    if (status.st_dev, status.st_ino) != identity:
        raise lost("replaced", os.path.basename(path))
    if status.st_size != size and (exactly or status.st_size < size):
        raise lost("cut" if status.st_size < size else "grown", os.path.basename(path))


def stamp_of(path: str) -> Stamp | None:
    """What is there; None if nothing is."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return identity_of(status), status.st_size, status.st_mtime_ns


def check_end(found: bytes, tail: bytes, path: str) -> None:
    """Refuse to go on after another end than ``tail``; ``found`` is what was read in its place, and one byte more if there is one.

    Raises:
        TraceUnavailableError: it is another.
    """
    if found == tail:
        return
    if len(found) < len(tail):
        raise lost("cut", os.path.basename(path))
    raise lost("grown" if found.startswith(tail) else "changed", os.path.basename(path))
