"""Actions as MCP tools: listing them, and translating a call and its outcome.

Rule: nothing is decided here. What is listed is what could be allowed; a call of anything else goes to the gate all the same,
which refuses and records it. Source: specs/mcp.md, "Tools".
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import mcp_types as t
from mcp.shared.exceptions import MCPError

from cra_mcp.access import Access
from cra_mcp.atlas.model import Action
from cra_mcp.atlas.portable import portable, reshaped
from cra_mcp.canonical import lossy
from cra_mcp.errors import CRAError
from cra_mcp.faces.mcp import names
from cra_mcp.faces.mcp.calls import Calls, Wanted
from cra_mcp.faces.mcp.connection import RequestContext, caller, is_modern, principal_of, text_result
from cra_mcp.faces.mcp.content import as_text, pass_on, without_ours
from cra_mcp.gate.call import ExecutionOutcome
from cra_mcp.policy.model import MICRO, Waiting
from cra_mcp.resolution.model import Permission
from cra_mcp.runtime import Runtime
from cra_mcp.words import count_of

_DESTRUCTIVE = {"high", "critical"}
_MAX_LISTINGS = 64
_MAX_SCHEMAS = 4_096
_REMOTE_EXECUTORS = {"mcp", "http"}


class ActionTools:
    """The tools a caller can see."""

    def __init__(self, runtime: Runtime, calls: Calls) -> None:
        self._runtime = runtime
        self._calls = calls
        self._listed: OrderedDict[tuple[int, bool], tuple[tuple[Permission, ...], list[t.Tool]]] = OrderedDict()
        self._schemas: OrderedDict[int, _Schemas] = OrderedDict()

    def listing(self, ctx: RequestContext) -> list[t.Tool]:
        """Tools for every action that could be allowed now, sorted by name."""
        permissions = self._runtime.permissions(principal_of(ctx))
        modern = is_modern(ctx)
        # The runtime shares one tuple per outcome of the policies, so identity says whether anything changed. The entry keeps its
        # tuple alive: its identity is nobody else's.
        key = (id(permissions), modern)
        found = self._listed.get(key)
        if found is None:
            tools = sorted(
                (
                    _tool(each, self._schemas_of(each.action), modern=modern)
                    for each in permissions
                    if each.action.publication.kind == "tool"
                ),
                key=lambda tool: tool.name,
            )
            found = self._listed[key] = (permissions, tools)
            if len(self._listed) > _MAX_LISTINGS:
                self._listed.popitem(last=False)
        return found[1]

    def header_annotations(self, name: str) -> Mapping[str, Any] | None:
        """The listed schema of a tool that can have ``x-mcp-header`` in it; None for others, whose listed schema has none.

        For the caller of the request under way: a tool that it must not be told of has none.
        """
        principal = caller()
        action = Access(self._runtime, principal).published(name, "tool") if principal is not None else None
        return action.parameters_schema if action is not None and action.publication.exact_schema else None

    async def call(
        self, ctx: RequestContext, params: t.CallToolRequestParams
    ) -> t.CallToolResult | t.InputRequiredResult:
        """Have the gate decide and carry out a call, and say what became of it.

        Raises:
            MCPError: the tool is unknown, or must look so.
        """
        action_id = self._runtime.action_id_of(params.name) or params.name
        try:
            outcome = await self._calls.call(ctx, params, Wanted(action_id, params.name), params.arguments)
        except CRAError as error:
            return refusal(error)
        if isinstance(outcome, t.InputRequiredResult):
            return outcome
        return self._translate(ctx, params.name, outcome)

    def _schemas_of(self, action: Action) -> "_Schemas":
        found = self._schemas.get(id(action))
        if found is None:
            found = self._schemas[id(action)] = _Schemas.of(action)
            if len(self._schemas) > _MAX_SCHEMAS:
                self._schemas.popitem(last=False)
        return found

    def _translate(self, ctx: RequestContext, name: str, outcome: ExecutionOutcome) -> t.CallToolResult:
        fault = outcome.fault
        if fault is not None and fault.code == "unknown_action":
            raise MCPError(code=t.INVALID_PARAMS, message=f"Unknown tool: {lossy(name[:100])}")
        meta = receipt_meta(outcome)
        if outcome.result is not None:
            return _result(ctx, outcome, self._returns_schema(outcome.action_id), meta)
        if fault is None:
            return text_result("", meta=meta)
        lines = [_sentence(fault.message)]
        if fault.hint:
            lines.append(f"What can be done: {_sentence(fault.hint)}")
        if outcome.receipt is not None:
            lines.append(f"Recorded as event {outcome.receipt.sequence} of session {outcome.receipt.session_id}.")
        return text_result("\n".join(lines), is_error=True, meta=meta)

    def _returns_schema(self, action_id: str) -> object:
        found = self._runtime.find_action(action_id)
        return found.returns_schema if found is not None else None


@dataclass(frozen=True, slots=True)
class _Schemas:
    """The schemas of an action as they are listed. ``action`` keeps it alive: its identity is nobody else's."""

    action: Action
    parameters: Mapping[str, Any]
    returns: Mapping[str, Any] | None

    @classmethod
    def of(cls, action: Action) -> "_Schemas":
        schema, returns = action.parameters_schema, action.returns_schema
        parameters = reshaped(schema) if action.publication.exact_schema else portable(schema, "parameters").schema
        return cls(action, parameters or {}, None if returns is None else portable(returns, "returns").schema)

    def output(self, *, modern: bool) -> dict[str, Any] | None:
        """Before 2026-07-28 an output must be an object; one other root would hide the whole list."""
        if self.returns is None or not (modern or self.returns.get("type") == "object"):
            return None
        return dict(self.returns)


