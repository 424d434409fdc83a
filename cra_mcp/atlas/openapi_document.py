"""An OpenAPI document: read strictly, and what is said about it.

Rule: nothing is fetched. A reference is followed inside the document only, and only so far; whatever can't be taken over
is a finding with its place, never silence.
Source: OpenAPI 3.1.1 and 3.0.4; RFC 6901; RFC 3986, 3.5 (percent-encoded pointers).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import unquote

from cra_mcp.atlas.json_pointer import pointer
from cra_mcp.errors import AtlasInvalidError, Problem

MAX_BYTES = 10_485_760
MAX_VALUES = 500_000
MAX_DEPTH = 64
_MAX_REFERENCES = 32
_VERSIONS = ("3.0.", "3.1.")


class UnconvertibleError(ValueError):
    """A part of a document has no place in an atlas.

    Attributes:
        at: JSON pointer to what is in the way.
    """

    def __init__(self, at: str, message: str) -> None:
        super().__init__(message)
        self.at = at


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was not taken over.

    Attributes:
        at: JSON pointer into the document.
        left_out: the operation that is missing from the atlas because of it; None if only a part of one is.
    """

    at: str
    message: str
    left_out: str | None = None

    def __str__(self) -> str:
        return f"#{self.at}: {self.message}" + (f" (left out: {self.left_out})" if self.left_out else "")


@dataclass(frozen=True, slots=True)
class Located:
    """A value and where it stands."""

    value: object
    at: str

    def get(self, *steps: str | int) -> "Located":
        """A member or item; its value is None where there is none."""
        value = self.value
        for step in steps:
            if isinstance(value, dict):
                value = cast("dict[str | int, object]", value).get(step)
            elif isinstance(value, list) and isinstance(step, int) and step < len(cast("list[object]", value)):
                value = cast("list[object]", value)[step]
            else:
                value = None
        return Located(value, self.at + pointer(*steps))

    def members(self) -> Mapping[str, object]:
        """The members of an object; none of anything else."""
        return cast("dict[str, object]", self.value) if isinstance(self.value, dict) else {}

    def items(self) -> list["Located"]:
        """The items of an array; none of anything else."""
        values = cast("list[object]", self.value) if isinstance(self.value, list) else []
        return [Located(value, f"{self.at}/{index}") for index, value in enumerate(values)]

    def text(self) -> str:
        """The value if it is a text, else an empty one."""
        return self.value if isinstance(self.value, str) else ""


