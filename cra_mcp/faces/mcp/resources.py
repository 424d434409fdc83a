"""Traces, sessions, atlases and context as MCP resources.

Rule: a resource shows what the runtime has, unchanged: trace lines are the bytes that were hashed (their table is a second
resource, since hosts hand every part of one to the model). One answer stays under 512 KiB; the rest is named by the next URI.
Source: specs/mcp.md, "Resources".
"""

import base64
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import TypeVar, cast

import mcp_types as t
import orjson
from mcp.shared.exceptions import MCPError
from mcp.shared.uri_template import UriTemplate

from cra_mcp.access import Access
from cra_mcp.atlas.model import ContextBlock
from cra_mcp.canonical import lossy
from cra_mcp.errors import CRAError
from cra_mcp.faces.mcp import app, control_approvals, names, pickable, traces
from cra_mcp.faces.mcp.connection import RequestContext, is_modern, principal_of
from cra_mcp.faces.mcp.sessions import SessionFinder
from cra_mcp.runtime import Runtime
from cra_mcp.words import visible_json

NO_RESOURCE = "there is no such resource"

_PAGE = 100
_MAX_COMPLETIONS = 100

_TRACE = "cra://trace/{session_id}{?after,limit}"
_TABLE = "cra://trace/{session_id}/table{?after,limit}"
_EVENT = "cra://trace/{session_id}/{sequence}"
_CHAIN = "cra://chain/{session_id}"
_ATLAS = "cra://atlas/{atlas_id}"
_CONTEXT = "cra://context/{atlas_id}/{block_id}"
_TEMPLATES: dict[str, tuple[str, str, str, str]] = {
    _TRACE: (
        "trace",
        "Trace of a session",
        "Events of a session as JSON lines, oldest first. `after` is a sequence number, `limit` a number of events.",
        names.TRACE_JSONL,
    ),
    _TABLE: (
        "trace-table",
        "Trace as a table",
        "The same events as a Markdown table, with the verdict on the chain. Paged like the trace.",
        names.MARKDOWN,
    ),
    _EVENT: ("trace-event", "One event", "One event of a trace, by its sequence number.", names.TRACE_JSON),
    _CHAIN: ("chain", "Check of a trace", "Whether the hash chain of a session holds, and its head.", names.JSON),
    _ATLAS: ("atlas", "Atlas", "What an atlas lets this agent do.", names.ATLAS_JSON),
    _CONTEXT: ("context", "Context document", "A document of a context pack.", names.MARKDOWN),
}
_READS_TRACE = ("cra://trace/", "cra://chain/")  # whole traces, and nothing that belongs to the event loop
_PARSED = {template: UriTemplate.parse(template) for template in _TEMPLATES}

T = TypeVar("T")
Reader = Callable[[RequestContext, str, dict[str, str]], t.ReadResourceResult | None]


