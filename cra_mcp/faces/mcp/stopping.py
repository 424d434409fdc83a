"""Being asked to stop: SIGTERM, SIGINT and SIGHUP, and on Windows Ctrl-Break, whatever the event loop.

Source: Python documentation, "signal": handlers run in the main thread; a loop is woken from them by ``call_soon_threadsafe``.
"""

import asyncio
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

_ASKED = (signal.SIGTERM, signal.SIGINT)
_SIGNALS = (*_ASKED, signal.SIGBREAK if sys.platform == "win32" else signal.SIGHUP)


def ignore_termination() -> None:
    """Let SIGTERM do nothing from now on: the process is ending, and what it signs last must not be cut off."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def stop_requested() -> Generator[asyncio.Event]:
    """An event that is set when the process is asked to stop. Outside the main thread it never is: there are no signals there."""
    asked = asyncio.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    loop = asyncio.get_running_loop()

    def ask(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(asked.set)

    # Whoever starts a program with nohup wants it to ignore the end of its terminal. SIGINT is heard even where it is ignored:
    # shells start what runs in the background so, hosts among it, and what hosts start inherits that.
    heard = [number for number in _SIGNALS if number in _ASKED or signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in heard}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
