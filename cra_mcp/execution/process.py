"""Child processes in a group of their own, which end as a group.

Rule: no shell, and nothing is left behind: when a child is done with, every process of its group is killed, however
deep. What leaves the group on purpose (a daemon) escapes on POSIX. On Windows the tree is ended by ``taskkill``, as
far as it can be found.

This is asyncio's transport level and not anyio's streams: only there can the end of a process be told from the end of
its pipes (a grandchild may hold them), can output be taken without a task a pipe, and can the transport be closed for
good.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar, cast

import anyio

from cra_mcp.errors import ExecutionError

_REAP_TIMEOUT_S = 2.0


class Child(asyncio.SubprocessProtocol):
    """One child process and its group. Subclasses take its output in ``pipe_data_received``.

    Attributes:
        exited: set when the process itself has ended, although its children may hold its pipes.
        released: set when it has ended and all its pipes are closed.
    """

    def __init__(self) -> None:
        self.exited = asyncio.Event()
        self.released = asyncio.Event()
        self._transport: asyncio.SubprocessTransport | None = None

    @property
    def transport(self) -> asyncio.SubprocessTransport:
        """The transport of the running process."""
        if self._transport is None:
            raise RuntimeError("the process has not been started")
        return self._transport

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self.transport.get_returncode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio calls this when the process has started)."""
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def process_exited(self) -> None:
        """Note the end of the process (asyncio calls this)."""
        self.exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that process and pipes are gone (asyncio calls this)."""
        self.exited.set()
        self.released.set()

    def terminate(self) -> None:
        """Ask the whole group to end. Windows has no such request for a tree: there it is killed."""
        if sys.platform == "win32":
            self.kill()
        else:
            self._signal_group(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the whole group at once; no harm if it is gone."""
        if sys.platform == "win32":
            _kill_windows_tree(self.transport.get_pid())
        else:
            self._signal_group(signal.SIGKILL)

    async def end(self) -> None:
        """Kill what is left of the group, wait for it (bounded), and free the pipes. Finishes even when cancelled."""
        if self._transport is None:
            return
        self.kill()
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(_REAP_TIMEOUT_S):
                await self.released.wait()
            # Pipes that something outside the group still holds are given up here.
            with contextlib.suppress(PermissionError):
                self.transport.close()
            with anyio.move_on_after(_REAP_TIMEOUT_S):
                await self.exited.wait()

    def _signal_group(self, number: int) -> None:
        # The child leads its group (start_new_session), so its pid names the group even when it is gone itself.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.transport.get_pid(), number)


ChildT = TypeVar("ChildT", bound=Child)


async def start(
    child: ChildT,
    argv: Sequence[str],
    *,
    environ: Mapping[str, str],
    cwd: Path | None,
    stdin: int,
    stderr: int | IO[str] | None,
) -> ChildT:
    """Start ``argv`` in a group of its own, standard output piped to ``child``.

    Raises:
        ExecutionError: ``execution_failed``: the system refused to start it. Says why in general, without paths.
    """
    loop = asyncio.get_running_loop()
    flags = subprocess.CREATE_NEW_PROCESS_GROUP if sys.platform == "win32" else 0
    # Shielded: a cancellation in the middle would leave a process nobody knows of.
    with anyio.CancelScope(shield=True):
        try:
            await loop.subprocess_exec(
                lambda: child,
                *argv,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=dict(environ),
                cwd=cwd,
                start_new_session=sys.platform != "win32",
                creationflags=flags,
            )
        except (OSError, ValueError) as error:
            raise ExecutionError(
                "execution_failed",
                f"the program could not be started ({type(error).__name__})",
                hint="check that the file is a program this user may run and that its arguments are not too long",
            ) from error
    return child


def find_program(program: str, *, environ: Mapping[str, str], folder: Path | None) -> str:
    """Where a program is: on PATH, or for a relative path with a separator, in ``folder``.

    Raises:
        ExecutionError: ``execution_failed``: it is nowhere.
    """
    name = program
    if os.sep in program or "/" in program:
        path = Path(program)
        if not path.is_absolute() and folder is not None:
            path = folder / path
        name = str(path)
    found = shutil.which(name, path=environ.get("PATH", os.defpath))
    if found is None:
        raise ExecutionError(
            "execution_failed",
            f"the program {Path(program).name} was not found",
            hint="install it, or add its folder to the PATH of the environment this server is started with",
        )
    return found


def working_folder(text: str | None, *, folder: Path | None) -> Path | None:
    """The folder a child starts in: ``text`` relative to ``folder``, or ``folder`` itself.

    Raises:
        ExecutionError: ``execution_failed``: there is no such folder.
    """
    if text is None:
        return folder
    path = Path(text)
    if not path.is_absolute() and folder is not None:
        path = folder / path
    if not path.is_dir():
        raise ExecutionError(
            "execution_failed",
            "its working folder does not exist",
            hint="check the cwd in the atlas and the environment variables it names",
        )
    return path


def _kill_windows_tree(pid: int) -> None:
    with contextlib.suppress(OSError):
        subprocess.Popen(  # noqa: S603 - fixed program, a number as its only variable part
            ["taskkill", "/T", "/F", "/PID", str(pid)],  # noqa: S607 - a part of Windows
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