@dataclass(slots=True)
class Document:
    """A document and what was found in it."""

    root: Mapping[str, object]
    findings: list[Finding] = field(default_factory=list[Finding])

    @property
    def top(self) -> Located:
        """All of it."""
        return Located(self.root, "")

    @property
    def is_3_0(self) -> bool:
        """Whether its schemas are those of OpenAPI 3.0, which are not quite JSON Schema."""
        return str(self.root.get("openapi")).startswith("3.0.")

    def note(self, at: str, message: str, left_out: str | None = None) -> None:
        """Say that something was not taken over."""
        finding = Finding(at, message, left_out)
        if finding not in self.findings:
            self.findings.append(finding)

    def target(self, reference: str, at: str) -> Located:
        """What a ``$ref`` at ``at`` leads to.

        Raises:
            UnconvertibleError: it leads out of the document, or nowhere.
        """
        if not reference.startswith("#"):
            raise UnconvertibleError(at, "a reference that leads out of the document is not followed")
        text = unquote(reference[1:])
        if text and not text.startswith("/"):
            raise UnconvertibleError(at, "a reference to an anchor is not supported")
        value: object = self.root
        steps: list[str | int] = []
        for token in text.split("/")[1:]:
            key = token.replace("~1", "/").replace("~0", "~")
            step = int(key) if _is_list(value) and key.isascii() and key.isdecimal() and len(key) < 10 else key  # noqa: PLR2004
            steps.append(step)
            value = Located(value, "").get(step).value
            if value is None:
                raise UnconvertibleError(at, "a reference that leads nowhere")
        return Located(value, pointer(*steps))

    def resolved(self, part: Located) -> Located:
        """A part with references at its root followed.

        Raises:
            UnconvertibleError: they lead out of the document, nowhere, or in a circle.
        """
        for _ in range(_MAX_REFERENCES):
            reference = part.get("$ref")
            if not isinstance(reference.value, str):
                return part
            part = self.target(reference.value, reference.at)
        raise UnconvertibleError(part.at, "references that lead on and on")


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def read_document(data: bytes, name: str) -> Document:
    """Read a document, JSON if its name ends so or it begins like JSON, else YAML 1.2.

    Raises:
        AtlasInvalidError: it is too large, not readable, or no OpenAPI 3.0 or 3.1 document.
    """
    if len(data) > MAX_BYTES:
        raise _invalid(name, "", "too_large", f"the document is over the limit of {MAX_BYTES} bytes")
    value = _json(data, name) if name.endswith(".json") or data.lstrip()[:1] == b"{" else _yaml(data, name)
    if not isinstance(value, dict):
        raise _invalid(name, "", "wrong_type", "an OpenAPI document is an object")
    root = cast("dict[str, object]", value)
    version = root.get("openapi")
    if not isinstance(version, str) or not version.startswith(_VERSIONS):
        at = "/openapi" if "openapi" in root else ""
        raise _invalid(name, at, "unsupported_version", "only OpenAPI 3.0 and 3.1 can be read (field openapi)")
    return Document(root)


def _yaml(data: bytes, name: str) -> object:
    from cra_mcp.atlas.yaml_text import YamlTextError, parse_yaml  # noqa: PLC0415 - only where YAML is read

    try:
        return parse_yaml(data)
    except YamlTextError as error:
        raise _invalid(name, "", "invalid_yaml", str(error)) from error


def _json(data: bytes, name: str) -> object:
    try:
        value: object = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_no_constant)
        _check_size(value)
    except json.JSONDecodeError as error:
        message = f"line {error.lineno} column {error.colno}: not JSON: {error.msg}"
        raise _invalid(name, "", "invalid_json", message) from error
    except UnicodeDecodeError as error:
        raise _invalid(name, "", "not_utf8", f"not UTF-8: bad byte at offset {error.start}") from error
    except _RefusedError as error:
        raise _invalid(name, error.at, "invalid_json", str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _invalid(name, "", "invalid_json", "a number beyond bounds, or nested too deep") from error
    return value


class _RefusedError(UnconvertibleError):
    """A document that is JSON, and yet not taken."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members: dict[str, object] = {}
    for key, value in pairs:
        if key in members:
            raise _RefusedError("", f"an object has the member {json.dumps(key[:100])} twice")
        members[key] = value
    return members


def _no_constant(name: str) -> object:
    raise _RefusedError("", f"{name} is not JSON")


def _check_size(value: object) -> None:
    """Refuse what is nested too deep, has too many values, or numbers no double can hold."""
    level = [Located(value, "")]
    count = 0
    for _ in range(MAX_DEPTH + 1):
        if not level:
            return
        inner: list[Located] = []
        for part in level:
            count += 1
            if isinstance(part.value, float) and not math.isfinite(part.value):
                raise _RefusedError(part.at, "a number beyond bounds")
            inner.extend(Located(member, part.at + pointer(key)) for key, member in part.members().items())
            inner.extend(part.items())
        if count > MAX_VALUES:
            raise _RefusedError("", f"more than {MAX_VALUES} values")
        level = inner
    raise _RefusedError(level[0].at, f"nested deeper than {MAX_DEPTH}")


def _invalid(name: str, at: str, code: str, message: str) -> AtlasInvalidError:
    return AtlasInvalidError(
        [Problem(name, at, code, message)], hint="give an OpenAPI 3.1 document in JSON or YAML 1.2"
    )
