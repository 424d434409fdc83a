"""Where policies stand: file and pointer of each policy of an atlas, for whoever has to name one.

Source: specs/atlas.md, "Package".
"""

from collections.abc import Mapping
from pathlib import Path

from cra_mcp.atlas.package import read_package


def policy_places(path: Path) -> Mapping[str, tuple[str, str]]:
    """File and RFC 6901 pointer by policy id, those an action implies included.

    Args:
        path: of an atlas that loads.
    """
    from cra_mcp.atlas.assembly import assemble  # noqa: PLC0415 - pydantic only where an atlas is read

    parts = assemble(read_package(path))
    places = {item.part.policy_id: (item.place.file, item.place.at) for item in parts.policies}
    for item in parts.actions:
        for key in ("requires_confirmation", "rate_limit"):
            place = item.place.below(key)
            places[f"action:{item.part.action_id}:{key}"] = (place.file, place.at)
    return places
