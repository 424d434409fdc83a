"""From the files of a package to its parts: parsed, merged, and each of the right shape.

Rule: one broken part hides no other: whatever can be read is handed on, whatever can't is a problem. Every part knows
the file and the place it came from.
Source: specs/atlas.md, "Package".
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast

from pydantic import BaseModel, TypeAdapter

from cra_mcp.atlas.case_form import TestFile
from cra_mcp.atlas.fields import LocalName
from cra_mcp.atlas.manifest import ActionPart, CapabilityPart, ContextPackPart, ManifestHead, UpstreamPart
from cra_mcp.atlas.package import MAX_PACKAGE_BYTES, Package
from cra_mcp.atlas.policy_form import PolicyPart
from cra_mcp.atlas.shape import Place, as_array, as_model, as_object, as_policy, as_type
from cra_mcp.canonical import parse_json
from cra_mcp.errors import CanonicalError, Problem

_MERGED_FOLDERS = ("policies", "actions", "adapters", "tests")
MAX_ENTRIES = 1_000
"""Entries of one list, all files together."""

MAX_UPSTREAMS = 100

_M = TypeVar("_M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class _Document:
    value: object


@dataclass(frozen=True, slots=True)
class Item(Generic[_M]):
    """One part that has its form."""

    place: Place
    raw: Mapping[str, object]
    part: _M


@dataclass(slots=True)
class Parts:
    """Everything of a package that has its form.

    Attributes:
        manifest: all of it as plain JSON, lists merged; complete only if there are no problems.
        declared: ids as they stand in the files, of parts without the right form too, by list.
    """

    package: Package
    problems: list[Problem]
    head: ManifestHead | None = None
    capabilities: list[Item[CapabilityPart]] = field(default_factory=list[Item[CapabilityPart]])
    context_packs: list[Item[ContextPackPart]] = field(default_factory=list[Item[ContextPackPart]])
    policies: list[Item[PolicyPart]] = field(default_factory=list[Item[PolicyPart]])
    actions: list[Item[ActionPart]] = field(default_factory=list[Item[ActionPart]])
    upstreams: dict[str, Item[UpstreamPart]] = field(default_factory=dict[str, Item[UpstreamPart]])
    tests: list[Item[TestFile]] = field(default_factory=list[Item[TestFile]])
    manifest: dict[str, object] = field(default_factory=dict[str, object])
    declared: dict[str, set[str]] = field(default_factory=dict[str, set[str]])


_IDS = {"capabilities": "capability_id", "context_packs": "pack_id", "policies": "policy_id", "actions": "action_id"}
_NAME: TypeAdapter[str] = TypeAdapter(LocalName)


def assemble(package: Package) -> Parts:
    """Read all parts of a package."""
    parts = Parts(package, list(package.problems), declared={name: set() for name in (*_IDS, "upstreams")})
    place = Place(package.manifest, "", parts.problems)
    manifest = _document(place, parts)
    raw = None if manifest is None else as_object(manifest.value, place)
    if raw is not None:
        _take_manifest(raw, place, parts)
    if package.root is not None:
        _take_folders(parts)
    for name in _IDS:
        if len(_merged_list(parts, name)) > MAX_ENTRIES:
            place.add("out_of_range", f"more than {MAX_ENTRIES} {name}")
    return parts


def _document(place: Place, parts: Parts) -> _Document | None:
    """One JSON file of the package; None if it isn't there or isn't JSON."""
    data = parts.package.files.get(place.file)
    if data is None:
        return None
    try:
        return _Document(parse_json(data, max_bytes=MAX_PACKAGE_BYTES))
    except CanonicalError as error:
        place.add("invalid_json" if is_utf8(data) else "not_utf8", error.message)
        return None


def is_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8 text."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _take_manifest(raw: Mapping[str, object], place: Place, parts: Parts) -> None:
    head = {name: value for name, value in raw.items() if name not in parts.declared}
    parts.manifest = dict(head)
    parts.head = as_model(ManifestHead, head, place)
    for name in _IDS:
        if name in raw:
            entries = as_array(raw[name], place.below(name))
            for index, entry in enumerate(entries or ()):
                _take_entry(name, entry, place.below(name, index), parts)
    if "upstreams" in raw:
        _take_upstreams(raw["upstreams"], place.below("upstreams"), parts)


def _take_upstreams(raw: object, place: Place, parts: Parts) -> None:
    entries = as_object(raw, place)
    if entries is None:
        return
    parts.manifest["upstreams"] = dict(entries)
    parts.declared["upstreams"].update(entries)
    if len(entries) > MAX_UPSTREAMS:
        place.add("out_of_range", f"more than {MAX_UPSTREAMS} upstreams")
    for name, entry in entries.items():
        as_type(_NAME, name, place.below(name))
        part = as_model(UpstreamPart, entry, place.below(name))
        if part is not None:
            parts.upstreams[name] = Item(place.below(name), cast("Mapping[str, object]", entry), part)


def _take_entry(name: str, raw: object, place: Place, parts: Parts) -> None:
    _merged_list(parts, name).append(raw)
    declared = _text(raw, _IDS[name])
    if declared is not None:
        if declared in parts.declared[name]:
            place.below(_IDS[name]).add("duplicate_id", f"{_IDS[name]} {declared!r} is taken already")
        parts.declared[name].add(declared)
    match name:
        case "policies":
            _keep(parts.policies, as_policy(raw, place), raw, place)
        case "actions":
            _keep(parts.actions, as_model(ActionPart, raw, place), raw, place)
        case "capabilities":
            _keep(parts.capabilities, as_model(CapabilityPart, raw, place), raw, place)
        case _:
            _keep(parts.context_packs, as_model(ContextPackPart, raw, place), raw, place)


def _text(raw: object, key: str) -> str | None:
    value = cast("dict[str, object]", raw).get(key) if isinstance(raw, dict) else None
    return value if isinstance(value, str) else None


def _keep(items: list[Item[_M]], part: _M | None, raw: object, place: Place) -> None:
    if part is not None:
        items.append(Item(place, cast("Mapping[str, object]", raw), part))


def _take_folders(parts: Parts) -> None:
    for file in sorted(parts.package.files):
        folder, _, rest = file.partition("/")
        if folder not in _MERGED_FOLDERS or not rest:
            continue
        place = Place(file, "", parts.problems)
        if "/" in rest or not rest.endswith(".json"):
            place.add("unexpected_file", f"{folder}/ holds .json files only: this one would have no effect")
            continue
        document = _document(place, parts)
        if document is None:
            continue
        if folder == "adapters":
            _take_adapter(rest.removesuffix(".json"), document.value, place, parts)
            continue
        for raw, at in entries_of(document.value, place):
            if folder == "tests":
                _keep(parts.tests, as_model(TestFile, raw, at), raw, at)
            else:
                _take_entry(folder, raw, at, parts)


def entries_of(value: object, place: Place) -> Iterator[tuple[object, Place]]:
    """One object, or the entries of an array."""
    if isinstance(value, list):
        for index, entry in enumerate(cast("list[object]", value)):
            yield entry, place.below(index)
    else:
        yield value, place


def _take_adapter(name: str, value: object, place: Place, parts: Parts) -> None:
    adapters = parts.manifest.setdefault("adapters", {})
    if as_type(_NAME, name, place) is None or as_object(value, place) is None or not isinstance(adapters, dict):
        return
    known = cast("dict[str, object]", adapters)
    if name in known:
        place.add("duplicate_id", f"adapter {name!r} is in the manifest already")
    parts.manifest["adapters"] = {**known, name: value}


def _merged_list(parts: Parts, name: str) -> list[object]:
    return cast("list[object]", parts.manifest.setdefault(name, []))
