"""The atlases a trace names, and what they make of requests: each set of atlases once.

Source: specs/trace.md, "Replay".
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cra_mcp.atlas.model import Action, Atlas
from cra_mcp.atlas.registry import Catalogue
from cra_mcp.errors import AtlasConflictError, RequestError, TraceError
from cra_mcp.replay.recorded import Asked, AtlasRef, RecordedCall, RecordedSession
from cra_mcp.resolution import Resolver
from cra_mcp.schema_check import Validator, compile_schema

Find = Callable[[str], Atlas | None]
"""The atlas of a digest, or None."""

Revise = Callable[[Catalogue], Catalogue]

_MAX_SETS = 256


class Library:
    """Finds atlases by digest and keeps what was made of them.

    Args:
        find: where atlases come from.
        revise: what to make of the atlases of a trace before anything is decided by them.
    """

    def __init__(self, find: Find, revise: Revise = lambda catalogue: catalogue) -> None:
        self._find = find
        self._revise = revise
        self._atlases: dict[str, Atlas | None] = {}
        self._resolvers: dict[tuple[str, ...], Resolver] = {}
        self._validators: dict[tuple[str, str], Validator] = {}

    def timeline(self, session: RecordedSession) -> "Timeline":
        """What held when, in a session.

        Raises:
            TraceError: ``atlas_missing``, with every atlas that isn't there; ``not_replayable``: the named ones don't go together.
        """
        current = list(session.atlases)
        self._require([*current, *(change.atlas for change in session.changes if change.kind == "loaded")])
        starts, resolvers = [0], [self._resolver(current)]
        for number, change in enumerate(session.changes):
            following = session.changes[number + 1] if number + 1 < len(session.changes) else None
            if change.kind == "loaded":
                place = _index(current, change.replaces)
                if place is None:
                    current.append(change.atlas)
                else:
                    current[place] = change.atlas
            elif following is None or following.replaces != change.atlas.atlas_id:
                current = [atlas for atlas in current if atlas.atlas_id != change.atlas.atlas_id]
            starts.append(change.sequence)
            resolvers.append(self._resolver(current))
        return Timeline(session, starts, resolvers)

    def parameters(self, atlas: Atlas, action: Action) -> Validator:
        """The compiled schema of an action's parameters."""
        key = (atlas.digest, action.action_id)
        found = self._validators.get(key)
        if found is None:
            found = self._validators[key] = compile_schema(action.parameters_schema)
        return found

    def _require(self, wanted: Sequence[AtlasRef]) -> None:
        for ref in wanted:
            if ref.digest not in self._atlases:
                self._atlases[ref.digest] = self._find(ref.digest)
        missing = sorted({f"{ref.atlas_id} {ref.version}" for ref in wanted if self._atlases[ref.digest] is None})
        if missing:
            raise TraceError(
                f"atlases of the trace are not here: {', '.join(missing)[:500]}",
                code="atlas_missing",
                hint="name a copy of exactly those versions with --atlas",
            )

    def _resolver(self, refs: Sequence[AtlasRef]) -> Resolver:
        key = tuple(ref.digest for ref in refs)
        found = self._resolvers.get(key)
        if found is None:
            atlases = tuple(atlas for digest in key if (atlas := self._atlases[digest]) is not None)
            try:
                found = Resolver(self._revise(Catalogue(atlases=atlases)))
            except AtlasConflictError as error:
                raise TraceError(f"its atlases don't go together: {error.message}", code="not_replayable") from error
            if len(self._resolvers) >= _MAX_SETS:
                self._resolvers.clear()
            self._resolvers[key] = found
        return found


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


def _index(refs: Sequence[AtlasRef], atlas_id: str | None) -> int | None:
    return next((place for place, ref in enumerate(refs) if ref.atlas_id == atlas_id), None)
