"""The form of an atlas on disk: the manifest, or what its folders hold in place of it.

Rule: only what one value says of itself is checked here; what parts say of each other is in ``checks``. ``manifest_schema``
generates the published JSON Schema from these models. Source: specs/atlas.md, "Manifest".
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from cra_mcp.atlas.executor_form import AnyExecutor
from cra_mcp.atlas.fields import (
    Absent,
    ActionGlob,
    ActionId,
    Address,
    AnySchema,
    Argument,
    AtlasId,
    Count,
    DottedId,
    Durability,
    EnvironmentName,
    FieldName,
    HeaderName,
    HeaderValue,
    JsonObject,
    Line,
    Lines,
    LocalName,
    Part,
    PublishedName,
    SemanticVersion,
    Tier,
    VersionRange,
    WebAddress,
    Whole,
    WindowSeconds,
)
from cra_mcp.atlas.policy_form import AnyPolicy, ConditionsPart


class CapabilityPart(Part):
    """A named group of actions and context packs."""

    capability_id: DottedId
    name: Line
    description: Absent[Lines] = None
    actions: Annotated[list[ActionGlob], Field(max_length=1_000, description="Action ids or globs.")] = []
    context_packs: Annotated[list[DottedId], Field(max_length=500)] = []


class ContextPackPart(Part):
    """Documents for an agent: ``files`` of the package, or ``content`` in the manifest itself."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["files"]}, {"required": ["content"]}]})

    pack_id: DottedId
    name: Line
    files: Absent[
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=512)]],
            Field(min_length=1, max_length=500, description="Paths relative to the atlas folder: .md, .txt or .json."),
        ]
    ] = None
    content: Absent[Annotated[str, Field(min_length=1, description="Markdown, in place of files.")]] = None
    priority: Annotated[int, Field(ge=0, le=1_000, description="Higher comes first."), Whole] = 100
    keywords: Annotated[list[Line], Field(max_length=200)] = []
    conditions: Absent[ConditionsPart] = None
    max_tokens: Absent[
        Annotated[
            int,
            Field(ge=16, le=1_000_000, description="Each document is cut at four times as many characters."),
            Whole,
        ]
    ] = None


class RateLimitShape(Part):
    """At most ``max_calls`` in any ``window_seconds``."""

    max_calls: Count
    window_seconds: WindowSeconds


class ToolPublication(Part):
    """Presented as a tool."""

    as_: Annotated[Literal["tool"], Field(alias="as")]
    name: Absent[PublishedName] = None
    parameters_schema: Annotated[
        Literal["portable", "exact"],
        Field(description="exact: listed as it is written, for hosts that take all of JSON Schema."),
    ] = "portable"


class PromptPublication(Part):
    """Presented as a prompt: the parameters are its arguments, the result its messages."""

    as_: Annotated[Literal["prompt"], Field(alias="as")]
    name: Absent[PublishedName] = None


class ResourcePublication(Part):
    """Presented as a resource: the variables of its URI are the parameters, the result is its content."""

    as_: Annotated[Literal["resource"], Field(alias="as")]
    uri: Annotated[
        str,
        Field(
            max_length=1_024,
            pattern=r"^[a-z][a-z0-9+.-]*://[A-Za-z0-9._~!$&'()*+,;=:@/?%{}-]+$",
            description="Its URI, or an RFC 6570 template of level 1.",
        ),
    ]
    name: Absent[PublishedName] = None
    mime_type: Annotated[str, Field(max_length=128, pattern=r"^[a-z0-9.+-]+/[a-z0-9.+-]+$")] = "text/plain"


AnyPublication = Annotated[
    ToolPublication | PromptPublication | ResourcePublication,
    Field(discriminator="as_"),
]


