"""How commands end: exit codes, and how an error becomes one.

Rule: every error of ours ends a command with ``error:`` and ``hint:`` on stderr and one of these codes; a traceback is a bug.
"""

import sys
from typing import TYPE_CHECKING, NoReturn, cast

import typer

from cra_mcp.errors import (
    AtlasInvalidError,
    CRAError,
    RequestError,
    SettingsError,
    TraceLockedError,
    TraceUnavailableError,
    UnknownTraceError,
)
from cra_mcp.faces.cli.output import complain, flush, printable, say, say_text

if TYPE_CHECKING:
    from collections.abc import Callable

OK, NO, USAGE, ENVIRONMENT, INTERRUPTED = 0, 1, 2, 3, 130

CODES = (
    "Exit codes: 0 done; 1 the answer is no (denied, pending, invalid, broken, failed); 2 wrong usage; 3 the environment is in "
    "the way (a file, folder, lock or setting is missing or can't be used); 130 interrupted; 141 nobody reads the output."
)

_ENVIRONMENT_ERRORS = (SettingsError, TraceLockedError, TraceUnavailableError, UnknownTraceError)
_ENVIRONMENT_CODES = {"state_unavailable", "unknown_approval"}

# The class of all usage errors is public by its subclasses only.
_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])


def epilog(*examples: str) -> str:
    """What ends a command's help: examples of it, and the exit codes."""
    lines = "\n".join(f"  {example}" for example in examples)
    return f"\b\nExamples:\n{lines}\n\n{CODES}"


def exit_code(error: CRAError) -> int:
    """The exit code of an error."""
    if isinstance(error, RequestError):
        return USAGE
    if isinstance(error, _ENVIRONMENT_ERRORS) or error.code in _ENVIRONMENT_CODES:
        return ENVIRONMENT
    return NO


def end(run: "Callable[[], object]") -> NoReturn:
    """Run a command line and end the process with its exit code."""
    sys.exit(_outcome(run))


def _outcome(run: "Callable[[], object]") -> int:
    try:
        code = run()
        flush()
    except CRAError as error:
        _tell(error)
        return exit_code(error)
    except _UsageError as error:
        _tell_usage(error)
        return USAGE
    except (KeyboardInterrupt, typer.Abort):
        say()
        return INTERRUPTED
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        complain(
            f"{error.strerror or type(error).__name__}{where}", "check the path, its permissions and the free space"
        )
        return ENVIRONMENT
    return code if isinstance(code, int) else OK


def _tell(error: CRAError) -> None:
    if not isinstance(error, AtlasInvalidError):
        complain(f"{printable(error.message)} [{error.code}]", error.hint)
        return
    count = len(error.problems)
    lines = [f"the atlas has {count} problem{'s' if count != 1 else ''} [{error.code}]"]
    complain("\n".join([*lines, *map(str, error.problems)]), error.hint)


def _tell_usage(error: typer.BadParameter) -> None:
    context = error.ctx
    if context is None:
        complain(error.format_message())
        return
    if error.message == context.get_help():  # a group without a command
        say_text(error.message)
        return
    message = error.format_message().rstrip(".")
    complain(printable(message[:1].lower() + message[1:]), f"see `{context.command_path} --help`")
