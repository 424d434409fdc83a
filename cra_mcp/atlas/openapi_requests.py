"""The parameters, body and secrets of one OpenAPI operation, as those of an action.

Rule: everything an operation takes becomes a parameter of one schema under a name that is its own; what can't be sent as the
document says makes the operation unconvertible where it is required, and is a finding where it is not.
Source: OpenAPI 3.1.1, 4.8.12 (Parameter Object), 4.8.13 (Request Body Object), 4.8.27 (Security Scheme Object).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from cra_mcp.atlas.http_checks import RESERVED_HEADERS
from cra_mcp.atlas.openapi_document import Document, Located, UnconvertibleError
from cra_mcp.atlas.openapi_schemas import SchemaWriter, checked, readable, types_of

JSON_TYPE = re.compile(r"application/(?:[a-z0-9.+-]+\+)?json(?:;.*)?", re.IGNORECASE)
_FORM_TYPE = "application/x-www-form-urlencoded"
_SCALARS = frozenset({"string", "number", "integer", "boolean"})
_IGNORED_HEADERS = frozenset({"accept", "content-type", "authorization"})
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_VARIABLE_NAME = re.compile(r"[A-Za-z0-9_]{1,60}")
_PLACES = ("path", "query", "header")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_]+")
_NOT_IN_A_VARIABLE = re.compile(r"[^A-Z0-9]+")
_MERGED = frozenset(
    {
        *("type", "properties", "required", "additionalProperties", "title", "description", "example", "examples"),
        *("nullable", "externalDocs", "xml", "deprecated"),
    }
)
_PATH_STYLES = {"simple": "", "label": ".", "matrix": ";"}


@dataclass(slots=True)
class Request:
    """What an operation takes, in the making."""

    document: Document
    writer: SchemaWriter
    properties: dict[str, object] = field(default_factory=dict[str, object])
    required: list[str] = field(default_factory=list[str])
    path: dict[str, str] = field(default_factory=dict[str, str])
    more: list[str] = field(default_factory=list[str])
    query: dict[str, object] = field(default_factory=dict[str, object])
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: dict[str, object] | None = None
    secrets: dict[str, object] = field(default_factory=dict[str, object])

    def schema(self, at: str) -> dict[str, object]:
        """The schema of all parameters.

        Raises:
            UnconvertibleError: it can't be used.
        """
        schema: dict[str, object] = {"type": "object", "properties": self.properties}
        if self.required:
            schema["required"] = self.required
        schema["additionalProperties"] = False
        definitions = self.writer.definitions()
        if definitions:
            schema["$defs"] = definitions
        return checked(schema, self.document, at, object_root=True)

    def executor(self, method: str, server: str, path: str) -> dict[str, object]:
        """The executor of it all."""
        written = re.sub(r"\{([^{}]*)\}", lambda found: self.path.get(found[1], found[0]), path)
        query = f"{{?{','.join(self.more)}}}" if self.more else ""
        executor: dict[str, object] = {"type": "http", "method": method.upper(), "url": f"{server}{written}{query}"}
        parts = {"query": self.query, "headers": self.headers, "body": self.body, "secrets": self.secrets}
        return {**executor, **{name: part for name, part in parts.items() if part}}

    def add(self, name: str, place: str, schema: object, description: str, *, required: bool) -> str:
        """Declare a parameter and give it a name: its own as far as it can be one, else with its place before it."""
        own = _NOT_IN_A_NAME.sub("_", name).strip("_")[:60] or "value"
        chosen, number = own, 1
        while chosen in self.properties:
            chosen = f"{place}_{own}" if number == 1 else f"{place}_{own}_{number}"
            number += 1
        if description and isinstance(schema, dict) and "description" not in schema:
            schema = {**cast("dict[str, object]", schema), "description": readable(description)}
        self.properties[chosen] = schema
        if required:
            self.required.append(chosen)
        return chosen


# --- parameters --------------------------------------------------------------------------------------------------------


def take_parameters(request: Request, item: Located, operation: Located) -> None:
    """Take over path, query and header parameters; those of the operation replace those of its path.

    Raises:
        UnconvertibleError: a required one can't be sent.
    """
    known: dict[tuple[str, str], Located] = {}
    for part in (*item.get("parameters").items(), *operation.get("parameters").items()):
        parameter = request.document.resolved(part)
        known[parameter.get("in").text(), parameter.get("name").text()] = parameter
    for place in _PLACES:
        for (where, name), parameter in known.items():
            if where == place:
                _take(request, place, name, parameter)
    for (where, name), parameter in known.items():
        if where not in _PLACES:
            _leave(request, parameter, f"a parameter in {where[:20] or 'no place'} ({name[:60]})")


def _leave(request: Request, parameter: Located, what: str) -> None:
    if parameter.get("required").value is True or parameter.get("in").text() == "path":
        raise UnconvertibleError(parameter.at, f"{what} can't be sent, and it is required")
    request.document.note(parameter.at, f"{what} can't be sent, so it was left out")


def _take(request: Request, place: str, name: str, parameter: Located) -> None:
    schema = parameter.get("schema")
    if not name or schema.value is None:
        _leave(request, parameter, f"{name[:60] or 'a parameter'}, which is not described by a schema,")
        return
    if place == "header" and name.lower() in _IGNORED_HEADERS:
        request.document.note(parameter.at, f"the header {name} is not a parameter in OpenAPI")
        return
    reason = _obstacle(request, place, name, parameter)
    if reason:
        _leave(request, parameter, reason)
        return
    required = place == "path" or parameter.get("required").value is True
    written = request.writer.write(schema)
    if place == "header":
        written = _with_type(request, schema, written)
    chosen = request.add(name, place, written, parameter.get("description").text(), required=required)
    if chosen != name and (parameter.get("style").text() == "matrix" or _is_joined(request, parameter)):
        raise UnconvertibleError(parameter.at, f"{name[:60]} shares its name, which has to stand in the URL template")
    if place == "path":
        style = _PATH_STYLES[parameter.get("style").text() or "simple"]
        explode = "*" if parameter.get("explode").value is True else ""
        request.path[name] = f"{{{style}{chosen}{explode}}}"
    elif place == "header":
        request.headers[name] = f"{{{chosen}}}"
    elif _is_joined(request, parameter):
        request.more.append(chosen)
    else:
        request.query[name] = f"{{{chosen}}}"


def _obstacle(request: Request, place: str, name: str, parameter: Located) -> str | None:
    """Why a parameter can't be sent."""
    types = types_of(request.document, parameter.get("schema"))
    style = parameter.get("style").text()
    if "object" in types:
        return f"{name[:60]}, an object in the {place},"
    if place == "header":
        return _header_obstacle(name, types)
    if place == "query" and style not in ("", "form") and "array" in types:
        return f"{name[:60]}, of style {style[:20]},"
    if place == "path" and style not in ("", *_PATH_STYLES):
        return f"{name[:60]}, of style {style[:20]},"
    if (style == "matrix" or _is_joined(request, parameter)) and not _VARIABLE_NAME.fullmatch(name):
        return f"{name[:60]}, whose name can't stand in a URL template,"
    return None


