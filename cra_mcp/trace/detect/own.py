"""Patterns of an operator's own: regular expressions that can't be made to take long.

Rule: RE2 only: time linear in the text, whatever the pattern; no look-around and no back references. A file that can't be
used stops the start, since what it should hide would be recorded. Source: specs/trace.md, "Detectors".
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from cra_mcp.canonical import parse_json
from cra_mcp.errors import CanonicalError, SettingsError
from cra_mcp.folders import read_regular
from cra_mcp.trace.detect.rules import BUILT_IN
from cra_mcp.trace.detect.scan import UNSEARCHED, Finder

if TYPE_CHECKING:
    from types import ModuleType

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_MAX_FILE_BYTES = 262_144
_MAX_PATTERNS = 64
_MAX_PATTERN = 1_000
_MAX_PROGRAM_BYTES = 1 << 20


class _Match(Protocol):
    def span(self) -> tuple[int, int]: ...


def load_patterns(path: Path) -> dict[str, Finder]:
    """The patterns of a JSON file, an object of names and RE2 expressions, as finders.

    Raises:
        SettingsError: it can't be read or has another form, a pattern is none, or RE2 is not installed (``missing_extra``).
    """
    try:
        value = parse_json(read_regular(path, _MAX_FILE_BYTES + 1), max_bytes=_MAX_FILE_BYTES)
    except OSError as error:
        raise _unusable(path, error.strerror or type(error).__name__) from None
    except CanonicalError as error:
        raise _unusable(path, error.message) from None
    if not isinstance(value, dict) or len(cast("dict[str, object]", value)) > _MAX_PATTERNS:
        raise _unusable(path, f"it must be an object of at most {_MAX_PATTERNS} names and patterns")
    return {name: _finder(path, name, pattern) for name, pattern in cast("dict[str, object]", value).items()}


def _finder(path: Path, name: str, pattern: object) -> Finder:
    if _NAME.fullmatch(name) is None or name in {*BUILT_IN, UNSEARCHED}:
        raise _unusable(path, f"{name[:40]!r} is not a name for a pattern (a-z, 0-9 and _, and not a detector's own)")
    if not isinstance(pattern, str) or not 0 < len(pattern) <= _MAX_PATTERN:
        raise _unusable(path, f"{name} must be a text of at most {_MAX_PATTERN} characters")
    re2 = _re2()
    options = re2.Options()
    options.max_mem = _MAX_PROGRAM_BYTES
    options.log_errors = False
    try:
        finditer = cast("Callable[[str], Iterable[_Match]]", re2.compile(pattern, options).finditer)
    except re2.error as error:
        raise _unusable(path, f"{name} is no RE2 pattern: {_reason(error)}") from None
    return lambda text: (match.span() for match in finditer(text.encode("utf-8", "replace").decode()))


def _re2() -> "ModuleType":
    try:
        import re2  # noqa: PLC0415 - an extra  # pyright: ignore[reportMissingTypeStubs]
    except ModuleNotFoundError as error:
        raise SettingsError(
            "own redaction patterns need a package that is not installed",
            code="missing_extra",
            hint="install cra-mcp[re2]",
        ) from error
    return re2


def _reason(error: Exception) -> str:
    text = error.args[0] if error.args else ""
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)


def _unusable(path: Path, why: str) -> SettingsError:
    return SettingsError(
        f"{path} can't be used for redaction: {why}",
        hint='write {"employee": "EMP-[0-9]{6}"}, or unset redact_patterns',
    )
