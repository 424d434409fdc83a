"""What of the environment reaches a back end: references filled in, and the variables a child process inherits.

Rule: pure functions of the mapping they are given. A value is never shown: errors name variables, not what is in them.
Source: specs/atlas.md, "References to the environment".
"""

import re
from collections.abc import Iterable, Mapping

from cra_mcp.errors import ExecutionError

_REFERENCE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")

_INHERITED = frozenset(
    {
        # Everywhere
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TZ", "LANG", "LANGUAGE", "TMPDIR"),
        # Windows: programs fail to start or to find their folders without these
        *("SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "TEMP", "TMP", "OS", "PROCESSOR_ARCHITECTURE"),
        *("NUMBER_OF_PROCESSORS", "USERNAME", "USERPROFILE", "HOMEDRIVE", "HOMEPATH", "APPDATA", "LOCALAPPDATA"),
        *("PROGRAMDATA", "PROGRAMFILES", "PROGRAMFILES(X86)", "COMMONPROGRAMFILES"),
    }
)


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Fill in every ``${NAME}`` and ``${NAME:-default}`` of ``text``, also written ``${env:NAME}``.

    The default stands in for a variable that is unset or empty. Values are taken as they are: a reference inside one
    is not followed. Anything else, a lone ``$`` included, is plain text.

    Raises:
        ExecutionError: ``missing_setting``: a variable without a default is not set.
    """

    def value(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        found = environ.get(name)
        if found is None and default is None:
            raise ExecutionError(
                "missing_setting",
                f"the environment variable {name} is not set",
                hint=f"set {name} in the environment this server is started with",
            )
        return found or default or ""

    return _REFERENCE.sub(value, text) if "${" in text else text


def child_environment(environ: Mapping[str, str], names: Iterable[str] = ()) -> dict[str, str]:
    """What a child process inherits: where programs and files are, the locale, and ``names``; nothing else."""
    kept = {name: value for name, value in environ.items() if name.upper() in _INHERITED or name.startswith("LC_")}
    for name in names:
        value = environ.get(name)
        if value is not None:
            kept[name] = value
    return kept