def refusal(error: CRAError) -> t.CallToolResult:
    """A tool result for what kept a call from being taken at all."""
    text = _sentence(error.message) + (f"\nWhat can be done: {_sentence(error.hint)}" if error.hint else "")
    return text_result(text, is_error=True, meta={names.RECEIPT_META: {"error": error.code}})


def receipt_meta(outcome: ExecutionOutcome) -> dict[str, Any]:
    """Where a call stands in the trace; models are not shown it, programs are."""
    receipt: dict[str, Any] = {"status": outcome.status, "execution_id": outcome.execution_id}
    if outcome.receipt is not None:
        receipt["session_id"] = outcome.receipt.session_id
        receipt["sequence"] = outcome.receipt.sequence
        receipt["event_hash"] = outcome.receipt.event_hash
    if outcome.fault is not None and outcome.fault.code != "unknown_action":
        receipt["error"] = outcome.fault.code
        receipt["details"] = dict(outcome.fault.details)
    return {names.RECEIPT_META: receipt}


def _tool(permission: Permission, published: "_Schemas", *, modern: bool) -> t.Tool:
    action = permission.action
    tier = action.risk_tier.value
    executor = action.executor.type if action.executor is not None else ""
    return t.Tool(
        name=action.published_name,
        title=action.name,
        description=describe(permission),
        input_schema=dict(published.parameters),
        output_schema=published.output(modern=modern),
        annotations=t.ToolAnnotations(
            title=action.name,
            read_only_hint=tier == "low" and action.idempotent,
            destructive_hint=tier in _DESTRUCTIVE,
            idempotent_hint=action.idempotent,
            open_world_hint=executor in _REMOTE_EXECUTORS,
        ),
        _meta={
            "dev.cra/action": {"action_id": action.action_id, "atlas_id": permission.atlas.atlas_id, "risk_tier": tier}
        },
    )


def describe(permission: Permission) -> str:
    """What a tool is described as: what it does, and what policy says of calling it."""
    parts = [permission.action.description.strip()]
    decision = permission.decision
    if decision.effect == "require_approval":
        parts.append(f"Needs a person's approval: {_sentence(decision.reason or decision.policy_id)}")
    parts.extend(
        f"At most {count_of(limit.max_calls, 'call')} in any {limit.window_us // 1_000_000} s ({limit.scope})."
        for limit in decision.limits
    )
    parts.extend(
        f"At most {charge.budget.max_cost / MICRO:g} {charge.budget.unit} in any {charge.budget.window_us // 1_000_000} s "
        f"({charge.budget.scope})."
        for charge in decision.charges
    )
    parts.extend(_waiting_line(waiting) for waiting in decision.waiting)
    return "\n".join(part for part in parts if part)


def _waiting_line(waiting: Waiting) -> str:
    """A policy that the arguments decide, in a few words a model can use."""
    what = {"deny": "Refused", "require_approval": "Needs a person's approval", "allow": "Allowed only"}
    line = what.get(waiting.type, "Limited")
    line += f" if {waiting.expression}" if waiting.expression else " by what its arguments are"
    return _sentence(f"{line}: {waiting.reason}" if waiting.reason else line)


def _result(ctx: RequestContext, outcome: ExecutionOutcome, returns: object, meta: dict[str, Any]) -> t.CallToolResult:
    result = outcome.result
    assert result is not None  # noqa: S101 - the caller has looked
    structured: Any = None
    content: list[t.ContentBlock] = []
    if result.content is not None:
        structured = result.value
    else:
        content = [t.TextContent(type="text", text=as_text(result.value))]
        if isinstance(returns, Mapping):
            structured = result.value
    if structured is not None and not is_modern(ctx) and not isinstance(structured, dict):
        structured = None
    pass_on(cast("object", structured), result.content)
    stands_for: Any = {} if structured is not None else None  # where the era has it
    told = {**without_ours({"_meta": result.meta or {}})["_meta"], **meta}
    return t.CallToolResult(content=content, structured_content=stands_for, is_error=result.is_error, _meta=told)


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else text + "."
