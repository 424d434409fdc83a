"""Atlases and policy files kept for replay that no trace needs any more.

Rule: what any remaining trace names stays, in this folder and in every database that keeps its atlases here; so does what was used
within the period; and where not all traces can be read, everything does. Source: specs/trace.md, "Retention".
"""

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from cra_mcp.atlas import archive_upkeep
from cra_mcp.atlas.archive_upkeep import KeptAtlas
from cra_mcp.trace.index_source import FileSource, IndexSource, SqliteSource

_BATCH = 4_096


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What went, or would go.

    Attributes:
        removed: in the order of their digests.
        kept_because: why nothing could be removed; None if that was not so.
    """

    removed: tuple[KeptAtlas, ...] = ()
    kept_because: str | None = None

    def to_dict(self) -> dict[str, object]:
        """A JSON object."""
        return {"removed": [asdict(each) for each in self.removed], "kept_because": self.kept_because}


def prune_atlases(
    traces: Path, archive: Path, until_ns: int, *, without: Collection[str] = (), dry_run: bool = False
) -> Leftovers:
    """Remove what was last used before ``until_ns`` and no trace names.

    Args:
        traces: the folder of traces.
        archive: where atlases are kept.
        until_ns: the first moment that stays, nanoseconds since the epoch.
        without: sessions that count as gone: those a dry run would let go.
        dry_run: only say what would go.

    Raises:
        OSError: a trace or a kept atlas can't be read, or not be removed.
        TraceUnavailableError: something else stands where a trace should be.
        sqlite3.Error: a database can't be read.
    """
    candidates = {kept.digest: kept for kept in archive_upkeep.kept_before(archive, until_ns)}
    if not candidates:
        return Leftovers()
    databases = archive_upkeep.databases(archive)
    missing = [str(path) for path in databases if not path.is_file()]
    if missing:
        return Leftovers(kept_because=f"databases that keep their atlases here are not there: {', '.join(missing)}")
    sources: list[IndexSource] = [FileSource(traces), *map(SqliteSource, databases)]
    unneeded = set(candidates)
    for source in sources:
        try:
            for part in list(source.parts()) if source.is_there() else ():
                if not unneeded:
                    return Leftovers()
                if part.session_id not in without:
                    unneeded -= _named(unneeded, (line for line, _ in source.lines(part, 0)))
        finally:
            source.close()
    found = [candidates[digest] for digest in sorted(unneeded)]
    if not dry_run:
        found = [kept for kept in found if archive_upkeep.remove(archive, kept.digest, until_ns)]
    return Leftovers(tuple(found))


def _named(digests: Collection[str], lines: Iterable[bytes]) -> set[str]:
    """The digests that occur anywhere in lines: more than what replay looks for, and never less."""
    wanted = {digest: digest.encode() for digest in digests}
    rest, named = iter(lines), set[str]()
    while wanted and (batch := b"\n".join(islice(rest, _BATCH))):
        for digest in [digest for digest, text in wanted.items() if text in batch]:
            named.add(digest)
            del wanted[digest]
    return named
