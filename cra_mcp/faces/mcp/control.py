"""Control tools: how an agent starts and ends a session, asks for context, and reports what it did elsewhere.

Rule: they govern nothing by themselves; every one leaves its events through the runtime. Source: specs/mcp.md, "Control tools".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import mcp_types as t
import orjson

from cra_mcp.access import Access
from cra_mcp.canonical import digest, lossy
from cra_mcp.errors import CanonicalError, CRAError
from cra_mcp.faces.mcp import names, trace_tool, traces
from cra_mcp.faces.mcp.connection import RequestContext, principal_of, text_result
from cra_mcp.faces.mcp.sessions import Caller, SessionFinder
from cra_mcp.faces.mcp.tools import refusal
from cra_mcp.resolution import Resolution, block_message
from cra_mcp.runtime import Runtime
from cra_mcp.schema_check import Validator, compile_schema, explain

Which = Literal["none", "default", "all"]
Arguments = Mapping[str, Any]

_DEFAULT = ("cra_start_session", "cra_request_context", "cra_end_session", trace_tool.NAME)
_STARTS = ("cra_start_session", "cra_bootstrap")
_MAX_GOAL = 10_000
_ID_LENGTH = 36


@dataclass(frozen=True, slots=True)
class ControlTool:
    """One control tool: what is listed, and what it does with checked arguments: a value to be shown as JSON, or a reading."""

    tool: t.Tool
    run: Callable[[Caller, Arguments], object]


class ControlTools:
    """The control tools, by name."""

    def __init__(self, runtime: Runtime, sessions: SessionFinder, which: Which) -> None:
        self._runtime = runtime
        self._sessions = sessions
        self._tools = {name: tool for name, tool in self._all().items() if which == "all" or name in _DEFAULT}
        if which == "none":
            self._tools = {}
        self._validators: dict[str, Validator] = {}

    def listing(self) -> list[t.Tool]:
        """What to list, sorted by name."""
        return [self._tools[name].tool for name in sorted(self._tools)]

    def has(self, name: str) -> bool:
        """Whether a control tool has this name."""
        return name in self._tools

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
            caller = Caller(self._sessions.of(ctx), Access(self._runtime, principal_of(ctx)))
            value = tool.run(caller, given)
            if isinstance(value, trace_tool.Reading):
                return await traces.off_loop(value.answer)
            meta = {names.SESSION_META: caller.sessions.current().session_id} if name in _STARTS else None
        except CanonicalError as error:
            return text_result(f"Invalid parameters: {error.message}", is_error=True)
        except CRAError as error:
            return refusal(error)
        return text_result(orjson.dumps(lossy(value), option=orjson.OPT_INDENT_2).decode(), meta=meta)

    def _validator(self, tool: t.Tool) -> Validator:
        found = self._validators.get(tool.name)
        if found is None:
            found = self._validators[tool.name] = compile_schema(tool.input_schema)
        return found

    # --- what they do ----------------------------------------------------------------------------------------------

    def _start_session(self, caller: Caller, arguments: Arguments) -> object:
        session = caller.sessions.start(
            cast("str", arguments["goal"]), cast("str | None", arguments.get("parent_session_id"))
        )
        resolution = self._runtime.resolve(session.session_id)
        return {"session": session.to_dict(), **_rules(resolution), "context": _titles(resolution)}

    def _end_session(self, caller: Caller, arguments: Arguments) -> object:
        session = caller.sessions.active()
        if session is None:
            return {"ended": None, "note": "no session was active"}
        if summary := arguments.get("summary"):
            self._runtime.record(session.session_id, "x.cra.session.summary", {"summary": lossy(summary)})
        caller.sessions.end("completed")
        check = self._runtime.verify_chain(session.session_id)
        return {
            "ended": session.session_id,
            "events": check.events,
            "chain_ok": check.ok,
            "head": check.head.event_hash if check.head is not None else None,
        }

    def _request_context(self, caller: Caller, arguments: Arguments) -> object:
        session = caller.sessions.current()
        resolution = self._runtime.resolve(
            session.session_id,
            goal=cast("str", arguments["need"]),
            context_hints=cast("Sequence[str]", arguments.get("hints", ())),
        )
        budget = cast("int | None", arguments.get("max_tokens"))
        given: list[object] = []
        left_out: list[str] = []
        for block in resolution.context_blocks:
            if budget is not None and block.token_estimate > budget:
                left_out.append(block.block_id)
                continue
            budget = None if budget is None else budget - block.token_estimate
            self._runtime.record_context(session.session_id, block)
            given.append(block_message(block))
        return {"session_id": session.session_id, "context_blocks": given, "left_out": left_out, **_rules(resolution)}

    def _search_contexts(self, caller: Caller, arguments: Arguments) -> object:
        session = caller.sessions.current()
        resolution = self._runtime.resolve(session.session_id, goal=cast("str", arguments["query"]))
        words = cast("str", arguments["query"]).casefold().split()
        found = [
            {
                "block_id": block.block_id,
                "source": block.source,
                "name": block.name,
                "uri": f"cra://context/{block.source.split('/', 1)[0]}/{block.block_id}",
                "matches": sum(block.content.casefold().count(word) for word in words),
                "token_estimate": block.token_estimate,
            }
            for block in resolution.context_blocks
        ]
        found.sort(key=lambda entry: -cast("int", entry["matches"]))
        return {"results": found[: cast("int", arguments.get("limit", 10))]}

    def _report_action(self, caller: Caller, arguments: Arguments) -> object:
        session = caller.sessions.current()
        parameters = arguments.get("parameters", {})
        payload = {
            "action": arguments["action"],
            "parameters_hash": digest(parameters),
            "outcome": arguments.get("outcome"),
        }
        self._runtime.record(session.session_id, "action.reported", payload)
        return {"recorded": True, "session_id": session.session_id}

    def _feedback(self, caller: Caller, arguments: Arguments) -> object:
        session = caller.sessions.current()
        payload = {
            "context_id": arguments["context_id"],
            "helpful": arguments["helpful"],
            "reason": lossy(arguments.get("reason")),
        }
        self._runtime.record(session.session_id, "feedback.received", payload)
        return {"recorded": True, "session_id": session.session_id}

    def _list_atlases(self, _caller: Caller, _arguments: Arguments) -> object:
        return {"atlases": [_without_counts(atlas.to_dict()) for atlas in self._runtime.list_atlases()]}

    def _bootstrap(self, caller: Caller, arguments: Arguments) -> object:
        session = caller.sessions.start(
            cast("str", arguments["goal"]), cast("str | None", arguments.get("parent_session_id"))
        )
        resolution = self._runtime.resolve(session.session_id)
        for block in resolution.context_blocks:
            self._runtime.record_context(session.session_id, block)
        check = self._runtime.verify_chain(session.session_id)
        return {
            "session": session.to_dict(),
            **_rules(resolution),
            "context_blocks": [block_message(block) for block in resolution.context_blocks],
            "chain_head": {"sequence": check.head.sequence, "event_hash": check.head.event_hash}
            if check.head
            else None,
        }

    # --- what is listed --------------------------------------------------------------------------------------------

    def _all(self) -> dict[str, ControlTool]:
        goal = {"type": "string", "minLength": 1, "maxLength": _MAX_GOAL, "description": "What the work is for."}
        text = {"type": "string", "minLength": 1, "maxLength": _MAX_GOAL}
        parent = {
            "type": "string",
            "minLength": _ID_LENGTH,
            "maxLength": _ID_LENGTH,
            "description": "A session of yours that this one works for; it stays open.",
        }
        return {
            "cra_start_session": _control(
                "cra_start_session",
                "Start governed session",
                "Start a new session for a goal. Answers with what may be done, what is denied and why, and which context "
                "documents there are. On a connection of your own it takes the place of the session before it.",
                {"goal": goal, "parent_session_id": parent},
                ["goal"],
                self._start_session,
            ),
            "cra_request_context": _control(
                "cra_request_context",
                "Request context",
                "Get the documents this work needs, most important first. Say what is needed; max_tokens bounds the size.",
                {
                    "need": {**text, "description": "What is to be known."},
                    "hints": {"type": "array", "items": {"type": "string", "maxLength": 1000}, "maxItems": 100},
                    "max_tokens": {"type": "integer", "minimum": 1, "maximum": 1_000_000},
                },
                ["need"],
                self._request_context,
            ),
            "cra_end_session": _control(
                "cra_end_session",
                "End governed session",
                "End the session when the work is done. Answers with the number of events and the head of the trace.",
                {"summary": {**text, "description": "What was achieved."}},
                [],
                self._end_session,
            ),
            "cra_search_contexts": _control(
                "cra_search_contexts",
                "Search context documents",
                "Find context documents by words, without their content.",
                {"query": text, "limit": {"type": "integer", "minimum": 1, "maximum": 100}},
                ["query"],
                self._search_contexts,
            ),
            "cra_report_action": _control(
                "cra_report_action",
                "Report an action",
                "Record something that was done outside this server. It is recorded as reported, not as carried out.",
                {"action": text, "parameters": {"type": "object"}, "outcome": text},
                ["action"],
                self._report_action,
            ),
            "cra_feedback": _control(
                "cra_feedback",
                "Feedback on context",
                "Say whether a context document helped.",
                {"context_id": text, "helpful": {"type": "boolean"}, "reason": text},
                ["context_id", "helpful"],
                self._feedback,
            ),
            "cra_list_atlases": _control(
                "cra_list_atlases",
                "List atlases",
                "The loaded packages of actions, policies and context, with version and digest.",
                {},
                [],
                self._list_atlases,
            ),
            "cra_bootstrap": _control(
                "cra_bootstrap",
                "Start with everything",
                "Start a session and get its rules, its context documents and the head of its trace in one call.",
                {"goal": goal, "parent_session_id": parent},
                ["goal"],
                self._bootstrap,
            ),
            trace_tool.NAME: ControlTool(trace_tool.TOOL, trace_tool.TraceTool(self._runtime).run),
        }


def _control(  # noqa: PLR0917 - a table row
    name: str,
    title: str,
    description: str,
    properties: dict[str, Any],
    required: list[str],
    run: Callable[[Caller, Arguments], object],
) -> ControlTool:
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    tool = t.Tool(
        name=name,
        title=title,
        description=description,
        input_schema=schema,
        annotations=t.ToolAnnotations(title=title, read_only_hint=False, destructive_hint=False, open_world_hint=False),
    )
    return ControlTool(tool, run)


def _rules(resolution: Resolution) -> dict[str, object]:
    """The rules of a resolution in the words of the message, without schemas: those are in the tool list."""
    message = resolution.to_dict()
    return {
        "resolution_id": resolution.resolution_id,
        "decision": message["decision"],
        "allowed_actions": [
            {
                "action_id": permission.action.action_id,
                "needs_approval": permission.decision.effect == "require_approval",
            }
            for permission in resolution.allowed_actions
        ],
        "denied_actions": message["denied_actions"],
        "constraints": message["constraints"],
        "ttl_seconds": resolution.ttl_seconds,
    }


def _titles(resolution: Resolution) -> list[object]:
    return [
        {"block_id": block.block_id, "name": block.name, "token_estimate": block.token_estimate}
        for block in resolution.context_blocks
    ]


def _without_counts(atlas: dict[str, object]) -> dict[str, object]:
    """What an agent may know of an atlas: how many actions it has would tell of hidden ones."""
    return {key: value for key, value in atlas.items() if key not in {"actions", "policies"}}
