"""Log lines of servers: JSON on standard error, or text where a person reads them.

Rule: standard output belongs to the protocol. A line about a call has ``session`` and ``sequence``, the number of the newest event
of its chain; no line has parameters, results or secrets. Source: specs/observability.md, "Logs".
"""

import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import structlog

    from cra_mcp.gate.call import ExecutionOutcome

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


def to_stderr(*, verbose: bool) -> None:
    """Log to standard error from now on; ``verbose``: one line for every call, too."""
    import structlog  # noqa: PLC0415 - only servers log

    def stand(_logger: object, _method: str, event: "structlog.typing.EventDict") -> "structlog.typing.EventDict":
        call = _CALL.get()
        if call is not None:
            session_id, newest = call
            event["session"] = session_id
            if "sequence" not in event:
                event["sequence"] = newest(session_id)
        return event

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.ExtraAdder(),
        stand,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    text = sys.stderr.isatty()
    if not text:
        shared.append(structlog.processors.format_exc_info)
    last = structlog.dev.ConsoleRenderer() if text else structlog.processors.JSONRenderer()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("cra_mcp").setLevel(logging.DEBUG if verbose else logging.INFO)
