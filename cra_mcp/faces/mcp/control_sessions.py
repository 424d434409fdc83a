"""Control tools of sessions: starting and ending one, its rules, and what an agent reports.

Rule: they govern nothing by themselves; every one leaves its events through the runtime. Source: specs/mcp.md, "Control tools".
"""

from typing import Any, cast

from cra_mcp.atlas.model import ContextBlock
from cra_mcp.canonical import digest, lossy
from cra_mcp.faces.mcp.control_tool import (
    BOOLEAN,
    COUNT,
    ID,
    MAX_TEXT,
    OPTIONAL,
    STRING,
    TEXT,
    Arguments,
    ControlTool,
    Later,
    Value,
    control_tool,
    many,
    or_null,
    record,
)
from cra_mcp.faces.mcp.sessions import Caller
from cra_mcp.resolution.model import Resolution, block_message
from cra_mcp.runtime import Runtime
from cra_mcp.session import Session

DEFAULT_TOKENS = 20_000
"""How much context one answer holds, where its caller doesn't say. What there is twice (structure and text) has to stay below the
1 MiB that clients take of one message, in any script."""

_GOAL = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT, "description": "What the work is for."}
_PARENT = {**ID, "description": "A session of yours that this one works for; it stays open."}
_SESSION = record(
    {
        "session_id": STRING,
        "trace_id": STRING,
        "agent_id": STRING,
        "goal": STRING,
        "status": {"enum": ["active", "ending", "ended"]},
        "parent_session_id": OPTIONAL,
        "resolution_id": OPTIONAL,
    }
)
RULES: dict[str, Any] = {
    "resolution_id": STRING,
    "decision": record(
        {"type": {"enum": ["allow", "partial", "requires_approval", "deny"]}, "reason": STRING}, optional=["reason"]
    ),
    "allowed_actions": many(record({"action_id": STRING, "needs_approval": BOOLEAN})),
    "denied_actions": many(record({"action_id": STRING, "reason": STRING, "policy_id": STRING})),
    "constraints": many(record({"constraint_id": STRING, "type": STRING, "parameters": {"type": "object"}})),
    "ttl_seconds": COUNT,
}
"""The schema of ``rules``."""
BLOCK = record(
    {
        "block_id": STRING,
        "source": STRING,
        "content_type": STRING,
        "content": STRING,
        "priority": COUNT,
        "token_estimate": COUNT,
        "metadata": {"type": "object"},
    }
)
"""The schema of a context document with its content."""
_TITLE = record({"block_id": STRING, "name": STRING, "token_estimate": COUNT})
_RECORDED = {"recorded": BOOLEAN, "session_id": STRING}
_HEAD = record({"sequence": COUNT, "event_hash": STRING})


