"""Names and schemas that hosts reject or change, and secrets in what is published.

Rule: of names and schemas, what is published is looked at, not what is written: the server makes most schemas portable by itself.
Source: specs/policy.md, "Linting"; specs/mcp.md, "Tools"; the published limits of hosts.
"""

from collections.abc import Iterator, Mapping
from typing import cast

from cra_mcp.analysis.findings import Finding, found
from cra_mcp.analysis.subject import Source, Subject, Written
from cra_mcp.atlas.declared import takes_undeclared
from cra_mcp.atlas.dialects import Translation, translate
from cra_mcp.atlas.json_pointer import pointer
from cra_mcp.atlas.keywords import BOUNDS, KEYWORDS, meant_by
from cra_mcp.atlas.model import Action
from cra_mcp.atlas.names import MAX_LENGTH
from cra_mcp.atlas.portable import PROPERTY_NAME, portable
from cra_mcp.atlas.schema_graph import Graph
from cra_mcp.trace.detect.detectors import Detectors
from cra_mcp.trace.detect.rules import BUILT_IN, EMAIL, NAMED

_ROOT_KEYWORDS = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "$ref", "$dynamicRef")
_SAMPLES = ("default", "examples", "example", "const", "enum")
_SCHEMA_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_MAX_DEPTH = 128
_BY_VALUE = Detectors([name for name in BUILT_IN if name not in {EMAIL, NAMED}])
_BY_NAME = Detectors([name for name in BUILT_IN if name != EMAIL])


def lint_schemas(subject: Subject) -> Iterator[Finding]:
    """What is read and published otherwise than it is written."""
    for source in subject.sources:
        for action in source.atlas.actions if source.atlas is not None else ():
            yield from _schemas(action, source.actions[action.action_id])


def lint_hosts(subject: Subject) -> Iterator[Finding]:
    """What hosts make of the published names and schemas."""
    for source in subject.sources:
        for action in source.atlas.actions if source.atlas is not None else ():
            yield from _names(action, source.actions[action.action_id])
            if takes_undeclared(action.parameters_schema):
                message = (
                    "takes arguments it doesn't declare, as hosts and models make them up: say additionalProperties"
                )
                yield found("undeclared_arguments", source.actions[action.action_id], "/parameters_schema", message)
    yield from lint_schemas(subject)


def _names(action: Action, where: Written) -> Iterator[Finding]:
    name = action.published_name
    if len(name) > MAX_LENGTH:
        message = f"{len(name)} characters are too many with the prefix some hosts add: use at most {MAX_LENGTH}"
        yield found("long_name", where, "/publish/name", message)


def _schemas(action: Action, where: Written) -> Iterator[Finding]:
    for key in ("parameters_schema", "returns_schema"):
        written = where.raw.get(key)
        if isinstance(written, dict):
            translation = translate(cast("dict[str, object]", written))
            yield from _translated(translation, where, f"/{key}")
            yield from _misspelt(translation, where, f"/{key}")
            if action.publication.kind == "tool":
                yield from _published(action, translation, where, key)


def _translated(translation: Translation, where: Written, at: str) -> Iterator[Finding]:
    if translation.is_changed:
        message = "is of an older dialect: it is read, checked and published as 2020-12"
        yield found("translated_schema", where, at, message)
    for below, message in translation.dropped.items():
        yield found("ignored_keyword", where, at + below, message)


def _misspelt(translation: Translation, where: Written, at: str) -> Iterator[Finding]:
    for node in Graph(translation.schema).nodes:
        for keyword in node.schema.keys() - KEYWORDS:
            meant = meant_by(keyword)
            if meant in BOUNDS:
                below = translation.origin(pointer(*node.at, keyword))
                yield found("misspelt_keyword", where, at + below, f"is ignored: {meant} is meant")


def _published(action: Action, translation: Translation, where: Written, key: str) -> Iterator[Finding]:
    if key == "parameters_schema":
        properties = cast("Mapping[str, object]", translation.schema.get("properties", {}))
        for name in properties:
            if not PROPERTY_NAME.fullmatch(name):
                message = "a name has at most 64 letters, digits, _, . and -: for any other some hosts refuse all tools"
                yield found("rejected_property", where, f"/{key}{pointer('properties', name)}", message)
        if action.publication.exact_schema:
            yield from _exact(translation, where)
            return
    elif translation.schema.get("type") != "object":
        message = "is not published: hosts take an output schema of an object only"
        yield found("returns_not_object", where, f"/{key}", message)
        return
    for change in portable(translation.schema, "returns" if key == "returns_schema" else "parameters").changes:
        code = "rewritten_pattern" if change.is_same else "loosened_schema"
        yield found(code, where, f"/{key}{translation.origin(change.pointer)}", change.what)


def _exact(translation: Translation, where: Written) -> Iterator[Finding]:
    for keyword in _ROOT_KEYWORDS:
        if keyword in translation.schema:
            message = f"hosts refuse {keyword} at the root, some of them the whole server for it: publish it portable"
            yield found("rejected_schema", where, f"/parameters_schema/{keyword}", message)


# --- secrets -----------------------------------------------------------------------------------------------------------


def lint_secrets(subject: Subject) -> Iterator[Finding]:
    """Secrets in defaults and examples of schemas, and in anything else that is written."""
    for source in subject.sources:
        for where in _written(source):
            seen: set[str] = set()
            for at, detector in (*_in_schemas(where.raw), *_in_texts(where.raw)):
                if at not in seen:
                    seen.add(at)
                    message = f"holds what looks like a secret ({detector}): it would be told to every host and model"
                    yield found("secret", where, at, message)


def _written(source: Source) -> Iterator[Written]:
    yield from source.actions.values()
    yield from (where for _, where in source.policies if where is not None)
    yield from source.upstreams


def _in_texts(raw: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """By their form, anywhere."""
    yield from ((each.pointer, each.detector) for each in _BY_VALUE.value(dict(raw))[1])


def _in_schemas(raw: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """By the name of the property, too, in samples that a schema gives for it."""
    for key in ("parameters_schema", "returns_schema"):
        yield from _samples(raw.get(key), "", f"/{key}", 0)


def _samples(schema: object, name: str, at: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(schema, list):
        for index, each in enumerate(cast("list[object]", schema)):
            yield from _samples(each, name, f"{at}/{index}", depth + 1)
    elif isinstance(schema, dict):
        members = cast("dict[str, object]", schema)
        for key, value in members.items():
            below = f"{at}/{key.replace('~', '~0').replace('/', '~1')}"
            if key in _SAMPLES:
                hidden = _BY_NAME.value({name or "value": value})[1]
                yield from ((below, each.detector) for each in hidden[:1])
            elif key in _SCHEMA_MAPS and isinstance(value, dict):
                for inner, each in cast("dict[str, object]", value).items():
                    step = inner.replace("~", "~0").replace("/", "~1")
                    yield from _samples(each, inner, f"{below}/{step}", depth + 1)
            else:
                yield from _samples(value, name, below, depth + 1)
