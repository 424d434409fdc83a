"""The operator's policy file: its form, and reading it.

Rule: as in an atlas, unknown fields are errors, and every problem is told with its file and pointer.
Source: specs/policy.md, "Overlays".
"""

from collections.abc import Mapping
from typing import Annotated, Literal, cast

from pydantic import Field

from cra_mcp.atlas.assembly import MAX_ENTRIES, Item, is_utf8
from cra_mcp.atlas.checks import check_policy
from cra_mcp.atlas.fields import Absent, Lines, LocalName, Part
from cra_mcp.atlas.overlay import MAX_FILE_BYTES, Overlay
from cra_mcp.atlas.policy_form import PolicyPart
from cra_mcp.atlas.shape import Place, as_array, as_model, as_object, as_policy
from cra_mcp.atlas.yaml_text import YamlTextError, parse_yaml
from cra_mcp.canonical import parse_json, sha256_hex
from cra_mcp.errors import AtlasInvalidError, CanonicalError, Problem
from cra_mcp.policy.compiler import default_effect, policy_from_manifest
from cra_mcp.policy.model import Layer


class PolicyFileHead(Part):
    """A policy file without its policies."""

    overlay_id: Annotated[LocalName, Field(description="Goes before the ids of its policies.")] = "operator"
    description: Absent[Lines] = None
    default_effect: Absent[
        Annotated[
            Literal["allow", "deny"],
            Field(description="Where none of these policies decides; absent: deny if one is an allow, else allow."),
        ]
    ] = None


def parse_policy_file(data: bytes, name: str, *, yaml: bool) -> Overlay:
    """Read a policy file.

    Args:
        data: its bytes.
        name: what it is called in problems.
        yaml: whether it is YAML 1.2 and not JSON.

    Raises:
        AtlasInvalidError: with every problem found.
    """
    problems: list[Problem] = []
    place = Place(name, "", problems)
    raw = as_object(read_value(data, place, yaml=yaml), place)
    overlay = _overlay(raw, data, place) if raw is not None and not problems else None
    if overlay is None or problems:
        raise AtlasInvalidError(problems, hint='`cra-mcp docs policy`, "Overlays", says what a policy file holds')
    return overlay


def read_policies(data: bytes, *, yaml: bool) -> list[object]:
    """The policies of a file that ``parse_policy_file`` has read, as they are written."""
    value = parse_yaml(data) if yaml else parse_json(data, max_bytes=MAX_FILE_BYTES)
    return cast("dict[str, list[object]]", value)["policies"]


def read_value(data: bytes, place: Place, *, yaml: bool) -> object:
    """The JSON value of a text; an empty object, and a problem, if it has none."""
    try:
        return parse_yaml(data) if yaml else parse_json(data, max_bytes=MAX_FILE_BYTES)
    except YamlTextError as error:
        place.add("invalid_yaml", str(error))
    except CanonicalError as error:
        place.add("invalid_json" if is_utf8(data) else "not_utf8", error.message)
    return {}


def _overlay(raw: Mapping[str, object], data: bytes, place: Place) -> Overlay | None:
    head = as_model(PolicyFileHead, {key: value for key, value in raw.items() if key != "policies"}, place)
    entries = as_array(raw["policies"], place.below("policies")) if "policies" in raw else None
    if "policies" not in raw:
        place.add("missing_field", "field policies is missing")
    if entries is not None and len(entries) > MAX_ENTRIES:
        place.below("policies").add("out_of_range", f"more than {MAX_ENTRIES} policies")
        return None
    items = [
        item for item in (_item(entry, place.below("policies", at)) for at, entry in enumerate(entries or ())) if item
    ]
    seen: set[str] = set()
    for item in items:
        if item.part.policy_id in seen:
            item.place.below("policy_id").add("duplicate_id", f"policy_id {item.part.policy_id!r} is taken already")
        seen.add(item.part.policy_id)
        check_policy(item, ())
    if head is None or place.problems:
        return None
    policies = tuple(
        policy_from_manifest(item.raw, order, namespace=head.overlay_id) for order, item in enumerate(items, start=1)
    )
    layer = Layer(head.overlay_id, policies, default_effect(policies, head.default_effect))
    return Overlay("", sha256_hex(data), layer, tuple((item.place.file, item.place.at) for item in items))


def _item(entry: object, place: Place) -> Item[PolicyPart] | None:
    part = as_policy(entry, place)
    return None if part is None else Item(place, cast("Mapping[str, object]", entry), part)
