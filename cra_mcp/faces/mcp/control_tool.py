"""What a control tool is: what is listed, who sees it, and what it does.

Source: specs/mcp.md, "Control tools".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import mcp_types as t

from cra_mcp.auth.roles import Permission
from cra_mcp.faces.mcp.sessions import Caller

Arguments = Mapping[str, Any]
Schema = dict[str, Any]

MAX_TEXT: Final = 10_000
_ID_LENGTH: Final = 36

TEXT: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}
ID: Final[Schema] = {"type": "string", "minLength": _ID_LENGTH, "maxLength": _ID_LENGTH}
STRING: Final[Schema] = {"type": "string"}
BOOLEAN: Final[Schema] = {"type": "boolean"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
OPTIONAL: Final[Schema] = {"type": ["string", "null"]}


@dataclass(frozen=True, slots=True)
class Later:
    """What is left to do, and may take long: read a whole trace, or wait for the state that processes share.

    Attributes:
        work: gives the value or the result; it uses nothing that belongs to the event loop.
        reads: it only reads, so that nobody minds if its caller goes away.
    """

    work: Callable[[], "Value | t.CallToolResult"]
    reads: bool


Value = Mapping[str, object]
"""What a tool answers, as ``output_schema`` says; not yet fit for the wire."""


@dataclass(frozen=True, slots=True)
class ControlTool:
    """One control tool.

    Attributes:
        tool: what is listed.
        run: takes arguments that fit ``tool.input_schema``.
        needs: what a role of the caller must permit; for others the tool does not exist.
    """

    tool: t.Tool
    run: Callable[[Caller, Arguments], Value | Later]
    needs: Permission


def control_tool(
    name: str,
    title: str,
    description: str,
    *,
    run: Callable[[Caller, Arguments], Value | Later],
    needs: Permission = "call",
    arguments: Schema | None = None,
    required: Sequence[str] = (),
    answers: Schema,
    reads: bool = False,
    destroys: bool = False,
    repeats: bool = False,
) -> ControlTool:
    """A control tool.

    Args:
        name: begins ``cra_``.
        title: for people.
        description: for models.
        run: what it does.
        needs: what a role of the caller must permit.
        arguments: schema of each argument.
        required: the arguments that must be there.
        answers: schema of each part of the answer; all of them are always there.
        reads: it changes nothing, and records nothing but that documents were handed out.
        destroys: what it does can't be taken back.
        repeats: doing it twice is doing it once.
    """
    tool = t.Tool(
        name=name,
        title=title,
        description=description,
        input_schema={
            "type": "object",
            "properties": arguments or {},
            "required": list(required),
            "additionalProperties": False,
        },
        output_schema=record(answers),
        annotations=t.ToolAnnotations(
            title=title,
            read_only_hint=reads,
            destructive_hint=destroys,
            idempotent_hint=reads or repeats,
            open_world_hint=False,
        ),
    )
    return ControlTool(tool, run, needs)


def record(properties: Schema, *, optional: Sequence[str] = ()) -> Schema:
    """The schema of an object that has these properties."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def many(schema: Schema) -> Schema:
    """The schema of a list."""
    return {"type": "array", "items": schema}


def or_null(schema: Schema) -> Schema:
    """The schema of something that may be missing."""
    return {"anyOf": [schema, {"type": "null"}]}