class Resources:
    """What a caller can read."""

    def __init__(self, runtime: Runtime, sessions: SessionFinder) -> None:
        self._runtime = runtime
        self._sessions = sessions
        self._readers: dict[str, Reader] = {
            _TRACE: self._trace,
            _TABLE: self._table,
            _EVENT: self._event,
            _CHAIN: lambda ctx, uri, values: _json(uri, _chain(self._access(ctx), values["session_id"])),
            _ATLAS: lambda ctx, uri, values: _json(uri, self._atlas(ctx, values["atlas_id"]), kind=names.ATLAS_JSON),
            _CONTEXT: self._context,
        }

    # --- list ------------------------------------------------------------------------------------------------------

    def listing(
        self, ctx: RequestContext, cursor: str | None, more: Sequence[t.Resource] = ()
    ) -> tuple[list[t.Resource], str | None]:
        """One page of what a caller could be given, ``more`` of it last, and the cursor of the next.

        Raises:
            MCPError: the cursor is not one of ours.
        """
        fixed = [
            t.Resource(
                uri="cra://session/current",
                name="session-current",
                title="Current session",
                description="The session of this connection or caller: goal, agent, trace and the head of it.",
                mime_type=names.JSON,
            ),
            *pickable.current(self._access(ctx)),
            t.Resource(
                uri="cra://sessions",
                name="sessions",
                title="Sessions",
                description="All traces in the trace folder, the newest first.",
                mime_type=names.JSON,
            ),
            t.Resource(
                uri=app.URI,
                name="trace-page",
                title="Trace viewer",
                description="The page that hosts with MCP Apps show for cra_trace: it verifies the chain itself.",
                mime_type=app.MIME_TYPE,
                _meta=app.resource_meta(),
            ),
        ]
        if self._access(ctx).may_approve:
            fixed.append(
                t.Resource(
                    uri=control_approvals.URI,
                    name="approvals",
                    title="Approvals",
                    description="Calls of your tenant that wait for a person's approval.",
                    mime_type=names.JSON,
                )
            )
        blocks = self._blocks(ctx)
        for atlas in self._runtime.atlases():
            fixed.append(
                t.Resource(
                    uri=f"cra://atlas/{atlas.atlas_id}",
                    name=f"atlas:{atlas.atlas_id}",
                    title=atlas.name,
                    description=atlas.description,
                    mime_type=names.ATLAS_JSON,
                )
            )
            fixed.extend(
                t.Resource(
                    uri=f"cra://context/{atlas.atlas_id}/{block_id}",
                    name=f"context:{block_id}",
                    title=block.name,
                    mime_type=block.content_type,
                    size=len(block.content.encode()),
                )
                for (atlas_id, block_id), block in blocks.items()
                if atlas_id == atlas.atlas_id
            )
        return _page([*fixed, *more], cursor)

    def templates(
        self, cursor: str | None, more: Sequence[t.ResourceTemplate] = ()
    ) -> tuple[list[t.ResourceTemplate], str | None]:
        """One page of templates, ``more`` of them last, and the cursor of the next. Raises as ``listing``."""
        found = [
            t.ResourceTemplate(uri_template=template, name=name, title=title, description=description, mime_type=kind)
            for template, (name, title, description, kind) in _TEMPLATES.items()
        ]
        return _page([*found, *more], cursor)

    # --- read ------------------------------------------------------------------------------------------------------

    async def read(self, ctx: RequestContext, uri: str) -> t.ReadResourceResult:
        """The content of a resource.

        Raises:
            MCPError: there is no such resource, with the code of the caller's era.
        """
        try:
            if pickable.is_current(uri):
                return await self._read_current(ctx, uri)
            if uri.startswith((*_READS_TRACE, control_approvals.URI)):
                found = await traces.off_loop(partial(self._read, ctx, uri))
            else:
                found = self._read(ctx, uri)
        except CRAError as error:
            raise not_found(ctx, uri, error.message) from error
        if found is None:
            raise not_found(ctx, uri, NO_RESOURCE)
        return found

    async def _read_current(self, ctx: RequestContext, uri: str) -> t.ReadResourceResult:
        session = self._sessions.of(ctx).active()
        if session is None:
            return pickable.nothing(self._access(ctx), uri)
        found = await self.read(ctx, pickable.meant(uri, session.session_id))
        contents = [each.model_copy(update={"uri": uri}) for each in found.contents]
        return found.model_copy(update={"contents": contents})

    async def newest(self, ctx: RequestContext) -> list[t.Resource]:
        """The traces of the newest sessions, to be listed."""
        return await traces.off_loop(partial(pickable.newest, self._access(ctx)))

    def _read(self, ctx: RequestContext, uri: str) -> t.ReadResourceResult | None:
        if uri == "cra://session/current":
            return _json(uri, self._current(ctx))
        if uri == "cra://sessions":
            return _json(uri, {"sessions": self._all_sessions(ctx)})
        if uri == app.URI:
            return _app(uri)
        if uri.startswith(control_approvals.URI) and self._access(ctx).may_approve:
            found = control_approvals.read_pending(self._access(ctx), uri)
            return _json(uri, found) if found is not None else None
        for template, parsed in _PARSED.items():
            match = parsed.match(uri)
            if match is not None:
                values = {key: value if isinstance(value, str) else "" for key, value in match.items()}
                return self._readers[template](ctx, uri, values)
        return None

    def _current(self, ctx: RequestContext) -> object:
        session = self._sessions.of(ctx).active()
        if session is None:
            return {"session": None, "note": "a session starts with the first call of a tool"}
        return {
            "session": session.to_dict(),
            "chain": _chain(self._access(ctx), session.session_id),
            "trace": f"cra://trace/{session.session_id}",
        }

    def _all_sessions(self, ctx: RequestContext) -> list[object]:
        access = self._access(ctx)
        return [
            {
                "session_id": info.session_id,
                "modified": info.modified,
                # How large the stored lines are would tell of what the view leaves out of them.
                **({"size_bytes": info.size_bytes} if access.sees_all else {}),
                "live": info.live,
                "trace": f"cra://trace/{info.session_id}",
            }
            for info in islice(access.traces(), traces.MAX_EVENTS)
        ]

    def _trace(self, ctx: RequestContext, uri: str, values: dict[str, str]) -> t.ReadResourceResult | None:
        found = self._page(ctx, values)
        if found is None:
            return None
        page, limit = found
        meta = {names.NEXT_META: _rest_of(page, limit)} if page.more else None
        return t.ReadResourceResult(contents=[traces.jsonl(page, uri, meta)], _meta=meta)

    def _table(self, ctx: RequestContext, uri: str, values: dict[str, str]) -> t.ReadResourceResult | None:
        found = self._page(ctx, values)
        if found is None:
            return None
        page, limit = found
        rest = _rest_of(page, limit, "/table") if page.more else None
        meta = {names.NEXT_META: rest} if rest is not None else None
        check = self._access(ctx).verify_chain(page.session_id)
        text = traces.as_markdown(page, check, traces.summaries(page), rest=f"More: `{rest}`" if rest else None)
        content = t.TextResourceContents(uri=uri, mime_type=names.MARKDOWN, text=text, _meta=meta)
        return t.ReadResourceResult(contents=[content], _meta=meta)

    def _page(self, ctx: RequestContext, values: dict[str, str]) -> tuple[traces.Page, int] | None:
        after = _number(values.get("after"), -1)
        limit = _number(values.get("limit"), traces.MAX_EVENTS)
        if after is None or limit is None or limit < 1:
            return None
        return traces.read_page(self._access(ctx), values["session_id"], after=after, limit=limit), limit

    def _event(self, ctx: RequestContext, uri: str, values: dict[str, str]) -> t.ReadResourceResult | None:
        sequence = _number(values["sequence"], -1)
        if sequence is None or sequence < 0:
            return None
        page = traces.read_page(self._access(ctx), values["session_id"], after=sequence - 1, limit=1)
        return t.ReadResourceResult(contents=[traces.jsonl(page, uri, one=True)]) if page.lines else None

    def _access(self, ctx: RequestContext) -> Access:
        return Access(self._runtime, principal_of(ctx))

    def _atlas(self, ctx: RequestContext, atlas_id: str) -> object:
        """What the agent may know: hidden actions, and the policies that hide them, are not in it."""
        atlas = self._runtime.atlas(atlas_id)
        return {
            "atlas_id": atlas.atlas_id,
            "version": atlas.version,
            "name": atlas.name,
            "description": atlas.description,
            "digest": atlas.digest,
            "actions": [
                permission.to_dict()
                for permission in self._access(ctx).permissions()
                if permission.atlas.atlas_id == atlas_id
            ],
            "context": [
                f"cra://context/{atlas_id}/{block_id}"
                for atlas_id, block_id in self._blocks(ctx)
                if atlas_id == atlas.atlas_id
            ],
        }

    def _context(self, ctx: RequestContext, uri: str, values: dict[str, str]) -> t.ReadResourceResult | None:
        block = self._blocks(ctx).get((values["atlas_id"], values["block_id"]))
        if block is None:
            return None
        session = self._sessions.of(ctx).current()
        self._runtime.record_context(session.session_id, block, principal_of(ctx))
        content = t.TextResourceContents(uri=uri, mime_type=block.content_type, text=block.content)
        return t.ReadResourceResult(contents=[content])

    def _blocks(self, ctx: RequestContext) -> dict[tuple[str, str], ContextBlock]:
        """The documents the caller could be given, by atlas and block, in the order of their atlas."""
        known = self._runtime.context(principal_of(ctx))
        given = {(block.source.split("/", 1)[0], block.block_id): block for block in known}
        every = [
            (atlas.atlas_id, block.block_id) for atlas in self._runtime.atlases() for block in atlas.context_blocks
        ]
        return {key: given[key] for key in every if key in given}

    # --- complete --------------------------------------------------------------------------------------------------

    def complete(self, ctx: RequestContext, params: t.CompleteRequestParams) -> t.Completion:
        """Values for an argument of a template that begin with what was typed."""
        reference = params.ref
        if not isinstance(reference, t.ResourceTemplateReference):
            return t.Completion(values=[])
        chosen = (params.context.arguments or {}) if params.context is not None else {}
        return completion(self._candidates(ctx, params.argument.name, chosen), params.argument.value)

    def _candidates(self, ctx: RequestContext, name: str, chosen: dict[str, str]) -> Sequence[str]:
        access = self._access(ctx)
        if name == "session_id":
            return [info.session_id for info in access.traces()]
        if name == "atlas_id":
            return [atlas.atlas_id for atlas in self._runtime.atlases()]
        if name == "block_id":
            wanted = chosen.get("atlas_id")
            return [block_id for atlas_id, block_id in self._blocks(ctx) if wanted is None or atlas_id == wanted]
        if name == "sequence" and "session_id" in chosen:
            return _sequences(access, chosen["session_id"])
        return []


