"""The sink that hands records to a program of the operator's.

Rule: a program that doesn't read holds nothing up: it is ended, with what it has started, and started again for what comes next.
"""

import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cra_mcp.trace.export.delivering import TIMEOUT_S, DeliveryError, invalid_export, joined
from cra_mcp.trace.export.format import format_of
from cra_mcp.trace.export.record import Record

_END_WAIT_S = 2.0


class CommandSink:
    """A program that reads records from its standard input; started again when it has ended. No shell is involved."""

    def __init__(self, command: str, form: str) -> None:
        try:
            self._argv = shlex.split(command)
        except ValueError:
            raise invalid_export("the command's quotation marks don't match") from None
        if not self._argv:
            raise invalid_export("the command is empty")
        self._format = format_of(form)
        self._process: subprocess.Popen[bytes] | None = None
        self.name = f"command:{Path(self._argv[0]).name}"

    def payloads(self, records: Sequence[Record]) -> Iterable[bytes]:
        """See ``Sink.payloads``."""
        return joined(self._format, records)

    def rest(self) -> Iterable[bytes]:
        """See ``Sink.rest``."""
        return [b"".join(self._format.finish())]

    def deliver(self, payload: bytes) -> None:
        """See ``Sink.deliver``. What a program took before it ended is not known to have been dealt with."""
        try:
            process = self._process
            if process is None or process.poll() is not None:
                self.close()
                process = self._process = self._start()
                payload = self._format.begin() + payload
            if process.stdin is None:
                raise BrokenPipeError
            with _ended_after(process, TIMEOUT_S):  # a program that doesn't read would hold this thread for ever
                process.stdin.write(payload)
                process.stdin.flush()
        except OSError as error:
            self.close()
            raise DeliveryError(type(error).__name__) from None

    def close(self) -> None:
        """See ``Sink.close``: the program is given a moment to end by itself."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            with suppress(OSError), _ended_after(process, _END_WAIT_S):  # closing writes what is buffered
                process.stdin.close()
        try:
            process.wait(_END_WAIT_S)
        except subprocess.TimeoutExpired:
            _end(process)
        process.wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(  # noqa: S603 - the operator's own program, without a shell
            self._argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that it can be ended with all it has started
            env={name: value for name, value in os.environ.items() if not name.startswith("CRA_")},
        )


@contextmanager
def _ended_after(process: "subprocess.Popen[bytes]", seconds: float) -> Generator[None]:
    """End a program if the block, which waits for it, takes longer."""
    timer = threading.Timer(seconds, _end, (process,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a program and, on POSIX systems, what it has started."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):  # it has ended by itself
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
