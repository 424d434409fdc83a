"""Values of a loaded atlas.

Rule: frozen values; what is here has passed validation. The form on disk is ``manifest``.
Source: specs/atlas.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cra_mcp.atlas.names import published_name
from cra_mcp.policy.engine import PolicySet
from cra_mcp.policy.model import ActionFacts, Conditions, Facts, Policy, RiskTier

Schema = Mapping[str, object]

DEFAULT_RETRIES = 2
"""How often a request of an idempotent action is made again, where its executor doesn't say."""


@dataclass(frozen=True, slots=True)
class McpExecutor:
    """Calls ``tool`` of the atlas's upstream ``upstream``."""

    upstream: str
    tool: str
    type: Literal["mcp"] = "mcp"


@dataclass(frozen=True, slots=True)
class PythonExecutor:
    """Calls ``callable`` ("module:function") with the parameters as keyword arguments.

    The module is looked for in the atlas's ``python/`` folder first, then on the import path.

    Attributes:
        context: the keyword argument that gets a ``CallContext``, if the function wants one.
        asks: what the function may ask the caller's client for.
    """

    callable: str
    context: str | None = None
    asks: frozenset[str] = frozenset()
    type: Literal["python"] = "python"


@dataclass(frozen=True, slots=True)
class CommandExecutor:
    """Runs ``argv`` without a shell. ``{name}`` in an element is a parameter; it never makes a second element.

    Attributes:
        argv: program and arguments; elements whose optional parameter is missing are left out.
        cwd: working folder; relative to the atlas folder; may hold ``${NAME}`` from the environment.
        env: names of environment variables passed on besides PATH, HOME, LANG and the like.
        max_output_bytes: standard output and error each are cut there.
    """

    argv: tuple[str, ...]
    cwd: str | None = None
    env: tuple[str, ...] = ()
    max_output_bytes: int = 524_288
    type: Literal["command"] = "command"


@dataclass(frozen=True, slots=True)
class SecretReference:
    """Where a secret is kept and how it is sent; never the secret.

    Attributes:
        name: of the header or query field.
        env: environment variable that holds it; or
        keyring: ``service/name`` of a keyring entry.
        prefix: sent before it, after it was encoded.
    """

    name: str
    env: str | None = None
    keyring: str | None = None
    prefix: str = ""
    encode: Literal["base64"] | None = None
    place: Literal["header", "query"] = "header"


@dataclass(frozen=True, slots=True)
class HttpBody:
    """What is sent: a JSON template, or the fields of a form."""

    content: object
    type: Literal["json", "form"] = "json"


@dataclass(frozen=True, slots=True)
class HttpExecutor:
    """A request to an HTTP service. ``{name}`` in ``query``, ``headers`` and ``body`` is a parameter.

    Attributes:
        url: RFC 6570 template whose origin is literal.
        result: JSON pointer to the result in a JSON answer; None means the whole of it.
        retries: how often a request of an idempotent action is made again.
        allow_hosts: ``HOST`` or ``HOST:PORT`` that redirects may lead to besides the url's own.
        max_response_bytes: size of an answer, before and after it is unpacked.
    """

    method: str
    url: str
    query: Mapping[str, object] = field(default_factory=dict[str, object])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: HttpBody | None = None
    secrets: tuple[SecretReference, ...] = ()
    result: str | None = None
    retries: int = DEFAULT_RETRIES
    max_redirects: int = 0
    allow_hosts: tuple[str, ...] = ()
    max_response_bytes: int = 1_048_576
    type: Literal["http"] = "http"


Executor = McpExecutor | PythonExecutor | CommandExecutor | HttpExecutor


