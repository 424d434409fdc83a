"""A process that has imported the package, and forks where ``python -m cra_mcp`` or a script that needs it would be started.

What a command needs is imported once a test session instead of once a command: a second or more each time. Everything else of
a process is its own: id, environment, folder, descriptors, exit.

Ends when its stdin does, that is with whoever started it.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from typing import Any

MODULES = (
    "cra_mcp.faces.launch",
    "cra_mcp.compose",
    "cra_mcp.atlas.archive",
    "cra_mcp.faces.mcp.server",
    "cra_mcp.faces.mcp.http.serve",
    "cra_mcp.policy.cel",
)


def main(path: str) -> None:
    """Serve at ``path``, a socket. Two forks an answer: one that waits, and the command itself."""
    sys.path[0] = os.environ["PYTHONPATH"]
    for module in MODULES:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # so that a child's collections leave shared memory shared
    signal.signal(signal.SIGCHLD, reap)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path + ".new")
    listening.listen(64)
    os.rename(path + ".new", path)  # there is a socket only when it answers
    while True:
        ready = select.select([listening, 0], [], [])[0]
        if 0 in ready and not os.read(0, 1):
            return
        if listening in ready:
            asking = listening.accept()[0]
            if os.fork() == 0:
                listening.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                keep(asking)
                return
            asking.close()


def reap(*_: object) -> None:
    """Take note of the children that have ended, so that their time counts as this process's."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def keep(asking: socket.socket) -> None:
    """Fork the command, tell its process id and in the end its wait status; end it if nobody listens any more."""
    length, descriptors, _, _ = socket.recv_fds(asking, 4, 3)
    size = int.from_bytes(length, "big")
    raw = b""
    while len(raw) < size:
        raw += asking.recv(size - len(raw))
    pid = os.fork()
    if pid == 0:
        asking.close()
        become(descriptors, **json.loads(raw))
        return
    for descriptor in (*descriptors, 0, 1, 2):
        os.close(descriptor)
    ended = os.pidfd_open(pid)
    with contextlib.suppress(OSError):
        asking.sendall(pid.to_bytes(4, "big"))
    if asking in select.select([asking, ended], [], [])[0]:  # only the end of who asked is ever heard
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    with contextlib.suppress(OSError):
        asking.sendall(status.to_bytes(4, "big"))
    os._exit(0)


def become(descriptors: list[int], argv: list[str], environ: dict[str, str], folder: str) -> Any:
    """Do what Python does in a process with these, whose first argument is a script or a package; returns or raises as there."""
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    sys.stdin = sys.__stdin__ = stream(0, "r", "strict")
    sys.stdout = sys.__stdout__ = stream(1, "w", "strict")
    sys.stderr = sys.__stderr__ = stream(2, "w", "backslashreplace", buffering=1)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    sys.argv = argv
    if argv[0].endswith(".py"):
        sys.path[0] = os.path.dirname(argv[0])
        runpy.run_path(argv[0], run_name="__main__")
    else:
        sys.path[0] = folder
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)


def stream(descriptor: int, mode: str, errors: str, buffering: int = -1) -> Any:
    """A standard stream as Python opens it when it starts."""
    return open(descriptor, mode, buffering, "utf-8", errors, closefd=False)


if __name__ == "__main__":
    main(sys.argv[1])
