"""What a query considers: which atlases, and which of their actions and documents.

Source: specs/carp.md, "Resolution".
"""

from collections.abc import Iterable
from dataclasses import dataclass

from cra_mcp.atlas.model import Atlas
from cra_mcp.atlas.registry import Catalogue
from cra_mcp.errors import RequestError
from cra_mcp.policy.engine import PolicySet
from cra_mcp.resolution.model import Query


@dataclass(frozen=True, slots=True)
class Scope:
    """What a query considers: ``members`` and ``packs`` are None where nothing restricts them."""

    atlases: tuple[Atlas, ...]
    members: frozenset[str] | None
    packs: frozenset[tuple[str, str]] | None
    policy_sets: tuple[PolicySet, ...]


def scope_of(catalogue: Catalogue, query: Query) -> Scope:
    """What a query considers of a catalogue.

    Raises:
        RequestError: ``unknown_atlas`` or ``unknown_capability``.
    """
    known = {atlas.atlas_id for atlas in catalogue.atlases}
    unknown = [atlas_id for atlas_id in query.atlas_ids if atlas_id not in known]
    if unknown:
        raise RequestError("unknown_atlas", f"no loaded atlas is called {_quoted(unknown)}", hint="see list_atlases()")
    wanted = frozenset(query.atlas_ids) or known
    atlases = tuple(atlas for atlas in catalogue.atlases if atlas.atlas_id in wanted)
    policy_sets = tuple(atlas.policy_set for atlas in atlases)
    if not query.capabilities:
        return Scope(atlases, None, None, policy_sets)
    offered = {capability.capability_id for atlas in atlases for capability in atlas.capabilities}
    unknown = [capability for capability in query.capabilities if capability not in offered]
    if unknown:
        raise RequestError("unknown_capability", f"no considered atlas has the capability {_quoted(unknown)}")
    members: set[str] = set()
    packs: set[tuple[str, str]] = set()
    for atlas in atlases:
        for capability in atlas.capabilities:
            if capability.capability_id in query.capabilities:
                members.update(capability.actions)
                packs.update((atlas.atlas_id, pack) for pack in capability.context_packs)
    return Scope(atlases, frozenset(members), frozenset(packs), policy_sets)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name[:100]) for name in names)