@dataclass(frozen=True, slots=True)
class Upstream:
    """An MCP server behind us: ``command`` with ``args`` over stdio, or ``url`` over Streamable HTTP.

    ``args``, ``env`` values, ``cwd``, ``url`` and ``headers`` values may hold ``${NAME}`` or ``${NAME:-default}`` from
    the environment, filled in when the upstream is first used.
    """

    name: str
    command: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    cwd: str | None = None
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``max_calls`` in any ``window_seconds``."""

    max_calls: int
    window_seconds: int


@dataclass(frozen=True, slots=True)
class Publication:
    """How a face presents an action.

    Attributes:
        kind: what it is presented as: a tool, a prompt or a resource.
        name: its published name, if not the one made of its id.
        uri: of a resource: an RFC 6570 template whose variables are the action's parameters.
        mime_type: of a resource.
        exact_schema: of a tool: list the parameters_schema as it is written, whatever hosts make of it.
    """

    kind: Literal["tool", "prompt", "resource"] = "tool"
    name: str | None = None
    uri: str | None = None
    mime_type: str | None = None
    exact_schema: bool = False


@dataclass(frozen=True, slots=True)
class Action:
    """Something an agent may ask for. Schemas are JSON Schema 2020-12."""

    action_id: str
    name: str
    description: str
    parameters_schema: Schema
    returns_schema: Schema | None = None
    risk_tier: RiskTier = RiskTier.LOW
    idempotent: bool = False
    requires_confirmation: bool = False
    timeout_s: float = 30.0
    rate_limit: RateLimit | None = None
    durability: Literal["kernel", "durable"] | None = None
    cost: float | None = None
    executor: Executor | None = None
    capabilities: frozenset[str] = frozenset()
    publication: Publication = Publication()

    def __repr__(self) -> str:
        return f"Action(action_id={self.action_id!r}, risk_tier={self.risk_tier.value!r})"

    @property
    def facts(self) -> ActionFacts:
        """What the policy engine knows of it."""
        return ActionFacts(self.action_id, self.risk_tier, self.capabilities, self.parameters_schema, self.cost)

    @property
    def published_name(self) -> str:
        """What it is called towards hosts."""
        return self.publication.name or published_name(self.action_id)


@dataclass(frozen=True, slots=True)
class Capability:
    """A named group of actions and context packs; globs are already resolved to ids."""

    capability_id: str
    name: str
    description: str = ""
    actions: tuple[str, ...] = ()
    context_packs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContextBlock:
    """One document of a context pack.

    Attributes:
        block_id: unique in its atlas; only ``[a-z0-9._-]``, so that it fits one URI segment.
        source: ``atlas_id/relative path``, or ``atlas_id/pack_id`` for inline content.
        token_estimate: characters / 4, rounded up, of ``content`` (which is already cut at the pack's ``max_tokens``).
    """

    block_id: str
    pack_id: str
    name: str
    source: str
    content_type: str
    content: str = field(repr=False)
    priority: int
    token_estimate: int
    keywords: tuple[str, ...] = ()
    conditions: Conditions = field(default_factory=Conditions)


@dataclass(frozen=True, slots=True)
class PolicyCase:
    """One policy test of the package: what the engine must answer.

    Attributes:
        file: where it stands, relative to the atlas.
        at_us: microseconds since the epoch.
        expect: what must be answered: ``effect``, and what else of a decision the test says, by its name.
        calls_before: approved calls of the same action by the same requester just before.
        counters: by policy id, what its limit (calls) or budget (cost) has been charged at that instant.
    """

    name: str
    file: str
    action_id: str
    facts: Facts
    at_us: int
    expect: Mapping[str, object]
    args: Mapping[str, object] = field(default_factory=dict[str, object])
    approved: bool = False
    calls_before: int = 0
    counters: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Atlas:
    """A validated package, its policies compiled.

    Attributes:
        digest: lower-case hex SHA-256 over every file of the package (specs/atlas.md, "Digest").
        root: the folder, or None for a one-file atlas: it has no folder, wherever the file was.
        policy_set: the compiled policies that are enforced, implicit ones included.
        shadow_set: all of them, where ``policy_set`` enforces the operator's denials alone; None where it enforces all.
        manifest: the merged manifest as plain JSON, for readers.
        cases: the policy tests of the package.
        tried: actions that the tests of an overlay are about.
        overlay: whether its policies govern other atlases; it then has nothing else.
        detectors: what traces hide of its actions, besides what the operator hides.
    """

    atlas_id: str
    version: str
    name: str
    description: str
    digest: str
    actions: tuple[Action, ...]
    policies: tuple[Policy, ...]
    policy_set: PolicySet
    context_blocks: tuple[ContextBlock, ...] = ()
    capabilities: tuple[Capability, ...] = ()
    upstreams: Mapping[str, Upstream] = field(default_factory=dict[str, Upstream])
    root: Path | None = None
    manifest: Mapping[str, object] = field(default_factory=dict[str, object])
    cases: tuple[PolicyCase, ...] = ()
    tried: tuple[ActionFacts, ...] = ()
    overlay: bool = False
    shadow_set: PolicySet | None = None
    detectors: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Atlas(atlas_id={self.atlas_id!r}, version={self.version!r}, actions={len(self.actions)})"
