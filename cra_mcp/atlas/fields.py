"""What the forms of an atlas are made of: kinds of values, and what all parts share.

Rule: unknown fields are errors and nothing is coerced; null never stands for "left out". Source: specs/atlas.md, "Manifest".
"""

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from cra_mcp.atlas.dialects import translate

ATLAS_VERSION = "1.0"

_DOTTED = r"(\.[a-z0-9][a-z0-9_-]*)"
_NUMBER = r"(0|[1-9][0-9]*)"
_LABEL = r"(0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)"
_VERSION = rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_LABEL}(\.{_LABEL})*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?"
_COMPARATORS = rf"(\^|~|>=|<=|>|<|=)?{_VERSION}( (\^|~|>=|<=|>|<|=)?{_VERSION})*"
# Not in what people read: control characters (a terminal obeys them) and characters that reorder text.
_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*$"
_LINES = r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]*$"

T = TypeVar("T")


def _whole(value: object) -> object:
    """JSON doesn't tell 1.0 from 1, so neither do we."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _boolean(value: object) -> object:
    """A Literal takes 1 for True."""
    if not isinstance(value, bool):
        raise PydanticCustomError("bool_type", "Input should be a valid boolean")
    return value


def _not_null(value: object) -> object:
    if value is None:
        raise PydanticCustomError("null", "null is not a value here: leave the field out")
    return value


def _of_2020(schema: dict[str, object]) -> dict[str, object]:
    return dict(translate(schema).schema)


Whole = BeforeValidator(_whole)
Absent = Annotated[T | None, BeforeValidator(_not_null)]
"""A field that may be left out; None says so, and never stands in the file."""

Line = Annotated[str, Field(min_length=1, max_length=500, pattern=_LINE)]
Lines = Annotated[str, Field(min_length=1, max_length=10_000, pattern=_LINES)]
Argument = Annotated[str, Field(max_length=4_096, pattern=r"^[^\x00]*$")]
Address = Annotated[str, Field(max_length=2_048, pattern=r"^[a-z][a-z0-9+.-]*:[^\x00-\x20\x7f]+$")]
WebAddress = Annotated[str, Field(max_length=2_048, pattern=r"^(https?://|\$\{)[^\x00-\x20\x7f]+$")]
HttpAddress = Annotated[str, Field(max_length=8_192, pattern=r"^https?://[^\x00-\x20\x7f]+$")]
SemanticVersion = Annotated[str, Field(max_length=128, pattern=rf"^{_VERSION}$")]
VersionRange = Annotated[str, Field(max_length=256, pattern=rf"^(\*|{_COMPARATORS}( \|\| {_COMPARATORS})*)$")]
AtlasId = Annotated[str, Field(max_length=128, pattern=r"^[a-z][a-z0-9]*(\.[a-z][a-z0-9-]*)+$")]
ActionId = Annotated[str, Field(max_length=128, pattern=rf"^[a-z][a-z0-9_-]*{_DOTTED}+$")]
ActionGlob = Annotated[str, Field(max_length=128, pattern=r"^[a-z0-9._*-]+$")]
DottedId = Annotated[str, Field(max_length=128, pattern=rf"^[a-z][a-z0-9_-]*{_DOTTED}*$")]
PolicyId = Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
LocalName = Annotated[str, Field(max_length=64, pattern=r"^[a-z][a-z0-9_-]*$")]
PublishedName = Annotated[str, Field(max_length=64, pattern=r"^[a-zA-Z][a-zA-Z0-9_-]*$")]
EnvironmentName = Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
HeaderName = Annotated[str, Field(max_length=128, pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
HeaderValue = Annotated[str, Field(max_length=4_096, pattern=r"^[^\x00-\x08\x0a-\x1f\x7f]*$")]
Glob = Annotated[str, Field(min_length=1, max_length=1_024, pattern=r"^[^\x00]*$")]
FieldName = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
Constant = Annotated[str, Field(max_length=4_096)] | int | float | bool
"""What a field is sent with; in a text, ``{name}`` is a parameter."""

JsonObject = dict[str, object]
AnySchema = Annotated[JsonObject, AfterValidator(_of_2020)]
"""A JSON Schema of any dialect that is known, read as 2020-12."""

Count = Annotated[int, Field(ge=1, le=1_000_000), Whole]
WindowSeconds = Annotated[int, Field(ge=1, le=31_536_000), Whole]
Amount = Annotated[float, Field(ge=0, le=1_000_000_000)]
AlwaysTrue = Annotated[Literal[True], BeforeValidator(_boolean)]
Tier = Literal["low", "medium", "high", "critical"]
Durability = Absent[
    Annotated[
        Literal["kernel", "durable"],
        Field(
            description="Whether what approves a call must survive a power cut before it runs, or only this process."
        ),
    ]
]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class Part(BaseModel):
    """What all parts share."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        model_title_generator=lambda model: model.__name__.removesuffix("Part"),
    )
