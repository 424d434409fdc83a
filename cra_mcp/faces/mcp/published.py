"""Actions that are presented as prompts and as resources.

Rule: getting the one and reading the other is a call of the action, decided and recorded like any. Nothing is decided here.
Source: specs/mcp.md, "Publication".
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast
from urllib.parse import unquote

import mcp_types as t
from mcp.shared.exceptions import MCPError

from cra_mcp.access import Access
from cra_mcp.atlas.model import Action
from cra_mcp.atlas.publication import uri_pattern, uri_variables
from cra_mcp.errors import CRAError
from cra_mcp.faces.mcp.calls import Calls, Wanted
from cra_mcp.faces.mcp.connection import RequestContext, principal_of
from cra_mcp.faces.mcp.content import as_text, contents, readable
from cra_mcp.faces.mcp.tools import receipt_meta
from cra_mcp.gate.call import ExecutionOutcome, Result
from cra_mcp.runtime import Runtime

REFUSED: Final = 1001
"""Code of the error that answers where policy, a person or the action itself said no: prompts and resources have no ``isError``."""


class PublishedPrompts:
    """The prompts a caller can see."""

    def __init__(self, runtime: Runtime, calls: Calls) -> None:
        self._runtime = runtime
        self._calls = calls

    def listing(self, ctx: RequestContext) -> list[t.Prompt]:
        """What to list, sorted by name."""
        return sorted(
            (_prompt(action) for action in _visible(self._runtime, ctx, "prompt")), key=lambda each: each.name
        )

    async def get(
        self, ctx: RequestContext, params: t.GetPromptRequestParams, *, unseen: bool = False
    ) -> t.GetPromptResult | t.InputRequiredResult | None:
        """The messages of a prompt; None if no action is presented to the caller under this name.

        ``unseen``: whatever the caller can see; the gate then refuses and records what is hidden, and what isn't there.

        Raises:
            MCPError: it was refused, or failed.
        """
        access = Access(self._runtime, principal_of(ctx))
        seen = access.published(params.name, "prompt")
        if seen is None and not unseen:
            return None
        action = seen or self._named(params.name)
        wanted = Wanted(action.action_id if action else params.name, params.name, offered=action is not None)
        outcome = await _carried(self._calls, ctx, params, wanted, params.arguments)
        if action is None or not isinstance(outcome, ExecutionOutcome):
            return outcome if isinstance(outcome, t.InputRequiredResult) else None
        messages = [
            t.PromptMessage.model_validate({"role": "user", "content": readable(block)})
            for block in _blocks(_result(outcome))
        ]
        return t.GetPromptResult(description=action.description, messages=messages, _meta=receipt_meta(outcome))

    def _named(self, name: str) -> Action | None:
        """The action presented as a prompt of this name, whoever may know it."""
        action_id = self._runtime.action_id_of(name)
        found = self._runtime.find_action(action_id) if action_id is not None else None
        return found if found is not None and found.publication.kind == "prompt" else None

    def completions(self, ctx: RequestContext, name: str, argument: str) -> list[str]:
        """Values an argument can have, where its schema lists them."""
        action = Access(self._runtime, principal_of(ctx)).published(name, "prompt")
        if action is None:
            return []
        values = _properties(action).get(argument, {}).get("enum")
        return [str(value) for value in cast("list[object]", values)] if isinstance(values, list) else []


class PublishedResources:
    """The resources a caller can see that are actions."""

    def __init__(self, runtime: Runtime, calls: Calls) -> None:
        self._runtime = runtime
        self._calls = calls
        self._patterns: dict[str, re.Pattern[str]] = {}

    def listing(self, ctx: RequestContext) -> list[t.Resource]:
        """Those of one URI each, in load order."""
        return [
            t.Resource(
                uri=_uri(action),
                name=action.published_name,
                title=action.name,
                description=action.description,
                mime_type=action.publication.mime_type,
            )
            for action in _visible(self._runtime, ctx, "resource")
            if not uri_variables(_uri(action))
        ]

    def templates(self, ctx: RequestContext) -> list[t.ResourceTemplate]:
        """Those of many URIs, in load order."""
        return [
            t.ResourceTemplate(
                uri_template=_uri(action),
                name=action.published_name,
                title=action.name,
                description=action.description,
                mime_type=action.publication.mime_type,
            )
            for action in _visible(self._runtime, ctx, "resource")
            if uri_variables(_uri(action))
        ]

    def known(self, ctx: RequestContext, uris: Sequence[str]) -> frozenset[str]:
        """Those of ``uris`` that the caller could be allowed to read as an action."""
        actions = _visible(self._runtime, ctx, "resource")
        return frozenset(uri for uri in uris if any(self._match(action, uri) is not None for action in actions))

    async def read(
        self, ctx: RequestContext, params: t.ReadResourceRequestParams
    ) -> t.ReadResourceResult | t.InputRequiredResult | None:
        """The content of a resource; None if no action is presented under this URI.

        Raises:
            MCPError: it was refused, or failed.
        """
        access = Access(self._runtime, principal_of(ctx))
        uri = str(params.uri)
        # What the caller can see first: something hidden that the URI fits too must not stand in its way. The gate refuses and
        # records what is hidden, and what isn't there.
        action, values = (
            self._find(access.resources(), uri) or self._find(self._runtime.published("resource"), uri) or (None, {})
        )
        wanted = Wanted(action.action_id if action else uri, uri, offered=action is not None)
        outcome = await _carried(self._calls, ctx, params, wanted, values)
        if action is None or not isinstance(outcome, ExecutionOutcome):
            return outcome if isinstance(outcome, t.InputRequiredResult) else None
        kind = action.publication.mime_type or "text/plain"
        found = [contents(uri, kind, block) for block in _blocks(_result(outcome))]
        return t.ReadResourceResult(contents=found, _meta=receipt_meta(outcome))

    def _find(self, actions: Iterable[Action], uri: str) -> tuple[Action, dict[str, str]] | None:
        """The first of ``actions`` that the URI fits, and the values of its variables."""
        fitting = ((action, self._match(action, uri)) for action in actions)
        return next(((action, values) for action, values in fitting if values is not None), None)

    def _match(self, action: Action, uri: str) -> dict[str, str] | None:
        if action.publication.kind != "resource":
            return None
        template = _uri(action)
        pattern = self._patterns.get(template)
        if pattern is None:
            pattern = self._patterns[template] = uri_pattern(template)
        match = pattern.fullmatch(uri)
        return {name: unquote(value) for name, value in match.groupdict().items()} if match is not None else None


def _visible(runtime: Runtime, ctx: RequestContext, kind: str) -> list[Action]:
    permissions = runtime.permissions(principal_of(ctx))
    return [each.action for each in permissions if each.action.publication.kind == kind]


async def _carried(
    calls: Calls,
    ctx: RequestContext,
    params: t.GetPromptRequestParams | t.ReadResourceRequestParams,
    wanted: Wanted,
    arguments: Mapping[str, object] | None,
) -> ExecutionOutcome | t.InputRequiredResult | None:
    """The outcome of a call that succeeded, or what is asked; None where the action must look unknown."""
    try:
        outcome = await calls.call(ctx, params, wanted, arguments)
    except CRAError as error:
        raise MCPError(code=REFUSED, message=error.message, data={"error": error.code, "hint": error.hint}) from error
    if isinstance(outcome, t.InputRequiredResult):
        return outcome
    fault = outcome.fault
    if fault is None:
        return outcome
    if fault.code == "unknown_action":
        return None
    code = t.INVALID_PARAMS if fault.code == "invalid_parameters" else REFUSED
    said = (
        [str(block.get("text", "")) for block in _blocks(outcome.result) if block.get("type") == "text"]
        if outcome.result
        else []
    )
    message = "\n".join(said) or fault.message
    raise MCPError(code=code, message=message, data={"hint": fault.hint, **receipt_meta(outcome)})


def _prompt(action: Action) -> t.Prompt:
    required = action.parameters_schema.get("required", ())
    return t.Prompt(
        name=action.published_name,
        title=action.name,
        description=action.description,
        arguments=[
            t.PromptArgument(
                name=name,
                description=cast("str | None", schema.get("description")),
                required=name in cast("list[str]", required),
            )
            for name, schema in _properties(action).items()
        ],
    )


def _properties(action: Action) -> Mapping[str, Mapping[str, object]]:
    return cast("Mapping[str, Mapping[str, object]]", action.parameters_schema.get("properties", {}))


def _uri(action: Action) -> str:
    uri = action.publication.uri
    assert uri is not None  # noqa: S101 - a resource has one
    return uri


def _result(outcome: ExecutionOutcome) -> Result:
    return outcome.result or Result()


def _blocks(result: Result) -> list[Mapping[str, Any]]:
    if result.content is not None:
        return list(result.content)
    return [{"type": "text", "text": as_text(result.value)}]