def _header_obstacle(name: str, types: frozenset[str]) -> str | None:
    if not _HEADER.fullmatch(name) or name.lower() in RESERVED_HEADERS or name.lower() == "cookie":
        return f"the header {name[:60]}, which is not the atlas's to set,"
    if not types or not types <= _SCALARS:
        return f"the header {name[:60]}, which is not a text, number or boolean,"
    return None


def _is_joined(request: Request, parameter: Located) -> bool:
    """Whether it is a list that is sent as one field, its items between commas."""
    return (
        parameter.get("in").text() == "query"
        and parameter.get("explode").value is False
        and "array" in types_of(request.document, parameter.get("schema"))
    )


def _with_type(request: Request, schema: Located, written: object) -> object:
    """A header's schema must itself say that it is no list: no reference, which would have to be followed."""
    rules = cast("dict[str, object]", written) if isinstance(written, dict) else {}
    return (
        rules if "type" in rules or "enum" in rules else {**rules, "type": sorted(types_of(request.document, schema))}
    )


# --- body --------------------------------------------------------------------------------------------------------------


def take_body(request: Request, operation: Located) -> None:
    """Take over the body: the members of an object as parameters, anything else as the parameter ``body``.

    Raises:
        UnconvertibleError: it is required and can't be sent.
    """
    if operation.get("requestBody").value is None:
        return
    body = request.document.resolved(operation.get("requestBody"))
    required = body.get("required").value is True
    kind = _kind_of(request, body, required=required)
    if kind is None:
        return
    schema = body.get("content", kind, "schema")
    if schema.value is None:
        schema = Located({}, schema.at)
    plain = request.document.resolved(schema)
    if kind == _FORM_TYPE:
        _take_form(request, plain, required=required)
        return
    if kind.partition(";")[0].lower() != "application/json":
        request.headers["Content-Type"] = kind.partition(";")[0]
    if _is_merged(plain, required=required):
        request.body = {"json": _take_members(request, plain, required=required)}
    else:
        written = request.writer.write(schema)
        chosen = request.add("body", "request", written, body.get("description").text(), required=required)
        request.body = {"json": f"{{{chosen}}}"}


def _kind_of(request: Request, body: Located, *, required: bool) -> str | None:
    """The media type that is sent; None if there is none that can be."""
    kinds = body.get("content").members()
    kind = next((name for name in kinds if JSON_TYPE.fullmatch(name)), _FORM_TYPE if _FORM_TYPE in kinds else None)
    if kind is None:
        what = "a body that is neither JSON nor a form"
        if required:
            raise UnconvertibleError(body.at, f"{what} can't be sent, and it is required")
        request.document.note(body.at, f"{what} can't be sent, so it was left out")
        return None
    for other in kinds:
        if other != kind:
            request.document.note(body.get("content", other).at, f"{kind} is sent instead")
    return kind


