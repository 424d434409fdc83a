"""The atlases a trace names, and what they make of requests: each set of atlases once.

Source: specs/trace.md, "Replay".
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cra_mcp.atlas.model import Action, Atlas
from cra_mcp.atlas.overlay import Overlay
from cra_mcp.atlas.registry import Catalogue
from cra_mcp.errors import AtlasConflictError, AtlasInvalidError, RequestError, TraceError
from cra_mcp.replay.recorded import Asked, AtlasRef, CatalogueChange, RecordedCall, RecordedSession
from cra_mcp.resolution.resolver import Resolver
from cra_mcp.schema_check import Validator, compile_schema

Revise = Callable[[Catalogue], Catalogue]

T = TypeVar("T")

_MAX_SETS = 256


class Source(Protocol):
    """Where atlases and overlays are found by their digest."""

    def load(self, digest: str) -> Atlas | None:
        """The atlas of a digest."""
        ...

    def load_overlay(self, digest: str) -> Overlay | None:
        """The overlay of a digest."""
        ...


class Library:
    """Finds atlases by digest and keeps what was made of them.

    Args:
        source: where atlases come from.
        revise: what to make of the atlases of a trace before anything is decided by them; None: they are left as they were,
            and so is a shadow mode, in which hardly anything was enforced.
    """

    def __init__(self, source: Source, revise: Revise | None = None) -> None:
        self._source = source
        self._revise = revise
        self._atlases: dict[str, Atlas | None] = {}
        self._overlays: dict[str, Overlay | None] = {}
        self._resolvers: dict[tuple[tuple[str, ...], tuple[str, ...], bool], Resolver] = {}
        self._validators: dict[tuple[str, str], Validator] = {}

    def timeline(self, session: RecordedSession) -> "Timeline":
        """What held when, in a session.

        Raises:
            TraceError: ``atlas_missing``, with every atlas that isn't there; ``not_replayable``: the named ones don't go together.
        """
        current, overlays = list(session.atlases), list(session.overlays)
        shadow = session.shadow and self._revise is None
        self._require(session)
        starts, resolvers = [0], [self._resolver(current, overlays, shadow)]
        for number, change in enumerate(session.changes):
            following = session.changes[number + 1] if number + 1 < len(session.changes) else None
            if change.kind == "overlay":
                _put(overlays, change)
            elif change.kind == "loaded":
                _put(current, change)
            elif following is None or following.replaces != change.atlas.atlas_id:
                current = [atlas for atlas in current if atlas.atlas_id != change.atlas.atlas_id]
            starts.append(change.sequence)
            resolvers.append(self._resolver(current, overlays, shadow))
        return Timeline(session, starts, resolvers)

    def parameters(self, atlas: Atlas, action: Action) -> Validator:
        """The compiled schema of an action's parameters."""
        key = (atlas.digest, action.action_id)
        found = self._validators.get(key)
        if found is None:
            found = self._validators[key] = compile_schema(action.parameters_schema)
        return found

    def _require(self, session: RecordedSession) -> None:
        """Find everything a trace names.

        Raises:
            TraceError: ``atlas_missing``.
        """
        changes = session.changes
        atlases = [*session.atlases, *(change.atlas for change in changes if change.kind == "loaded")]
        overlays = [*session.overlays, *(change.atlas for change in changes if change.kind == "overlay")]
        missing = {*_missing(atlases, self._atlases, self._source.load)}
        missing |= {*_missing(overlays, self._overlays, self._source.load_overlay)}
        if missing:
            raise TraceError(
                f"atlases or policies of the trace are not here: {', '.join(sorted(missing))[:500]}",
                code="atlas_missing",
                hint="name a copy of exactly those versions with --atlas",
            )

    def _resolver(self, refs: Sequence[AtlasRef], overlays: Sequence[AtlasRef], shadow: bool) -> Resolver:
        key = tuple(ref.digest for ref in refs), tuple(ref.digest for ref in overlays), shadow
        found = self._resolvers.get(key)
        if found is None:
            catalogue = Catalogue(shadow=shadow)
            try:
                for digest in key[1]:
                    overlay = self._overlays[digest]
                    catalogue = catalogue.with_overlay(overlay) if overlay is not None else catalogue
                for digest in key[0]:
                    atlas = self._atlases[digest]
                    catalogue = catalogue.with_atlas(atlas) if atlas is not None else catalogue
                found = Resolver(catalogue if self._revise is None else self._revise(catalogue))
            except (AtlasConflictError, AtlasInvalidError) as error:
                raise TraceError(f"its atlases don't go together: {error.message}", code="not_replayable") from error
            if len(self._resolvers) >= _MAX_SETS:
                self._resolvers.clear()
            self._resolvers[key] = found
        return found


def _missing(wanted: Sequence[AtlasRef], known: dict[str, T | None], find: Callable[[str], T | None]) -> Iterator[str]:
    for ref in wanted:
        if ref.digest not in known:
            known[ref.digest] = find(ref.digest)
        if known[ref.digest] is None:
            yield f"{ref.atlas_id} {ref.version}".rstrip()


@dataclass(frozen=True, slots=True)
class Case:
    """What bears on one call: the request it was made under, and the action in the atlas that held then."""

    asked: Asked
    found: tuple[Atlas, Action] | None


class Timeline:
    """One session, and what held at each of its events."""

    def __init__(self, session: RecordedSession, starts: Sequence[int], resolvers: Sequence[Resolver]) -> None:
        self._starts = starts
        self._resolvers = resolvers
        self._answered = [asked for asked in session.asked if asked.resolution_id is not None]
        self._sequences = [asked.sequence for asked in self._answered]
        self._by_id: Mapping[str | None, Asked] = {asked.resolution_id: asked for asked in self._answered}

    def resolver(self, sequence: int) -> Resolver:
        """What answers requests at an event."""
        return self._resolvers[bisect_right(self._starts, sequence) - 1]

    def case(self, call: RecordedCall) -> Case:
        """What bears on a call.

        Raises:
            TraceError: ``not_replayable``: it was made under a resolution the trace doesn't have.
        """
        asked = self._under(call)
        resolver = self.resolver(call.sequence)
        try:
            members = resolver.answer(asked.query, asked.facts, asked.at_us).outcome.members
        except RequestError:  # other atlases than those it was resolved from
            members = frozenset[str]()
        found = resolver.catalogue.find(call.action_id) if call.action_id in members else None
        return Case(asked, found)

    def _under(self, call: RecordedCall) -> Asked:
        if call.resolution_id is not None:
            asked = self._by_id.get(call.resolution_id)
        else:
            place = bisect_right(self._sequences, call.sequence)
            asked = self._answered[place - 1] if place else None
        if asked is None:
            raise TraceError(f"event {call.sequence}: its resolution is not in the trace", code="not_replayable")
        return asked


def _put(refs: list[AtlasRef], change: CatalogueChange) -> None:
    """In the place of what it replaces, else last."""
    place = next((place for place, ref in enumerate(refs) if ref.atlas_id == change.replaces), len(refs))
    refs[place : place + 1] = [change.atlas]
