"""The form of an atlas on disk: the shape of every JSON file in it.

Rule: unknown fields are errors and nothing is coerced; null never stands for "left out". Only what one value says of
itself is checked here; what parts say of each other is in ``checks``. ``manifest_schema`` generates the published JSON
Schema from these models.
Source: specs/atlas.md, "Manifest".
"""

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

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


class TimeWindowPart(Part):
    """Part of a day; crosses midnight if ``end`` is not after ``start``."""

    start: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", description="First minute, HH:MM.")]
    end: Annotated[
        str,
        Field(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$", description="First minute after it, HH:MM or 24:00."),
    ]
    timezone: Annotated[str, Field(min_length=1, max_length=64, description="IANA name.")] = "UTC"
    days: Absent[Annotated[list[Day], Field(min_length=1, max_length=7, description="Days it starts on.")]] = None


class ConditionsPart(Part):
    """When a policy or a context pack applies: all that are given must hold."""

    risk_tiers: Absent[
        Annotated[
            list[Tier],
            Field(
                min_length=1,
                max_length=4,
                description="The higher of the action's and the task's tier is one of these.",
            ),
        ]
    ] = None
    agents: Absent[Annotated[list[Glob], Field(min_length=1, max_length=500, description="Globs of agent ids.")]] = None
    principals: Absent[
        Annotated[list[Glob], Field(min_length=1, max_length=500, description="Globs of the subjects of principals.")]
    ] = None
    roles: Absent[
        Annotated[
            list[Literal["admin", "operator", "approver", "agent", "auditor"]],
            Field(min_length=1, max_length=5, description="The principal has one of these roles."),
        ]
    ] = None
    capabilities: Absent[
        Annotated[
            list[DottedId],
            Field(min_length=1, max_length=500, description="The action belongs to one of these capabilities."),
        ]
    ] = None
    context_matches: Absent[
        Annotated[
            dict[Annotated[str, Field(min_length=1, max_length=256)], Glob],
            Field(
                min_length=1, max_length=100, description="Keys of the request's context and globs their values match."
            ),
        ]
    ] = None
    time_window: Absent[TimeWindowPart] = None


class PolicyConditionsPart(ConditionsPart):
    """When a policy applies: all that are given must hold."""

    arguments: Absent[
        Annotated[
            JsonObject,
            Field(min_length=1, description="JSON Schema 2020-12 that the arguments of the call match."),
        ]
    ] = None


class ReasonParameters(Part):
    """Parameters of a policy that has no others."""

    reason: Absent[Annotated[Line, Field(description="Accepted in place of the policy's own reason.")]] = None


class ApprovalParameters(ReasonParameters):
    """What an approval must be worth."""

    min_evidence: Absent[
        Annotated[
            Literal["client_elicitation", "application", "local_cli", "authenticated_approver"],
            Field(description="Weakest grade of evidence that counts as a person's consent; default: any."),
        ]
    ] = None


class LimitParameters(ReasonParameters):
    """At most ``max_calls`` approved calls in any ``window_seconds``."""

    max_calls: Count
    window_seconds: WindowSeconds
    scope: Annotated[
        Literal["session", "agent", "tenant", "global"], Field(description="Whose calls are counted together.")
    ] = "agent"


class BudgetParameters(ReasonParameters):
    """At most ``max_cost`` of ``unit`` spent by approved calls in any ``window_seconds``."""

    max_cost: Amount
    unit: Annotated[
        str,
        Field(
            max_length=64,
            pattern=r"^[A-Za-z][A-Za-z0-9_-]*$",
            description="What is spent: calls, or what the actions' cost or the cost expression is in.",
        ),
    ] = "calls"
    window_seconds: WindowSeconds
    scope: Annotated[
        Literal["session", "agent", "tenant", "global"], Field(description="Whose spending is added up.")
    ] = "agent"
    cost: Absent[
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=2_000,
                description="CEL expression of what a call costs, over its args or its result; absent: what the action declares.",
            ),
        ]
    ] = None
    reserve: Absent[
        Annotated[Amount, Field(description="What to hold until the result tells the cost, if cost reads it.")]
    ] = None


class PolicyPart(Part):
    """What all policies have."""

    policy_id: PolicyId
    actions: Absent[
        Annotated[
            list[ActionGlob],
            Field(min_length=1, max_length=1_000, description='Action ids or globs; default ["*"], every action.'),
        ]
    ] = None
    reason: Absent[Annotated[Line, Field(description="One line for the agent and the person.")]] = None
    priority: Annotated[
        int,
        Field(ge=-1_000_000, le=1_000_000, description="Higher is named first among policies of one type."),
        Whole,
    ] = 0
    conditions: Absent[PolicyConditionsPart] = None
    when: Absent[
        Annotated[
            str,
            Field(
                min_length=1, max_length=2_000, description="CEL expression that must be true besides the conditions."
            ),
        ]
    ] = None


class DenyPart(PolicyPart):
    """Refuses the actions it names."""

    type: Literal["deny"]
    disclose: Annotated[bool, Field(description="False makes the action look as if it did not exist.")] = True
    parameters: Absent[ReasonParameters] = None


class ApprovalPart(PolicyPart):
    """Asks a person first."""

    type: Literal["require_approval", "requires_approval"]
    disclose: AlwaysTrue = True
    parameters: Absent[ApprovalParameters] = None


class AllowPart(PolicyPart):
    """Allows the actions it names."""

    type: Literal["allow"]
    disclose: AlwaysTrue = True
    parameters: Absent[ReasonParameters] = None


class RateLimitPart(PolicyPart):
    """Limits how often, for all actions it names together."""

    type: Literal["rate_limit"]
    disclose: AlwaysTrue = True
    parameters: LimitParameters


class BudgetPart(PolicyPart):
    """Limits what is spent, by all actions it names together."""

    type: Literal["budget"]
    disclose: AlwaysTrue = True
    parameters: BudgetParameters


AnyPolicy = Annotated[DenyPart | ApprovalPart | AllowPart | RateLimitPart | BudgetPart, Field(discriminator="type")]


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
        JsonObject,
        Field(
            description="JSON Schema 2020-12 of the parameters; its root has type object.",
            json_schema_extra={"required": ["type"], "properties": {"type": {"const": "object"}}},
        ),
    ]
    returns_schema: Absent[Annotated[JsonObject, Field(description="JSON Schema 2020-12 of the result.")]] = None
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