class _SessionTools:
    """What these tools do."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def start(self, caller: Caller, arguments: Arguments) -> Value:
        session = self._begin(caller, arguments)
        resolution = caller.access.resolve(session.session_id)
        titles = [_title(block) for block in resolution.context_blocks]
        return {"session": session.to_dict(), **rules(resolution), "context": titles}

    def bootstrap(self, caller: Caller, arguments: Arguments) -> Value:
        session = self._begin(caller, arguments)
        resolution, choice = caller.access.choose_context(session.session_id, session.goal, max_tokens=DEFAULT_TOKENS)
        head = self._runtime.verify_chain(session.session_id).head
        return {
            "session": session.to_dict(),
            **rules(resolution),
            "context_blocks": [block_message(each.block) for each in choice.given],
            "left_out": [_title(each.block) for each in choice.left_out],
            "chain_head": {"sequence": head.sequence, "event_hash": head.event_hash} if head is not None else None,
        }

    def end(self, caller: Caller, arguments: Arguments) -> Value | Later:
        session = caller.sessions.active()
        if session is None:
            return {"ended": None, "events": 0, "chain_ok": None, "head": None, "note": "no session was active"}
        if summary := arguments.get("summary"):
            self._runtime.record(session.session_id, "x.cra.session.summary", {"summary": lossy(summary)})
        caller.sessions.end("completed")
        return Later(lambda: self._ended(session), reads=True)

    def _ended(self, session: Session) -> Value:
        check = self._runtime.verify_chain(session.session_id)
        return {
            "ended": session.session_id,
            "events": check.events,
            "chain_ok": check.ok,
            "head": check.head.event_hash if check.head is not None else None,
            "note": None,
        }

    def report(self, caller: Caller, arguments: Arguments) -> Value:
        session = caller.sessions.current()
        payload = {
            "action": arguments["action"],
            "parameters_hash": digest(arguments.get("parameters", {})),
            "outcome": arguments.get("outcome"),
        }
        self._runtime.record(session.session_id, "action.reported", payload)
        return {"recorded": True, "session_id": session.session_id}

    def feedback(self, caller: Caller, arguments: Arguments) -> Value:
        session = caller.sessions.current()
        payload = {
            "context_id": arguments["context_id"],
            "helpful": arguments["helpful"],
            "reason": lossy(arguments.get("reason")),
        }
        self._runtime.record(session.session_id, "feedback.received", payload)
        return {"recorded": True, "session_id": session.session_id}

    def atlases(self, _caller: Caller, _arguments: Arguments) -> Value:
        # How many actions and policies an atlas has would tell of hidden ones.
        told = ("atlas_id", "version", "name", "description", "digest")
        return {"atlases": [{key: atlas.to_dict()[key] for key in told} for atlas in self._runtime.list_atlases()]}

    def _begin(self, caller: Caller, arguments: Arguments) -> Session:
        parent = cast("str | None", arguments.get("parent_session_id"))
        return caller.sessions.start(cast("str", arguments["goal"]), parent)


def _title(block: ContextBlock) -> dict[str, object]:
    return {"block_id": block.block_id, "name": block.name, "token_estimate": block.token_estimate}


def rules(resolution: Resolution) -> dict[str, object]:
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


def session_tools(runtime: Runtime) -> list[ControlTool]:
    """The tools of this module."""
    does = _SessionTools(runtime)
    begins = {"goal": _GOAL, "parent_session_id": _PARENT}
    return [
        control_tool(
            "cra_start_session",
            "Start governed session",
            "Start a new session for a goal. Answers with what may be done, what is denied and why, and which context "
            "documents there are. On a connection of your own it takes the place of the session before it.",
            run=does.start,
            arguments=begins,
            required=["goal"],
            answers={
                "session": _SESSION,
                **RULES,
                "context": many(_TITLE),
            },
        ),
        control_tool(
            "cra_bootstrap",
            "Start with everything",
            "Start a session and get its rules, the documents that fit its goal best and the head of its trace in one call.",
            run=does.bootstrap,
            arguments=begins,
            required=["goal"],
            answers={
                "session": _SESSION,
                **RULES,
                "context_blocks": many(BLOCK),
                "left_out": many(_TITLE),
                "chain_head": or_null(_HEAD),
            },
        ),
        control_tool(
            "cra_end_session",
            "End governed session",
            "End the session when the work is done. Answers with the number of events and the head of the trace.",
            run=does.end,
            arguments={"summary": {**TEXT, "description": "What was achieved."}},
            answers={
                "ended": OPTIONAL,
                "events": COUNT,
                "chain_ok": or_null(BOOLEAN),
                "head": OPTIONAL,
                "note": OPTIONAL,
            },
            repeats=True,
        ),
        control_tool(
            "cra_report_action",
            "Report an action",
            "Record something that was done outside this server. It is recorded as reported, not as carried out.",
            run=does.report,
            arguments={
                "action": {**TEXT, "description": "What was done."},
                "parameters": {"type": "object", "description": "With what; the trace keeps their hash."},
                "outcome": {**TEXT, "description": "What came of it."},
            },
            required=["action"],
            answers=_RECORDED,
        ),
        control_tool(
            "cra_feedback",
            "Feedback on context",
            "Say whether a context document helped.",
            run=does.feedback,
            arguments={
                "context_id": {**TEXT, "description": "The block_id of the document."},
                "helpful": {"type": "boolean"},
                "reason": {**TEXT, "description": "Why."},
            },
            required=["context_id", "helpful"],
            answers=_RECORDED,
        ),
        control_tool(
            "cra_list_atlases",
            "List atlases",
            "The loaded packages of actions, policies and context, with version and digest.",
            run=does.atlases,
            needs="read_own",
            answers={
                "atlases": many(
                    record(
                        {
                            "atlas_id": STRING,
                            "version": STRING,
                            "name": STRING,
                            "description": STRING,
                            "digest": STRING,
                        }
                    )
                )
            },
            reads=True,
        ),
    ]
