"""What is analysed: atlases and overlays, and where each policy and action of them is written.

Rule: only what loads is analysed; what doesn't is refused with every problem, as when it is loaded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cra_mcp.atlas.model import Action, Atlas
from cra_mcp.atlas.overlay import Overlay, govern
from cra_mcp.atlas.overlay_loading import load_policy_file, read_bounded
from cra_mcp.atlas.package import Package
from cra_mcp.policy.model import Layer, Policy

Raw = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Written:
    """Where something is written, and how.

    Attributes:
        file: path, beginning with that of its atlas as it was given.
        pointer: RFC 6901, to the object.
        raw: the object.
    """

    file: str
    pointer: str
    raw: Raw


@dataclass(frozen=True, slots=True)
class Source:
    """One atlas or overlay.

    Attributes:
        atlas: None for a policy file.
        overlay: None for an atlas that governs itself only.
        policies: in file order; those that an action implies are not written anywhere.
        actions: by id.
        upstreams: by name.
        capabilities: in file order.
    """

    name: str
    atlas: Atlas | None
    overlay: Overlay | None
    policies: tuple[tuple[Policy, Written | None], ...]
    actions: Mapping[str, Written]
    upstreams: tuple[Written, ...] = ()
    capabilities: tuple[Written, ...] = ()

    @property
    def default_effect(self) -> str:
        """What holds where none of its policies decides."""
        if self.overlay is not None:
            return self.overlay.layer.default_effect
        return "allow" if self.atlas is None else self.atlas.policy_set.default_effect


@dataclass(frozen=True, slots=True)
class Subject:
    """Everything that is looked at together.

    Attributes:
        sources: overlays first, as in evaluation.
        atlases: those with actions, governed by the overlays.
    """

    sources: tuple[Source, ...]
    atlases: tuple[Atlas, ...]

    def actions_of(self, source: Source) -> Sequence[Action]:
        """The actions that the policies of a source govern."""
        if source.overlay is None and source.atlas is not None:
            return source.atlas.actions
        return [action for atlas in self.atlases for action in atlas.actions]


def load_subject(paths: Sequence[tuple[str, Path]], policy_files: Sequence[Path] = ()) -> Subject:
    """Load atlases, overlay atlases and policy files.

    Args:
        paths: atlases, each with what it is called.
        policy_files: of the operator.

    Raises:
        AtlasInvalidError: one of them can't be loaded, or an overlay doesn't fit an atlas.
    """
    sources = [_atlas(name, path) for name, path in paths]
    overlays = [_policy_file(path) for path in policy_files] + [each for each in sources if each.overlay is not None]
    layers = [each.overlay for each in overlays if each.overlay is not None]
    plain = [each for each in sources if each.overlay is None]
    atlases = tuple(govern(each.atlas, layers) for each in plain if each.atlas is not None)
    return Subject((*overlays, *plain), atlases)


def _atlas(name: str, path: Path) -> Source:
    from cra_mcp.atlas.assembly import assemble  # noqa: PLC0415 - pydantic only where atlases are read
    from cra_mcp.atlas.loader import load_atlas  # noqa: PLC0415 - as above

    kept: list[Package] = []
    atlas = load_atlas(path, keep=kept.append)
    parts = assemble(kept[0])

    def written(file: str, at: str, raw: Raw) -> Written:
        return Written(f"{name.rstrip('/')}/{file}" if path.is_dir() else name, at, raw)

    places = [written(item.place.file, item.place.at, item.raw) for item in parts.policies]
    overlay = None
    if atlas.overlay:
        layer = Layer(atlas.atlas_id, atlas.policies, atlas.policy_set.default_effect)
        overlay = Overlay(atlas.version, atlas.digest, layer, tuple((each.file, each.pointer) for each in places))
    implied = len(atlas.policies) - len(places)
    return Source(
        name,
        atlas,
        overlay,
        tuple(zip(atlas.policies, [*places, *[None] * implied], strict=True)),
        {item.part.action_id: written(item.place.file, item.place.at, item.raw) for item in parts.actions},
        tuple(written(item.place.file, item.place.at, item.raw) for item in parts.upstreams.values()),
        tuple(written(item.place.file, item.place.at, item.raw) for item in parts.capabilities),
    )


def _policy_file(path: Path) -> Source:
    from cra_mcp.atlas.policy_file import read_policies  # noqa: PLC0415 - as above

    overlay = load_policy_file(path)
    raws = read_policies(read_bounded(path), yaml=path.suffix in {".yaml", ".yml"})
    policies = tuple(
        (policy, Written(str(path), at, cast("Raw", raw)))
        for policy, (_, at), raw in zip(overlay.layer.policies, overlay.places, raws, strict=True)
    )
    return Source(str(path), None, overlay, policies, {})
