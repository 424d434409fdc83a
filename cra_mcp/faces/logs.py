"""Log lines of servers: JSON on standard error, or text where a person reads them.

Rule: standard output belongs to the protocol. A line about a call has ``session`` and ``sequence``, the number of the newest event
of its chain; no line has parameters, results or secrets. So nothing that another library words is shown, at any level, nor the text
of an exception: such texts quote messages, addresses and bodies. Source: specs/observability.md, "Logs".
"""

import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from cra_mcp.debug_log import open_debug_log, want_everything
from cra_mcp.words import visible

if TYPE_CHECKING:
    import structlog

    from cra_mcp.gate.call import ExecutionOutcome

_OURS: Final = "cra_mcp"
_NAME_SHOWN: Final = 100
_log = logging.getLogger("cra_mcp.calls")
Newest = Callable[[str], int | None]
"""Session id to the sequence of its newest event; None if there is none."""

_CALL: Final[ContextVar[tuple[str, Newest] | None]] = ContextVar("cra_log_call", default=None)


def about(session_id: str, newest: Newest) -> None:
    """What is logged from here on, in this task, is about a call of this session. ``newest`` is asked when a line is written."""
    _CALL.set((session_id, newest))


def note_outcome(outcome: "ExecutionOutcome") -> None:
    """One line for a call that has ended, where lines of this level are wanted."""
    if _log.isEnabledFor(logging.DEBUG):
        fields: dict[str, object] = {"execution": outcome.execution_id, "status": outcome.status}
        if outcome.receipt is not None:
            fields["sequence"] = outcome.receipt.sequence
        if outcome.fault is not None:
            fields["code"] = outcome.fault.code
        _log.debug("call", extra=fields)


def to_stderr(*, verbose: bool, debug: Path | None = None) -> None:
    """Log to standard error from now on.

    Args:
        verbose: one line for every call, too.
        debug: a file that gets everything in full, tracebacks and the words of other libraries.

    Raises:
        SettingsError: the file can't be used.
    """
    full = os.fdopen(open_debug_log(debug), "a", encoding="utf-8", errors="replace") if debug is not None else None
    import structlog  # noqa: PLC0415 - only servers log

    class OwnWords(structlog.stdlib.ProcessorFormatter):
        def format(self, record: logging.LogRecord) -> str:
            return super().format(_own_words(record))

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.ExtraAdder(),
        _stand,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    text = sys.stderr.isatty()
    if text:
        shared.append(_legible)
    last = structlog.dev.ConsoleRenderer() if text else structlog.processors.JSONRenderer()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        OwnWords(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    if full is not None:
        want_everything()
        root.addHandler(_debug_handler(full))
    logging.raiseExceptions = False  # a line that can't be written would be printed with its arguments
    root.setLevel(logging.WARNING)
    logging.getLogger(_OURS).setLevel(logging.DEBUG if verbose else logging.INFO)
    _catch_what_python_prints()


def _stand(_logger: object, _method: str, event: "structlog.typing.EventDict") -> "structlog.typing.EventDict":
    """Add which call a line is about."""
    call = _CALL.get()
    if call is not None:
        session_id, newest = call
        event["session"] = session_id
        if "sequence" not in event:
            event["sequence"] = newest(session_id)
    return event


def _own_words(record: logging.LogRecord) -> logging.LogRecord:
    """A record without what others worded: of exceptions the type and place stay, of other libraries' lines the logger."""
    ours = record.name == _OURS or record.name.startswith(f"{_OURS}.")
    if ours:
        shown = logging.makeLogRecord(record.__dict__)
    else:
        fields = {"name": record.name, "levelno": record.levelno, "levelname": record.levelname}
        shown = logging.makeLogRecord(
            {**fields, "created": record.created, "msg": "a message of other code, not shown"}
        )
        name = "".join(char for char in record.name[:_NAME_SHOWN] if char.isprintable())
        shown.__dict__.update(logger=name, at=f"{record.filename}:{record.lineno}")
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        shown.__dict__["raised"] = type(error).__name__
        frames = list(traceback.walk_tb(error.__traceback__))
        if ours and frames:
            frame, line = frames[-1]
            shown.__dict__["at"] = f"{os.path.basename(frame.f_code.co_filename)}:{line}"
    shown.exc_info = shown.exc_text = shown.stack_info = None
    return shown


def _catch_what_python_prints() -> None:
    """Log what Python would print by itself: tracebacks of threads, of finalisers and of the process, and warnings."""

    def of_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            _log.error("a thread failed", exc_info=args.exc_value)

    def unraisable(args: "sys.UnraisableHookArgs") -> None:
        _log.error("an error could not be raised", exc_info=args.exc_value)

    def of_process(_kind: type[BaseException], error: BaseException, _trace: object) -> None:
        _log.critical("the server failed", exc_info=error)

    threading.excepthook = of_thread
    sys.unraisablehook = unraisable
    sys.excepthook = of_process
    logging.captureWarnings(True)


def _debug_handler(file: TextIO) -> logging.Handler:
    handler = logging.StreamHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    return handler


def _legible(_logger: object, _method: str, event: "structlog.typing.EventDict") -> "structlog.typing.EventDict":
    """On a terminal nothing is raw that steers the reader or that nobody sees; JSON escapes it by itself."""
    return {name: visible(value) if isinstance(value, str) else value for name, value in event.items()}