class ActionPart(Part):
    """Something an agent may ask for."""

    action_id: ActionId
    name: Line
    description: Lines
    parameters_schema: Annotated[
        AnySchema,
        Field(
            description="JSON Schema of the parameters, 2020-12 or older; its root has type object.",
            json_schema_extra={"required": ["type"], "properties": {"type": {"const": "object"}}},
        ),
    ]
    returns_schema: Absent[Annotated[AnySchema, Field(description="JSON Schema of the result, 2020-12 or older.")]] = (
        None
    )
    risk_tier: Tier = "low"
    idempotent: Annotated[bool, Field(description="Doing it twice is as good as once.")] = False
    requires_confirmation: Annotated[bool, Field(description="A person approves each call.")] = False
    timeout_seconds: Annotated[float, Field(ge=1, le=300)] = 30.0
    rate_limit: Absent[Annotated[RateLimitShape, Field(description="Per agent, this action alone.")]] = None
    durability: Durability = None
    cost: Absent[Annotated[float, Field(ge=0, le=1_000_000_000)]] = None
    executor: Absent[Annotated[AnyExecutor, Field(description="What does it; without one it is report-only.")]] = None
    publish: Absent[Annotated[AnyPublication, Field(description="How it is presented; absent: as a tool.")]] = None


class UpstreamPart(Part):
    """An MCP server behind this one: ``command`` over stdio, or ``url`` over Streamable HTTP."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["command"]}, {"required": ["url"]}],
            "dependentSchemas": {
                "url": {"properties": {"args": False, "env": False, "cwd": False}},
                "command": {"properties": {"headers": False}},
            },
        }
    )

    command: Absent[Annotated[Argument, Field(min_length=1)]] = None
    args: Annotated[list[Argument], Field(max_length=256)] = []
    env: dict[EnvironmentName, Argument] = {}
    cwd: Absent[Annotated[Argument, Field(min_length=1)]] = None
    url: Absent[WebAddress] = None
    headers: dict[HeaderName, HeaderValue] = {}
    public: Annotated[
        list[FieldName],
        Field(max_length=100, description="Variables, headers and query fields that look like secrets and are none."),
    ] = []


class RedactionPart(Part):
    """What more is hidden in what is recorded of its actions. It adds to what the operator hides, and takes nothing away."""

    detectors: Annotated[
        list[Literal["private_key", "secret", "named", "card", "email", "entropy"]], Field(min_length=1, max_length=6)
    ]


class ManifestHead(Part):
    """The fields of a manifest that are not lists of parts."""

    atlas_version: Literal["1.0"]
    atlas_id: AtlasId
    version: SemanticVersion
    name: Line
    description: Lines
    authors: Annotated[list[Line], Field(max_length=100)] = []
    license: Absent[
        Annotated[
            str,
            Field(
                max_length=256, pattern=r"^[()A-Za-z0-9.+:-]+( [()A-Za-z0-9.+:-]+)*$", description="SPDX expression."
            ),
        ]
    ] = None
    homepage: Absent[Address] = None
    repository: Absent[Address] = None
    domains: Annotated[list[Line], Field(max_length=100)] = []
    adapters: dict[LocalName, JsonObject] = {}
    dependencies: Annotated[dict[AtlasId, VersionRange], Field(max_length=100)] = {}
    default_effect: Absent[
        Annotated[
            Literal["allow", "deny"],
            Field(description="Where no policy decides; absent: deny if there is an allow policy, else allow."),
        ]
    ] = None
    durability: Durability = None
    redaction: Absent[
        Annotated[RedactionPart, Field(description="What traces hide of its actions, besides what the operator hides.")]
    ] = None
    overlay: Annotated[
        bool, Field(description="True: its policies govern every action of other atlases, and it has nothing else.")
    ] = False
    metadata: JsonObject = {}


class Manifest(ManifestHead):
    """A versioned package of actions, the policies that govern them and the context an agent gets."""

    capabilities: Annotated[list[CapabilityPart], Field(max_length=1_000)] = []
    context_packs: Annotated[list[ContextPackPart], Field(max_length=1_000)] = []
    policies: Annotated[list[AnyPolicy], Field(max_length=1_000)] = []
    actions: Annotated[list[ActionPart], Field(max_length=1_000)] = []
    upstreams: Annotated[dict[LocalName, UpstreamPart], Field(max_length=100)] = {}
