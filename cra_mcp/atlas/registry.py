"""The loaded atlases as one value.

Rule: a catalogue never changes; loading and unloading make a new one. An action id or a published name has one owner.
Source: specs/atlas.md, "Several atlases".
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cra_mcp.atlas.model import Action, Atlas
from cra_mcp.atlas.overlay import Overlay, govern
from cra_mcp.errors import AtlasConflictError, RequestError

Owned = tuple[Atlas, Action]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Atlases in load order.

    Attributes:
        version: goes up by one with every change, so that what is derived from a catalogue can tell when it is stale.
        atlases: their policies compiled together with the overlays'.
        overlays: what governs every action, in load order.
        shadow: only the overlays' denials are enforced.
    """

    version: int = 0
    atlases: tuple[Atlas, ...] = ()
    overlays: tuple[Overlay, ...] = ()
    shadow: bool = False
    _by_id: Mapping[str, Owned] = field(init=False, repr=False, compare=False)
    _by_name: Mapping[str, Owned] = field(init=False, repr=False, compare=False)
    _detectors: Mapping[str | None, frozenset[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the actions.

        Raises:
            AtlasConflictError: two atlases claim one atlas id, action id or published name.
        """
        by_id: dict[str, Owned] = {}
        by_name: dict[str, Owned] = {}
        seen: set[str] = set()
        for atlas in self.atlases:
            if atlas.atlas_id in seen:
                raise AtlasConflictError(
                    f"atlas {atlas.atlas_id} is loaded already", hint="unload it first, or leave one of the two out"
                )
            seen.add(atlas.atlas_id)
            for action in atlas.actions:
                _claim(by_id, action.action_id, "action id", atlas, action)
                _claim(by_name, action.published_name, "published name", atlas, action)
        object.__setattr__(self, "_by_id", by_id)
        object.__setattr__(self, "_by_name", by_name)
        everywhere = frozenset[str]().union(*(overlay.detectors for overlay in self.overlays))
        detectors: dict[str | None, frozenset[str]] = {
            atlas.atlas_id: everywhere | atlas.detectors for atlas in self.atlases
        }
        object.__setattr__(self, "_detectors", {**detectors, None: everywhere.union(*detectors.values())})

    def with_atlas(self, atlas: Atlas) -> "Catalogue":
        """This catalogue and one atlas more, last in order.

        Raises:
            AtlasConflictError: it claims something that a loaded one has.
            AtlasInvalidError: an expression of an overlay does not fit an action of it.
        """
        return self._next((*self.atlases, self._governed(atlas)))

    def with_overlay(self, overlay: Overlay) -> "Catalogue":
        """This catalogue, governed by one overlay more.

        Raises:
            AtlasConflictError: an overlay of this name is loaded.
            AtlasInvalidError: an expression of it does not fit an action.
        """
        return self._under((*self.overlays, overlay))

    def with_replaced_overlay(self, overlay: Overlay, replaces: str | None = None) -> "Catalogue":
        """This catalogue, governed by ``overlay`` in the place of another; one more, last, if there is no such.

        Args:
            overlay: what governs from now on.
            replaces: the name of the other; None: it has the same.

        Raises:
            AtlasConflictError: a third has its name.
            AtlasInvalidError: as above.
        """
        name = overlay.overlay_id if replaces is None else replaces
        if all(each.overlay_id != name for each in self.overlays):
            return self.with_overlay(overlay)
        return self._under(tuple(overlay if each.overlay_id == name else each for each in self.overlays))

    def _governed(self, atlas: Atlas) -> Atlas:
        return govern(atlas, self.overlays, shadow=self.shadow) if self.overlays or self.shadow else atlas

    def _next(self, atlases: tuple[Atlas, ...]) -> "Catalogue":
        return Catalogue(self.version + 1, atlases, self.overlays, self.shadow)

    def _under(self, overlays: tuple[Overlay, ...]) -> "Catalogue":
        twice = [name for name, times in Counter(each.overlay_id for each in overlays).items() if times > 1]
        if twice:
            raise AtlasConflictError(
                f"overlay {twice[0]} is loaded already", hint="give the policy file another overlay_id"
            )
        atlases = tuple(govern(atlas, overlays, shadow=self.shadow) for atlas in self.atlases)
        return Catalogue(self.version + 1, atlases, overlays, self.shadow)

    def without(self, atlas_id: str) -> "Catalogue":
        """This catalogue less one atlas.

        Raises:
            RequestError: ``unknown_atlas``.
        """
        if self.get(atlas_id) is None:
            raise RequestError("unknown_atlas", "no loaded atlas has this id")
        return self._next(tuple(atlas for atlas in self.atlases if atlas.atlas_id != atlas_id))

    def with_replaced(self, atlas_id: str, atlas: Atlas) -> "Catalogue":
        """This catalogue with ``atlas`` in the place of the one called ``atlas_id``.

        Raises:
            AtlasConflictError: it claims something that another loaded one has.
            AtlasInvalidError: an expression of an overlay does not fit an action of it.
            RequestError: ``unknown_atlas``.
        """
        if self.get(atlas_id) is None:
            raise RequestError("unknown_atlas", "no loaded atlas has this id")
        governed = self._governed(atlas)
        atlases = tuple(governed if each.atlas_id == atlas_id else each for each in self.atlases)
        return self._next(atlases)

    def get(self, atlas_id: str) -> Atlas | None:
        """The atlas of this id."""
        return next((atlas for atlas in self.atlases if atlas.atlas_id == atlas_id), None)

    def holds(self, atlas: Atlas) -> bool:
        """Whether this very atlas, governed by the same overlays, is loaded."""
        return any(each is atlas for each in self.atlases)

    def find(self, action_id: str) -> Owned | None:
        """The action of this id, with the atlas that owns it."""
        return self._by_id.get(action_id)

    def detectors(self, action_id: str | None) -> frozenset[str]:
        """What is hidden of an action by what is loaded, besides what the operator hides; None, or an unknown one: by any of it."""
        everything = self._detectors[None]
        if not everything:
            return everything
        owned = self._by_id.get(action_id) if action_id is not None else None
        return self._detectors[owned[0].atlas_id] if owned is not None else everything

    def by_published_name(self, name: str) -> Owned | None:
        """The action published under this name, with the atlas that owns it."""
        return self._by_name.get(name)

    def published(self, kind: str) -> tuple[Action, ...]:
        """The actions published as a ``kind``, in the order of ``actions``."""
        return tuple(action for _, action in self.actions() if action.publication.kind == kind)

    def actions(self) -> Iterator[Owned]:
        """All actions: atlases in load order, each one's actions in manifest order."""
        return iter(self._by_id.values())


def _claim(index: dict[str, Owned], key: str, what: str, atlas: Atlas, action: Action) -> None:
    held = index.setdefault(key, (atlas, action))
    if held[1] is not action:
        raise AtlasConflictError(
            f"{what} {key} of {atlas.atlas_id} belongs to {held[0].atlas_id} already",
            hint="rename the action, or load only one of the two atlases",
        )


@dataclass(frozen=True, slots=True)
class AtlasInfo:
    """A loaded atlas, for listings."""

    atlas_id: str
    version: str
    name: str
    description: str = field(repr=False)
    digest: str = field(repr=False)
    actions: int
    policies: int

    def to_dict(self) -> dict[str, object]:
        """As plain JSON."""
        return {
            "atlas_id": self.atlas_id,
            "version": self.version,
            "name": self.name,
            "description": self.description,
            "digest": self.digest,
            "actions": self.actions,
            "policies": self.policies,
        }


def info_of(atlas: Atlas) -> AtlasInfo:
    """What listings say of an atlas."""
    return AtlasInfo(
        atlas_id=atlas.atlas_id,
        version=atlas.version,
        name=atlas.name,
        description=atlas.description,
        digest=atlas.digest,
        actions=len(atlas.actions),
        policies=len(atlas.policies),
    )
