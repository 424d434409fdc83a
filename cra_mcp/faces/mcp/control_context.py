"""Control tools of context: the documents for a need within a budget, and finding them by words.

Rule: what is handed out is recorded; what is only named is not. Source: specs/carp.md, "Context for a need".
"""

from collections.abc import Sequence
from typing import Any, cast

from cra_mcp.faces.mcp.control_sessions import BLOCK, DEFAULT_TOKENS, RULES, rules
from cra_mcp.faces.mcp.control_tool import (
    COUNT,
    STRING,
    TEXT,
    Arguments,
    ControlTool,
    Value,
    control_tool,
    many,
    record,
)
from cra_mcp.faces.mcp.sessions import Caller
from cra_mcp.ranking import Ranked, rank
from cra_mcp.resolution.model import block_message
from cra_mcp.runtime import Runtime

_MAX_TOKENS = 30_000
_DEFAULT_FOUND = 10
_RELEVANCE = {"type": "number", "minimum": 0}
_FOUND = {
    "block_id": STRING,
    "source": STRING,
    "name": STRING,
    "uri": STRING,
    "relevance": _RELEVANCE,
    "token_estimate": COUNT,
}


class _ContextTools:
    """What these tools do."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def request(self, caller: Caller, arguments: Arguments) -> Value:
        session = caller.sessions.current()
        resolution, choice = caller.access.choose_context(
            session.session_id,
            cast("str", arguments["need"]),
            hints=cast("Sequence[str]", arguments.get("hints", ())),
            max_tokens=cast("int", arguments.get("max_tokens", DEFAULT_TOKENS)),
        )
        return {
            "session_id": session.session_id,
            "context_blocks": [
                {**block_message(each.block), "relevance": each.relevance, "uri": _uri(each)} for each in choice.given
            ],
            "tokens": sum(each.block.token_estimate for each in choice.given),
            "left_out": [_named(each) for each in choice.left_out],
            **rules(resolution),
        }

    def search(self, caller: Caller, arguments: Arguments) -> Value:
        query = cast("str", arguments["query"])
        blocks = self._runtime.context(caller.access.principal)
        found = [each for each in rank(blocks, query) if each.relevance > 0]
        return {"results": [_named(each) for each in found[: cast("int", arguments.get("limit", _DEFAULT_FOUND))]]}


def _named(each: Ranked) -> dict[str, Any]:
    block = each.block
    return {
        "block_id": block.block_id,
        "source": block.source,
        "name": block.name,
        "uri": _uri(each),
        "relevance": each.relevance,
        "token_estimate": block.token_estimate,
    }


def _uri(each: Ranked) -> str:
    return f"cra://context/{each.block.source.split('/', 1)[0]}/{each.block.block_id}"


def context_tools(runtime: Runtime) -> list[ControlTool]:
    """The tools of this module."""
    does = _ContextTools(runtime)
    block = {**BLOCK["properties"], "relevance": _RELEVANCE, "uri": STRING}
    return [
        control_tool(
            "cra_request_context",
            "Request context",
            "Get the documents this work needs, the most fitting first. Say what is needed; max_tokens bounds the size. What "
            "did not fit is named with its size.",
            run=does.request,
            arguments={
                "need": {**TEXT, "description": "What is to be known."},
                "hints": {
                    "type": "array",
                    "items": {"type": "string", "maxLength": 1_000},
                    "maxItems": 100,
                    "description": "Words that matter most.",
                },
                "max_tokens": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": _MAX_TOKENS,
                    "default": DEFAULT_TOKENS,
                    "description": "How much may be given, in tokens (4 characters each).",
                },
            },
            required=["need"],
            answers={
                "session_id": STRING,
                "context_blocks": many(record(block)),
                "tokens": COUNT,
                "left_out": many(record(_FOUND)),
                **RULES,
            },
        ),
        control_tool(
            "cra_search_contexts",
            "Search context documents",
            "Find context documents by words, without their content.",
            run=does.search,
            arguments={
                "query": {**TEXT, "description": "Words to look for."},
                "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": _DEFAULT_FOUND},
            },
            required=["query"],
            answers={"results": many(record(_FOUND))},
            reads=True,
        ),
    ]
