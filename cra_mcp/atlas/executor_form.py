"""The form of an executor: what carries an action out.

Source: specs/atlas.md, "Executors".
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from cra_mcp.atlas.fields import (
    Absent,
    Argument,
    Constant,
    EnvironmentName,
    FieldName,
    HeaderName,
    HeaderValue,
    HttpAddress,
    Line,
    LocalName,
    Part,
    Whole,
)


class McpExecutorPart(Part):
    """A tool of an upstream MCP server."""

    type: Literal["mcp"]
    upstream: LocalName
    tool: Line


class PythonExecutorPart(Part):
    """A Python function, called with the parameters as keyword arguments."""

    type: Literal["python"]
    callable: Annotated[
        str,
        Field(
            max_length=256,
            pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$",
            description="module:function, looked for in the atlas's python/ folder first.",
        ),
    ]
    context: Absent[
        Annotated[
            str,
            Field(
                max_length=64,
                pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
                description="The keyword argument that gets a CallContext: progress, log, and what asks names.",
            ),
        ]
    ] = None
    asks: Absent[
        Annotated[
            list[Literal["elicitation", "sampling", "roots"]],
            Field(min_length=1, max_length=3, description="What the function may ask the caller's client for."),
        ]
    ] = None


class CommandExecutorPart(Part):
    """A program, run without a shell. ``{name}`` in an element of ``argv`` after the first is a parameter."""

    type: Literal["command"]
    argv: Annotated[list[Argument], Field(min_length=1, max_length=256)]
    cwd: Absent[Annotated[Argument, Field(min_length=1, description="May hold ${NAME} from the environment.")]] = None
    env: Annotated[list[EnvironmentName], Field(max_length=100, description="Variables passed on.")] = []
    max_output_bytes: Annotated[int, Field(ge=1, le=10_485_760), Whole] = 524_288


class HttpBodyPart(Part):
    """What is sent: ``json``, any JSON value but null, or ``form``, fields by name. ``{name}`` in a text is a parameter."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["json"]}, {"required": ["form"]}]})

    json_value: Annotated[Absent[object], Field(alias="json", json_schema_extra={"not": {"type": "null"}})] = None
    form: Absent[Annotated[dict[FieldName, Constant], Field(max_length=200)]] = None


class SecretPart(Part):
    """Where a secret is kept, and how it is sent: ``env`` names an environment variable, ``keyring`` an entry of it."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["env"]}, {"required": ["keyring"]}]})

    env: Absent[EnvironmentName] = None
    keyring: Absent[
        Annotated[
            str, Field(max_length=256, pattern=r"^[^/\x00-\x1f\x7f]+/[^\x00-\x1f\x7f]+$", description="service/name.")
        ]
    ] = None
    prefix: Annotated[str, Field(max_length=64, pattern=r"^[\x20-\x7e]*$", description="Sent before it.")] = ""
    encode: Absent[Annotated[Literal["base64"], Field(description="How it is written; default: as it is.")]] = None
    place: Annotated[Literal["header", "query"], Field(alias="in")] = "header"


class HttpExecutorPart(Part):
    """A request to an HTTP service. ``{name}`` in ``query``, ``headers`` and ``body`` is a parameter."""

    type: Literal["http"]
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
    url: Annotated[HttpAddress, Field(description="RFC 6570 template; its host is literal.")]
    query: Annotated[dict[FieldName, Constant], Field(max_length=200)] = {}
    headers: Annotated[dict[HeaderName, HeaderValue], Field(max_length=100)] = {}
    body: Absent[HttpBodyPart] = None
    secrets: Annotated[
        dict[HeaderName, SecretPart],
        Field(max_length=20, description="Headers or query fields by name, and where their values are kept."),
    ] = {}
    public: Annotated[
        list[FieldName],
        Field(max_length=100, description="Headers and query fields that look like secrets and are none."),
    ] = []
    result: Absent[
        Annotated[
            str,
            Field(
                max_length=512, pattern=r"^(/([^~/]|~[01])*)*$", description="JSON pointer to the result in the answer."
            ),
        ]
    ] = None
    retries: Absent[Annotated[int, Field(ge=0, le=5, description="Of an idempotent action; default 2."), Whole]] = None
    max_redirects: Annotated[int, Field(ge=0, le=10), Whole] = 0
    allow_hosts: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=260)]],
        Field(max_length=100, description="HOST or HOST:PORT that a redirect may lead to besides the url's own."),
    ] = []
    max_response_bytes: Annotated[int, Field(ge=1, le=10_485_760), Whole] = 1_048_576


AnyExecutor = Annotated[
    McpExecutorPart | PythonExecutorPart | CommandExecutorPart | HttpExecutorPart, Field(discriminator="type")
]
