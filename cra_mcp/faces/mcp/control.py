"""The control tools of a server: which there are for whom, and calling one.

Rule: a tool that a caller's roles don't permit does not exist for them. Source: specs/mcp.md, "Control tools".
"""

from typing import Any, Literal, cast

import mcp_types as t
import orjson

from cra_mcp.access import Access
from cra_mcp.auth.principal import Principal
from cra_mcp.auth.roles import may
from cra_mcp.canonical import digest, lossy
from cra_mcp.errors import CanonicalError, CRAError
from cra_mcp.faces.mcp import names, trace_tool, traces
from cra_mcp.faces.mcp.connection import RequestContext, principal_of, recheck_of, text_result
from cra_mcp.faces.mcp.control_approvals import approval_tools
from cra_mcp.faces.mcp.control_context import context_tools
from cra_mcp.faces.mcp.control_sessions import session_tools
from cra_mcp.faces.mcp.control_tool import Arguments, ControlTool, Later, Value
from cra_mcp.faces.mcp.sessions import Caller, SessionFinder
from cra_mcp.faces.mcp.tools import refusal
from cra_mcp.gate.attempt import in_thread
from cra_mcp.runtime import Runtime
from cra_mcp.schema_check import Validator, compile_schema, explain
from cra_mcp.words import visible_json

Which = Literal["none", "default", "all"]

_DEFAULT = (
    "cra_start_session",
    "cra_request_context",
    "cra_end_session",
    trace_tool.NAME,
    "cra_pending_approvals",
    "cra_settle_approval",
)
_STARTS = ("cra_start_session", "cra_bootstrap")


class ControlTools:
    """The control tools, by name."""

    def __init__(self, runtime: Runtime, sessions: SessionFinder, which: Which) -> None:
        self._runtime = runtime
        self._sessions = sessions
        every = [*session_tools(runtime), *context_tools(runtime), *approval_tools(), trace_tool.trace_tool()]
        self._tools = {
            each.tool.name: each
            for each in every
            if which == "all" or (which == "default" and each.tool.name in _DEFAULT)
        }
        self._validators: dict[str, Validator] = {}

    def listing(self, ctx: RequestContext) -> list[t.Tool]:
        """What to list for a caller, sorted by name."""
        principal = principal_of(ctx)
        return [self._tools[name].tool for name in sorted(self._tools) if self._is_for(principal, self._tools[name])]

    def has(self, ctx: RequestContext, name: str) -> bool:
        """Whether there is a control tool of this name for a caller."""
        tool = self._tools.get(name)
        return tool is not None and self._is_for(principal_of(ctx), tool)

    async def call(self, ctx: RequestContext, name: str, arguments: Arguments | None) -> t.CallToolResult:
        """Run a control tool; what goes wrong is a tool error the model can read."""
        tool = self._tools[name]
        given: Arguments = arguments if arguments is not None else {}
        try:
            digest(given)
            if not self._validator(tool.tool).is_valid(given):
                faults = explain(tool.tool.input_schema, given, masked=False)
                text = "; ".join(f"{fault.pointer or '/'}: {fault.message}" for fault in faults)
                return text_result(f"Invalid parameters: {text}", is_error=True)
            caller = Caller(self._sessions.of(ctx), Access(self._runtime, principal_of(ctx), recheck=recheck_of(ctx)))
            answer = tool.run(caller, given)
            if isinstance(answer, Later):
                answer = await (traces.off_loop(answer.work) if answer.reads else in_thread(answer.work))
            if isinstance(answer, t.CallToolResult):
                return answer
            meta = {names.SESSION_META: caller.sessions.current().session_id} if name in _STARTS else None
        except CanonicalError as error:
            return text_result(f"Invalid parameters: {error.message}", is_error=True)
        except CRAError as error:
            return refusal(error)
        return _result(answer, meta)

    def _is_for(self, principal: Principal, tool: ControlTool) -> bool:
        if tool.needs == "approve":
            return Access(self._runtime, principal).may_approve
        return may(principal, tool.needs)

    def _validator(self, tool: t.Tool) -> Validator:
        found = self._validators.get(tool.name)
        if found is None:
            found = self._validators[tool.name] = compile_schema(tool.input_schema)
        return found


def _result(value: Value, meta: dict[str, Any] | None) -> t.CallToolResult:
    """The same twice: for programs, and for models whose host shows them text only."""
    structured = cast("dict[str, Any]", lossy(value))
    text = visible_json(orjson.dumps(structured, option=orjson.OPT_INDENT_2).decode())
    return t.CallToolResult(content=[t.TextContent(type="text", text=text)], structured_content=structured, _meta=meta)
