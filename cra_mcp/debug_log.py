"""The debug log: a file for what logs leave out because it can hold parameters, results and secrets.

Rule: nobody else may read it. Without one, what belongs there is written nowhere. Source: specs/observability.md, "Logs".
"""

import logging
import os
import stat
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from cra_mcp.errors import SettingsError

_ABOUT_UPSTREAM: Final[ContextVar[bool]] = ContextVar("cra_about_upstream", default=False)
_wanted = False


def want_everything() -> None:
    """Let pass what is logged about upstreams: whoever calls this keeps it out of everything but the debug log."""
    global _wanted  # noqa: PLW0603 - as logging itself, one for the process
    _wanted = True


@contextmanager
def about_upstream() -> Generator[None]:
    """What is logged meanwhile in this task, and in tasks that take its context over, can quote an upstream."""
    before = _ABOUT_UPSTREAM.set(True)
    try:
        yield
    finally:
        _ABOUT_UPSTREAM.reset(before)


def silence_about_upstreams(prefixes: Iterable[str]) -> None:
    """Have the loggers of these packages say nothing about our upstreams; what the program does with them besides is its own."""
    packages = tuple(prefixes)
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in packages:
            logging.getLogger(name).addFilter(_may_be_logged)


def _may_be_logged(_record: logging.LogRecord) -> bool:
    return _wanted or not _ABOUT_UPSTREAM.get()


def open_debug_log(path: Path) -> int:
    """Open it for appending; made with mode 0600 where there is none. The caller closes the descriptor.

    Raises:
        SettingsError: it can't be opened, is a link or no regular file, or others may read it.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise SettingsError(
            f"the debug log can't be opened: {error.strerror}",
            hint="name a file of your own that is no link, in a folder that exists",
        ) from error
    status = os.fstat(descriptor)
    shared = os.name == "posix" and (status.st_mode & 0o077 != 0 or status.st_uid != os.geteuid())
    if shared or not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise SettingsError(
            "the debug log is no regular file, or others may read it",
            hint="name a new file, or one of yours with mode 0600",
        )
    return descriptor
