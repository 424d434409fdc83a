"""Replay for programs: a trace, and the atlases it names from wherever they are at hand.

Source: specs/trace.md, "Replay".
"""

from collections.abc import Iterable, Sequence

from cra_mcp.atlas.archive import AtlasArchive
from cra_mcp.atlas.model import Atlas
from cra_mcp.atlas.overlay import Overlay
from cra_mcp.atlas.registry import Catalogue
from cra_mcp.canonical import canonical_bytes
from cra_mcp.errors import TraceError
from cra_mcp.replay.again import Replayed, replay
from cra_mcp.replay.library import Library
from cra_mcp.replay.reading import read_session
from cra_mcp.trace.event import Event, verify


class AtHand:
    """Atlases and overlays by their digest: those that are given, then what is loaded, then what was kept."""

    def __init__(self, given: Sequence[Atlas], catalogue: Catalogue, archive: AtlasArchive | None) -> None:
        self._atlases = {each.digest: each for each in (*catalogue.atlases, *given)}
        self._overlays = {each.digest: each for each in catalogue.overlays}
        self._archive = archive

    def load(self, digest: str) -> Atlas | None:
        """See ``Source.load``."""
        return self._atlases.get(digest) or (self._archive.load(digest) if self._archive is not None else None)

    def load_overlay(self, digest: str) -> Overlay | None:
        """See ``Source.load_overlay``."""
        return self._overlays.get(digest) or (self._archive.load_overlay(digest) if self._archive is not None else None)


def lines_of(trace: Iterable[Event | bytes]) -> list[bytes]:
    """Stored lines of events, or lines as they are."""
    return [canonical_bytes(each.to_dict()) if isinstance(each, Event) else each for each in trace]


def replay_lines(lines: Sequence[bytes], source: AtHand) -> Replayed:
    """Decide a trace again, if its chain holds.

    Raises:
        TraceError: the code of what is wrong with the chain, ``atlas_missing`` or ``not_replayable``.
    """
    check = verify(lines)
    if not check.ok:
        message = f"event {check.bad_index}: {check.message}"
        raise TraceError(message, code=check.code or "malformed_event", hint="a broken chain proves nothing")
    return replay(read_session(lines), Library(source))
