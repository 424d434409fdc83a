"""``trace search`` and ``trace index``: finding events in many traces."""

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from cra_mcp.errors import SettingsError
from cra_mcp.faces.cli.exits import NO, OK
from cra_mcp.faces.cli.options import AsJson, DataDir, Store, TraceDir, config_of
from cra_mcp.faces.cli.output import emit_json, say, table
from cra_mcp.words import count_of

if TYPE_CHECKING:
    from pathlib import Path

    from cra_mcp.trace.index import Progress, TraceIndex, Update

SEARCH_EXAMPLES = (
    "cra-mcp trace search --decision deny --since 2026-01-31",
    "cra-mcp trace search --action 'refund.*' --text 'angry customer' --json",
)
INDEX_EXAMPLES = ("cra-mcp trace index", "cra-mcp trace index --rebuild --json")

_PATIENCE_S = 1.0
_EVERY_S = 0.25


def search(
    session: Annotated[str | None, typer.Option(help="Id of a session, or a beginning of it.")] = None,
    agent: Annotated[str | None, typer.Option(help="Who; `support-*` finds all that begin so.")] = None,
    action: Annotated[str | None, typer.Option(help="What; `ticket.*` finds all that begin so.")] = None,
    decision: Annotated[str | None, typer.Option(help="allow, deny, approval or error.")] = None,
    policy: Annotated[str | None, typer.Option(help="Which policy decided; `*` at the end as above.")] = None,
    event_type: Annotated[str | None, typer.Option("--type", help="Event type: action.denied, approval.*.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="A day, or 2026-01-31T08:00:00Z.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="The first moment not wanted.")] = None,
    text: Annotated[
        str | None, typer.Option(help="Words that all occur; `*` at the end of one for a beginning.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Show at most so many.")] = 50,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Find events in all traces, the latest first.

    All that is given must hold. Exit code 1 where nothing was found. What is found says where to look: `trace verify` says
    whether it can be believed.
    """
    from cra_mcp.trace import search as searching  # noqa: PLC0415 - not for --help

    query = searching.Query(session, agent, action, decision, policy, event_type, since, until, text)
    index = _index(data_dir, trace_dir, store)
    follow(index)
    with index.reading() as connection:
        found = searching.search(connection, query, limit=limit)
    index.close()
    if as_json:
        emit_json({"events": [each.to_dict() for each in found]})
    elif found:
        rows = [
            (
                each.timestamp[:19] + "Z",
                each.session_id,
                str(each.sequence),
                each.event_type,
                each.action_id or "",
                each.decision or "",
                each.policy_id or "",
                each.agent_id or "",
            )
            for each in found
        ]
        table(("TIME", "SESSION", "SEQ", "EVENT", "ACTION", "DECISION", "POLICY", "AGENT"), rows)
    else:
        say("nothing found")
    raise typer.Exit(OK if found else NO)


def index(
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make it anew from the traces.")] = False,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Bring the index that searches use up to date.

    Lists and searches do that by themselves; this is for the first time, which takes long for many traces. The index is a SQLite
    file beside the traces, index.sqlite3 or PATH.index.sqlite3; it can be deleted, and read with any tool.
    """
    followed = _index(data_dir, trace_dir, store)
    done = follow(followed, rebuild=rebuild)
    followed.close()
    if as_json:
        counts = {"added": done.added, "removed": done.removed, "unreadable": done.unreadable} if done else None
        emit_json({"updated": done is not None, "counts": counts})
    elif done is not None:
        say(
            f"{count_of(done.added, 'event')} added, {done.removed} taken out, {count_of(done.unreadable, 'unreadable line')}"
        )


def follow(index: "TraceIndex", *, rebuild: bool = False) -> "Update | None":
    """Bring an index up to date, with progress on a terminal where it takes long; None where another process is at it."""
    done = index.rebuild(_progress()) if rebuild else index.update(_progress())
    if done is None:
        say("another command is bringing the index up to date: the latest events may be missing")
    return done


def _progress() -> "Progress":
    began = told = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if sys.stderr.isatty() and now - began > _PATIENCE_S and (now - told > _EVERY_S or done >= total):
            told = now
            sys.stderr.write(f"\rindexing traces: {done / max(total, 1):4.0%}")
            sys.stderr.write("\n" if done >= total else "")
            sys.stderr.flush()

    return tell


def _index(data_dir: "Path | None", trace_dir: "Path | None", store: str | None) -> "TraceIndex":
    from cra_mcp.compose import open_index  # noqa: PLC0415 - not for --help

    opened = open_index(config_of(data_dir=data_dir, trace_dir=trace_dir, store=store))
    if opened is None:
        raise SettingsError(
            "traces in memory are not indexed", hint="name a store that is kept, with --store or CRA_STORE"
        )
    return opened
