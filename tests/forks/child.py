"""Stands for the command that parent.py forks, which gets what this process has: arguments, environment, folder, descriptors.

Passes signals on, and ends as the command does. Run with ``-I -S``: it starts in a hundredth of a second.
"""

import json
import os
import signal
import socket
import sys
from types import FrameType

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def receive(parent: socket.socket) -> int:
    raw = b""
    while len(raw) < 4:
        more = parent.recv(4 - len(raw))
        if not more:
            sys.exit("the process that forks commands has gone")
        raw += more
    return int.from_bytes(raw, "big")


def main(path: str, argv: list[str]) -> None:
    parent = socket.socket(socket.AF_UNIX)
    parent.connect(path)
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)  # until it is known whom they are for
    asked = json.dumps({"argv": argv, "environ": dict(os.environ), "folder": os.getcwd()}).encode()
    socket.send_fds(parent, [len(asked).to_bytes(4, "big")], [0, 1, 2])
    parent.sendall(asked)
    pid = receive(parent)

    def forward(number: int, _: FrameType | None) -> None:
        os.kill(pid, number)

    for number in FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    os.closerange(0, 3)  # they are the command's: nobody is to wait for this end of a pipe
    status = receive(parent)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
