"""The form of a policy, and of the conditions it shares with context packs.

Source: specs/policy.md, "Policies".
"""

from typing import Annotated, Literal

from pydantic import Field

from cra_mcp.atlas.fields import (
    Absent,
    ActionGlob,
    AlwaysTrue,
    Amount,
    Count,
    Day,
    DottedId,
    Glob,
    JsonObject,
    Line,
    Part,
    PolicyId,
    Tier,
    Whole,
    WindowSeconds,
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