def completion(candidates: Sequence[str], typed: str) -> t.Completion:
    """Those that begin with what was typed, as many as one answer may hold."""
    found = [candidate for candidate in candidates if candidate.startswith(typed)]
    return t.Completion(values=found[:_MAX_COMPLETIONS], total=len(found), has_more=len(found) > _MAX_COMPLETIONS)


def _chain(access: Access, session_id: str) -> object:
    return {"session_id": session_id, **access.verify_chain(session_id).to_dict()}


def _sequences(access: Access, session_id: str) -> Sequence[str]:
    try:
        events = len(access.read_trace(session_id))
    except CRAError:
        return []
    return [str(sequence) for sequence in range(events)]


def _page(items: list[T], cursor: str | None) -> tuple[list[T], str | None]:
    start = 0
    if cursor is not None:
        try:
            start = int(base64.urlsafe_b64decode(cursor.encode()).decode())
        except ValueError:
            start = -1
        if not 0 < start < len(items):
            raise MCPError(code=t.INVALID_PARAMS, message="the cursor is not one this server gave out")
    end = start + _PAGE
    return items[start:end], base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(items) else None


def _json(uri: str, value: object, *, kind: str = names.JSON) -> t.ReadResourceResult:
    text = visible_json(orjson.dumps(lossy(value), option=orjson.OPT_INDENT_2).decode())
    return t.ReadResourceResult(contents=[t.TextResourceContents(uri=uri, mime_type=kind, text=text)])


def _app(uri: str) -> t.ReadResourceResult:
    content = t.TextResourceContents(uri=uri, mime_type=app.MIME_TYPE, text=app.page(), _meta=app.resource_meta())
    return t.ReadResourceResult(contents=[content])


def _rest_of(page: traces.Page, limit: int, form: str = "") -> str:
    return f"cra://trace/{page.session_id}{form}?after={page.last}&limit={limit}"


def _number(text: str | None, default: int) -> int | None:
    if not text:
        return default
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 16 else None  # noqa: PLR2004 - 2^53 has 16


def not_found(ctx: RequestContext, uri: str, why: str) -> MCPError:
    """The answer for a resource that isn't there for the caller, with the code of its era."""
    code = t.INVALID_PARAMS if is_modern(ctx) else -32002
    return MCPError(code=code, message=f"Resource not found: {why}", data={"uri": cast("str", lossy(uri[:500]))})