def _take_form(request: Request, schema: Located, *, required: bool) -> None:
    if not required and schema.get("required").items():
        request.document.note(schema.at, "a form with required fields is always sent, although it may be left out")
        required = True
    if not _is_merged(schema, required=required):
        raise UnconvertibleError(schema.at, "a form must be an object whose fields are named")
    for name in schema.get("properties").members():
        part = schema.get("properties", name)
        types = types_of(request.document, part)
        if not types <= _SCALARS | {"array"} or not types:
            raise UnconvertibleError(part.at, "a field of a form must be a text, number, boolean or a list of them")
    request.body = {"form": _take_members(request, schema, required=required)}


def _is_merged(schema: Located, *, required: bool) -> bool:
    """Whether the members of a body can stand beside the other parameters, with nothing lost."""
    rules = schema.members()
    if schema.get("type").value not in ("object", None) or not schema.get("properties").members():
        return False
    if any(name not in _MERGED and not name.startswith("x-") for name in rules):
        return False
    if rules.get("additionalProperties", True) not in (True, False):
        return False
    return required or not schema.get("required").items()


def _take_members(request: Request, schema: Located, *, required: bool) -> dict[str, object]:
    needed = {item.value for item in schema.get("required").items()} if required else set[object]()
    template: dict[str, object] = {}
    for name in schema.get("properties").members():
        part = schema.get("properties", name)
        if request.document.resolved(part).get("readOnly").value is True or part.get("readOnly").value is True:
            continue
        chosen = request.add(name, "body", request.writer.write(part), "", required=name in needed)
        template[name] = f"{{{chosen}}}"
    for name in sorted(str(each) for each in needed if each not in schema.get("properties").members()):
        raise UnconvertibleError(schema.at, f"the required member {name[:60]} is not described")
    return template


# --- secrets -----------------------------------------------------------------------------------------------------------


def take_security(request: Request, operation: Located, prefix: str) -> None:
    """Take over the first way to be let in that can be: credentials by reference to the environment.

    Raises:
        UnconvertibleError: there is none.
    """
    security = operation.get("security")
    ways = (security if isinstance(security.value, list) else request.document.top.get("security")).items()
    if not ways:
        return
    obstacles: list[UnconvertibleError] = []
    for way in sorted(ways, key=lambda each: not each.members()):
        try:
            request.secrets = _secrets(request.document, way, prefix)
        except UnconvertibleError as error:
            obstacles.append(error)
            continue
        for error in obstacles:
            request.document.note(error.at, f"{error}; another way to be let in is used")
        return
    raise obstacles[0]


def _secrets(document: Document, way: Located, prefix: str) -> dict[str, object]:
    secrets: dict[str, object] = {}
    for name in way.members():
        declared = document.top.get("components", "securitySchemes", name)
        if declared.value is None:
            raise UnconvertibleError(way.at, f"there is no security scheme {name[:60]}")
        field_name, secret = _secret(document.resolved(declared), _variable(prefix, name))
        if any(field_name.lower() == other.lower() for other in secrets):
            raise UnconvertibleError(way.at, f"two credentials for the same field {field_name[:60]}")
        secrets[field_name] = secret
    return secrets


def _variable(prefix: str, name: str) -> str:
    text = _NOT_IN_A_VARIABLE.sub("_", f"{prefix}_{name}".upper()).strip("_")[:100]
    return f"API_{text}" if not text or text[0].isdigit() else text


def _secret(scheme: Located, variable: str) -> tuple[str, Mapping[str, object]]:
    kind = scheme.get("type").text()
    way = scheme.get("scheme").text().lower() if kind == "http" else kind
    name = scheme.get("name").text()
    if kind == "apiKey":
        if not _HEADER.fullmatch(name):
            raise UnconvertibleError(scheme.at, "a credential in a field whose name can't be written in an atlas")
        match scheme.get("in").text():
            case "header":
                if name.lower() in RESERVED_HEADERS:
                    raise UnconvertibleError(scheme.at, f"the header {name} is not the atlas's to set")
                return name, {"env": variable}
            case "query":
                return name, {"env": variable, "in": "query"}
            case "cookie":
                if len(name) < 64:  # noqa: PLR2004 - as the manifest has it
                    return "Cookie", {"env": variable, "prefix": f"{name}="}
            case _:
                pass
    if way in ("bearer", "oauth2", "openIdConnect"):
        return "Authorization", {"env": variable, "prefix": "Bearer "}
    if way == "basic":
        return "Authorization", {"env": variable, "prefix": "Basic ", "encode": "base64"}
    raise UnconvertibleError(scheme.at, "a security scheme that can't be used")
