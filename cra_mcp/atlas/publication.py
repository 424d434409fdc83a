"""How actions are presented: the URIs of resources, and what is wrong with a publication.

Rule: the parameters of what isn't a tool come from a URI or a form of texts, so they must be texts.
Source: specs/atlas.md, "Publication"; RFC 6570, level 1.
"""

import re
from collections.abc import Mapping
from typing import cast

from cra_mcp.atlas.executor_form import PythonExecutorPart
from cra_mcp.atlas.manifest import ActionPart, PromptPublication, ResourcePublication
from cra_mcp.atlas.names import takes_own_uri
from cra_mcp.atlas.shape import Place

_VARIABLE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def uri_variables(template: str) -> tuple[str, ...]:
    """Names of the variables of a template, in order.

    Raises:
        ValueError: it is not a template of level 1.
    """
    if "{" in _VARIABLE.sub("", template) or "}" in _VARIABLE.sub("", template):
        raise ValueError("braces hold one variable name each: letters, digits and _")
    names = tuple(_VARIABLE.findall(template))
    if len(set(names)) != len(names):
        raise ValueError("a variable stands in it twice")
    return names


def uri_pattern(template: str) -> re.Pattern[str]:
    """What a URI of the template looks like: each variable is one or more characters other than / ? and #."""
    return re.compile(_VARIABLE.sub(r"(?P<\1>[^/?#]+)", re.escape(template).replace(r"\{", "{").replace(r"\}", "}")))


def check_publication(action: ActionPart, place: Place) -> None:
    """Report what is wrong with how ``action`` is presented, and with what its function is given."""
    properties = action.parameters_schema.get("properties")
    known = cast("dict[str, object]", properties) if isinstance(properties, dict) else {}
    match action.publish:
        case PromptPublication():
            for name, schema in known.items():
                if not _is_text(schema):
                    place.below("parameters_schema", "properties", name).add(
                        "invalid_value", "an argument of a prompt must say type string"
                    )
        case ResourcePublication(uri=uri):
            _check_uri(uri, known, place)
        case _:
            pass
    if isinstance(action.executor, PythonExecutorPart):
        _check_context(action.executor, known, place.below("executor"))


def _check_uri(uri: str, known: Mapping[str, object], place: Place) -> None:
    below = place.below("publish", "uri")
    if takes_own_uri(uri):
        below.add(
            "reserved_name",
            "URIs of the scheme cra or the authority cra, and templates that fit ui://cra, belong to the runtime",
        )
    try:
        names = uri_variables(uri)
    except ValueError as error:
        below.add("invalid_placeholder", str(error))
        return
    for name in names:
        if name not in known:
            below.add("unknown_parameter", f"parameters_schema has no property {name}")
        elif not _is_text(known[name]):
            below.add("invalid_placeholder", f"property {name} must say type string")


def _check_context(executor: PythonExecutorPart, known: Mapping[str, object], place: Place) -> None:
    if executor.asks and executor.context is None:
        place.below("asks").add("invalid_value", "a function that asks needs a context to ask with")
    if executor.context in known:
        place.below("context").add("name_collision", f"parameters_schema has a property {executor.context} too")


def _is_text(schema: object) -> bool:
    return isinstance(schema, dict) and cast("dict[str, object]", schema).get("type") == "string"
