"""CARP and TRACE messages as they cross a boundary: checked here, plain values inside.

Rule: unknown fields are errors. The JSON Schemas under ``specs/schemas/`` are generated from these models.
Source: specs/carp.md, specs/trace.md.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from cra_mcp.errors import RequestError

CARP_VERSION = "1.0"

_UUID7 = r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
_TIMESTAMP = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$"

Identifier = Annotated[str, Field(pattern=_UUID7, description="UUIDv7, lower-case.")]
Timestamp = Annotated[str, Field(pattern=_TIMESTAMP, description="RFC 3339 UTC, six fractional digits.")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256, lower-case hex.")]
Tier = Literal["low", "medium", "high", "critical"]


class Message(BaseModel):
    """What all messages share."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Requester(Message):
    """Who asks."""

    agent_id: Annotated[str, Field(min_length=1, max_length=256)]
    session_id: Identifier
    parent_session_id: Identifier | None = None


class Task(Message):
    """What for."""

    goal: Annotated[str, Field(min_length=1, max_length=10_000)]
    risk_tier: Tier | None = None
    context_hints: Annotated[list[Annotated[str, Field(max_length=1_000)]], Field(max_length=100)] = []
    required_capabilities: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=100)] = []


class Execution(Message):
    """Which action, with what."""

    resolution_id: Identifier
    action_id: Annotated[str, Field(min_length=1, max_length=256)]
    parameters: dict[str, JsonValue] = {}
    idempotency_key: Annotated[str, Field(min_length=1, max_length=256)] | None = None


class CarpRequest(Message):
    """CARP request: resolve a goal, execute an action, or validate a call without making it."""

    carp_version: Literal["1.0"]
    request_id: Identifier
    timestamp: Timestamp
    operation: Literal["resolve", "execute", "validate"]
    requester: Requester
    task: Task
    execution: Execution | None = None
    atlas_ids: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=100)] = []
    context: Annotated[dict[str, JsonValue], Field(max_length=100)] = {}


class ResolutionDecision(Message):
    """The resolution in one word."""

    type: Literal["allow", "partial", "requires_approval", "deny"]
    reason: str | None = None
    approval_id: Identifier | None = None
    expires_at: Timestamp | None = None


class ContextBlockMessage(Message):
    """One document for the agent's context."""

    block_id: str
    source: str
    content_type: str
    content: str
    priority: Annotated[int, Field(ge=0, le=1000)]
    token_estimate: Annotated[int, Field(ge=0)]
    metadata: dict[str, JsonValue] | None = None


class RateLimitMessage(Message):
    """At most so many calls in any window."""

    max_calls: Annotated[int, Field(ge=1)]
    window_seconds: Annotated[int, Field(ge=1)]


class AllowedAction(Message):
    """An action that may be called."""

    action_id: str
    name: str
    description: str
    parameters_schema: dict[str, JsonValue]
    returns_schema: dict[str, JsonValue] | bool | None = None
    risk_tier: Tier
    requires_confirmation: bool
    idempotent: bool
    rate_limit: RateLimitMessage | None = None


class DeniedAction(Message):
    """An action that may not be called, and why."""

    action_id: str
    reason: str
    policy_id: str | None = None


class Constraint(Message):
    """A rule that applies when an allowed action is called."""

    constraint_id: str
    type: str
    parameters: dict[str, JsonValue]


class CarpResolution(Message):
    """What a requester may know and do, for a while."""

    carp_version: Literal["1.0"]
    resolution_id: Identifier
    request_id: Identifier
    timestamp: Timestamp
    decision: ResolutionDecision
    context_blocks: list[ContextBlockMessage]
    allowed_actions: list[AllowedAction]
    denied_actions: list[DeniedAction]
    constraints: list[Constraint]
    ttl_seconds: Annotated[int, Field(ge=0)]
    trace_id: Identifier


class ExecutionFault(Message):
    """Why an execution has no result."""

    code: str
    message: str
    details: dict[str, JsonValue] = {}


class CarpExecution(Message):
    """What became of a call."""

    carp_version: Literal["1.0"]
    execution_id: Identifier
    request_id: Identifier
    resolution_id: Identifier | None
    timestamp: Timestamp
    status: Literal["success", "error", "denied", "pending_approval"]
    result: JsonValue = None
    error: ExecutionFault | None = None
    trace_id: Identifier


class TraceEvent(Message):
    """One link of a chain."""

    trace_version: Literal["1.0"]
    event_id: Identifier
    trace_id: Identifier
    span_id: Identifier
    parent_span_id: Identifier | None
    session_id: Identifier
    sequence: Annotated[int, Field(ge=0, le=9_007_199_254_740_991)]
    timestamp: Timestamp
    event_type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)+$", max_length=128)]
    payload: dict[str, JsonValue]
    event_hash: Digest
    previous_event_hash: Digest


SCHEMA_MODELS: dict[str, type[Message]] = {
    "carp-request": CarpRequest,
    "carp-resolution": CarpResolution,
    "carp-execution": CarpExecution,
    "trace-event": TraceEvent,
}
"""Name of each published schema and the model it is generated from."""


def parse_request(request: object) -> CarpRequest:
    """Check a CARP request.

    Raises:
        RequestError: ``unsupported_version`` or ``invalid_request``, naming each field by JSON pointer, without values.
    """
    if isinstance(request, CarpRequest):
        return request
    if isinstance(request, dict) and "carp_version" in request and request["carp_version"] != CARP_VERSION:
        raise RequestError("unsupported_version", "carp_version is not supported", hint=f'send "{CARP_VERSION}"')
    try:
        return CarpRequest.model_validate(request)
    except ValidationError as error:
        found = [
            f"/{'/'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_context=False, include_input=False)[:10]
        ]
        raise RequestError(
            "invalid_request", "; ".join(found), hint="`cra-mcp docs carp` has the form of a request"
        ) from None
