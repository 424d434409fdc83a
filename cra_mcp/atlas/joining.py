"""A reference and what stands beside it, in one schema.

Rule: the result says what both say together, to readers of every dialect. Source: JSON Schema 2020-12 (core, section 10).
"""

from collections.abc import Mapping
from typing import Any, Final

ANNOTATIONS: Final = frozenset({"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"})

_GROUPS = (
    frozenset({"properties", "patternProperties", "additionalProperties"}),
    frozenset({"items", "prefixItems", "contains", "maxItems"}),
    frozenset({"if", "then", "else"}),
)
"""Keywords of which one means something else beside another."""


def joined(target: dict[str, Any], siblings: dict[str, Any]) -> dict[str, Any]:
    """Both, in one schema if no keyword of one means something else beside the other's, else under ``allOf``."""
    annotations = {key: value for key, value in siblings.items() if key in ANNOTATIONS}
    rules = {key: value for key, value in siblings.items() if key not in ANNOTATIONS}
    if "required" in rules and "required" in target:
        rules["required"] = [
            *target["required"],
            *(name for name in rules["required"] if name not in target["required"]),
        ]
    if "properties" in rules and "properties" in target and not _share(target, rules):
        rules["properties"] = {**target["properties"], **rules["properties"]}
        target = {key: value for key, value in target.items() if key != "properties"}
    differ = any(target.get(key, value) != value for key, value in rules.items() if key != "required")
    mixed = any(group & rules.keys() and group & target.keys() for group in _GROUPS)
    if not differ and not mixed:
        return {**target, **rules, **annotations}
    return {**annotations, "allOf": [target, rules]}


def _share(target: Mapping[str, Any], rules: Mapping[str, Any]) -> bool:
    """Whether the properties of one are something to the other: by name, or as additional ones."""
    others = ("patternProperties", "additionalProperties")
    by_name = target["properties"].keys() & rules["properties"].keys()
    return bool(by_name) or any(key in each for each in (target, rules) for key in others)
