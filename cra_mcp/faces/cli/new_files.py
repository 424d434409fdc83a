"""Files that commands write: one way for all of them.

Rule: a file is new, there whole or not at all, and for its owner only. Nothing is overwritten and no link is followed:
whoever can write to the folder could otherwise choose what a command destroys.
"""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from cra_mcp.errors import SettingsError

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def check_new(path: Path) -> None:
    """Refuse at once what ``new_file`` would refuse after the work is done.

    Raises:
        SettingsError: ``output_exists``.
    """
    if os.path.lexists(path):
        raise _exists(path)


@contextmanager
def new_file(path: Path) -> Generator[Callable[[bytes], object]]:
    """Write a new file, mode 0600; gives what takes its pieces. It appears when the block ends without an error.

    Raises:
        SettingsError: ``output_exists``: there is something of that name, a link that leads nowhere included.
        OSError: it can't be written.
    """
    path = path.expanduser()
    check_new(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    descriptor = os.open(draft, _FLAGS, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file.write
        try:
            os.close(os.open(path, _FLAGS, 0o600))  # the name is ours from here on, or somebody was quicker
        except FileExistsError:
            raise _exists(path) from None
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _exists(path: Path) -> SettingsError:
    return SettingsError(f"{path} is there already", code="output_exists", hint="give another name, or delete it first")
