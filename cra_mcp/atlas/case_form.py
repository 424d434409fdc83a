"""The form of policy tests on disk: ``tests/*.json`` of an atlas.

Rule: as in a manifest, unknown fields are errors and nothing is coerced.
Source: specs/atlas.md, "Policy tests".
"""

from typing import Annotated, Literal

from pydantic import Field

from cra_mcp.atlas.fields import Absent, ActionId, Amount, AnySchema, JsonObject, Line, Part, Tier, Whole

_Id = Annotated[str, Field(min_length=1, max_length=256)]
_Ids = Annotated[list[_Id], Field(max_length=1_000)]


class CaseFacts(Part):
    """Who asks, in a policy test."""

    agent_id: _Id = "agent"
    session_id: _Id = "session"
    tenant: _Id = "default"
    subject: Annotated[_Id, Field(description="Of the principal; anonymous over HTTP without a credential.")] = "local"
    roles: list[_Id] = Field(default_factory=list[str], max_length=100)
    task_risk: Tier = "low"
    context: JsonObject = Field(default_factory=dict[str, object])


class CaseExpect(Part):
    """What the engine must answer."""

    effect: Literal["allow", "require_approval", "deny"]
    policy_id: Absent[Annotated[_Id, Field(description="The policy that is named; of an overlay: OVERLAY/POLICY.")]] = (
        None
    )
    basis: Absent[Literal["deny", "require_approval", "rate_limit", "budget", "allow", "default"]] = None
    disclose: Absent[bool] = None
    errors: Absent[
        Annotated[_Ids, Field(description="Exactly the consulted policies whose conditions can't be evaluated.")]
    ] = None
    retry_after_seconds: Absent[Annotated[int, Field(ge=0), Whole]] = None


class CaseAction(Part):
    """An action that the tests of an overlay are about: an overlay declares none."""

    action_id: ActionId
    risk_tier: Tier = "low"
    capabilities: list[_Id] = Field(default_factory=list[str], max_length=100)
    parameters_schema: AnySchema = Field(default_factory=lambda: {"type": "object"})
    cost: Absent[Amount] = None


class CasePart(Part):
    """One policy test."""

    name: Line
    action_id: ActionId
    facts: CaseFacts = CaseFacts()
    at: Absent[
        Annotated[
            str,
            Field(
                pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z$", description="UTC."
            ),
        ]
    ] = None
    args: JsonObject = Field(
        default_factory=dict[str, object], description="Arguments of the call; they need not fit the schema."
    )
    approved: bool = False
    calls_before: Annotated[int, Field(ge=0, le=1_000), Whole] = 0
    counters: dict[_Id, Amount] = Field(
        default_factory=dict[str, float],
        max_length=100,
        description="By policy: calls, or cost, charged to its limit or budget at that instant.",
    )
    expect: CaseExpect


class TestFile(Part):
    """One file of policy tests."""

    __test__ = False  # not a test class, whatever its name

    name: Line
    actions: list[CaseAction] = Field(
        default_factory=list[CaseAction],
        max_length=1_000,
        description="For an overlay, and only there: what it is tried on.",
    )
    cases: Annotated[list[CasePart], Field(min_length=1, max_length=1_000)]
