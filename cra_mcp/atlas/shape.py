"""From a value to its model, or to problems that say where it breaks the form.

Rule: a pointer always leads to something that is in the file: what is missing is reported at the object that lacks it.
Messages never repeat values.
Source: specs/atlas.md, "Problems"; RFC 6901.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from cra_mcp.atlas.fields import ATLAS_VERSION
from cra_mcp.atlas.json_pointer import pointer
from cra_mcp.atlas.policy_form import AllowPart, ApprovalPart, BudgetPart, DenyPart, PolicyPart, RateLimitPart
from cra_mcp.atlas.required_forms import no_field, required
from cra_mcp.errors import Problem

_M = TypeVar("_M", bound=BaseModel)
_T = TypeVar("_T")

_CODES = {
    "missing": "missing_field",
    "union_tag_not_found": "missing_field",
    "extra_forbidden": "unknown_field",
    "literal_error": "invalid_value",
    "union_tag_invalid": "invalid_value",
    "string_pattern_mismatch": "invalid_format",
}
_OUT_OF_RANGE = ("too_short", "too_long", "greater_than", "less_than", "finite_number")
_MESSAGES = {
    "missing": "field {field} is missing",
    "union_tag_not_found": "field type is missing",
    "union_tag_invalid": "there is no such type",
    "extra_forbidden": "there is no such field",
}
_POLICY_MODELS: Mapping[object, type[PolicyPart]] = {
    "deny": DenyPart,
    "allow": AllowPart,
    "require_approval": ApprovalPart,
    "requires_approval": ApprovalPart,
    "rate_limit": RateLimitPart,
    "budget": BudgetPart,
}


class Place:
    """Where a value stands: a file and a pointer into it. Collects the problems found there."""

    __slots__ = ("at", "file", "problems")

    def __init__(self, file: str, at: str, problems: list[Problem]) -> None:
        self.file = file
        self.at = at
        self.problems = problems

    def below(self, *steps: str | int) -> "Place":
        """The place of a value inside this one."""
        return Place(self.file, self.at + pointer(*steps), self.problems)

    def add(self, code: str, message: str, column: int | None = None) -> None:
        """Report a problem here; ``column`` is the position in the text that stands here."""
        self.problems.append(Problem(self.file, self.at, code, message, column))


def as_object(value: object, place: Place) -> Mapping[str, object] | None:
    """The value if it is a JSON object."""
    if isinstance(value, dict):
        return cast("dict[str, object]", value)
    place.add("wrong_type", "must be an object")
    return None


def as_array(value: object, place: Place) -> Sequence[object] | None:
    """The value if it is a JSON array."""
    if isinstance(value, list):
        return cast("list[object]", value)
    place.add("wrong_type", "must be an array")
    return None


def as_model(model: type[_M], value: object, place: Place) -> _M | None:
    """The value as a model; None, and problems, if it does not have its form."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        _report(error, value, place, model)
        return None


def as_type(adapter: TypeAdapter[_T], value: object, place: Place) -> _T | None:
    """The same for a type that is not a model."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        _report(error, value, place)
        return None


def as_policy(value: object, place: Place) -> PolicyPart | None:
    """The value as the kind of policy its ``type`` says."""
    raw = as_object(value, place)
    if raw is None:
        return None
    kind = raw.get("type")
    model = _POLICY_MODELS.get(kind) if isinstance(kind, str) else None
    if model is not None:
        return as_model(model, value, place)
    if "type" not in raw:
        place.add("missing_field", "field type is missing")
    else:
        known = ", ".join(str(name) for name in _POLICY_MODELS)
        place.below("type").add("invalid_value", f"must be one of {known}")
    return None


def _report(error: ValidationError, value: object, place: Place, model: type[BaseModel] | None = None) -> None:
    for fault in error.errors(include_url=False, include_input=False):
        steps = steps_in(value, fault["loc"])
        code, message = _describe(fault)
        if model is not None and fault["type"] == "extra_forbidden":
            message = no_field(model, fault["loc"])
        place.below(*steps).add(code, message)


def steps_in(value: object, location: Sequence[str | int]) -> list[str | int]:
    """The part of a model's location that is in the value: no names of union members, nothing that is missing."""
    steps: list[str | int] = []
    for step in location:
        if isinstance(value, dict) and step in value:
            value = cast("dict[str | int, object]", value)[step]
        elif isinstance(value, list) and isinstance(step, int) and step < len(cast("list[object]", value)):
            value = cast("list[object]", value)[step]
        else:
            continue
        steps.append(step)
    return steps


def _describe(fault: ErrorDetails) -> tuple[str, str]:
    kind = fault["type"]
    field = str(fault["loc"][-1]) if fault["loc"] else ""
    if fault["loc"] == ("atlas_version",) and kind == "literal_error":
        return "unsupported_version", f"this version of the format is not supported: use {ATLAS_VERSION}"
    code = _CODES.get(kind)
    if code is None:
        code = "out_of_range" if any(mark in kind for mark in _OUT_OF_RANGE) else "wrong_type"
    message = _MESSAGES.get(kind, fault["msg"])
    if kind == "string_pattern_mismatch":
        message = required(fault.get("ctx", {}).get("pattern"))
    elif kind == "missing":
        message = message.format(field=field)
    return code, message[:1].lower() + message[1:]
