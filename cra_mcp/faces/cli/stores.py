"""The trace store that options name, and the session a person means."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cra_mcp.errors import UnknownTraceError
from cra_mcp.faces.cli.options import config_of

if TYPE_CHECKING:
    from cra_mcp.settings import RuntimeConfig
    from cra_mcp.trace.store import TraceStore


def open_traces(data_dir: Path | None, trace_dir: Path | None, store: str | None = None) -> "TraceStore":
    """The store that the options, or the environment, name.

    Raises:
        SettingsError: a value can't be used.
    """
    from cra_mcp.compose import open_store  # noqa: PLC0415 - not for --help

    return open_store(config_of(data_dir=data_dir, trace_dir=trace_dir, store=store))


def check_any(found: object, config: "RuntimeConfig", what: str) -> None:
    """Refuse to answer a question about all traces where there are none: more likely than not, it is the wrong place.

    Args:
        found: truthy if there are any.
        config: says where they were looked for.
        what: what therefore did not happen: ``verified``.

    Raises:
        UnknownTraceError: there are none.
    """
    from cra_mcp.compose import database_of  # noqa: PLC0415 - not for --help

    if not found:
        where = "memory" if config.store == "memory" else database_of(config) or config.trace_path
        raise UnknownTraceError(
            f"there are no traces in {where}: nothing was {what}",
            hint="--data-dir, --trace-dir and --store say where to look; see `cra-mcp trace list`",
        )


def find_session(store: "TraceStore", text: str) -> str:
    """The session meant by an id, a beginning of one, or ``latest``.

    Raises:
        UnknownTraceError: there is none.
        typer.BadParameter: there are several.
    """
    from cra_mcp.trace.event import is_identifier  # noqa: PLC0415 - not for --help

    if is_identifier(text):
        return text  # whoever reads it finds out whether it is there, without listing all
    found = [info.session_id for info in store.sessions()]
    if text == "latest" and found:
        return found[0]
    matching = [session_id for session_id in found if text and session_id.startswith(text)]
    if len(matching) > 1:
        raise typer.BadParameter(f"{len(matching)} sessions begin with {text}", param_hint="SESSION")
    if matching:
        return matching[0]
    what = "there are no traces here" if text == "latest" else f"no session begins with {text[:80]!r}"
    raise UnknownTraceError(what, hint="see `cra-mcp trace list`; --data-dir and --trace-dir say where to look")
