"""Telling the story of a trace: its events put together.

Rule: pure, and total over any lines. It judges no chain; ``verify`` does that. Source: specs/trace.md, "Event types".
"""

from collections.abc import Iterable

from cra_mcp.errors import TraceError
from cra_mcp.trace.event import Event, parse
from cra_mcp.trace.payloads import text_of
from cra_mcp.trace.story import Call, Request, Story, Unreadable

_OF_CALLS = frozenset(
    {
        "action.requested",
        "policy.evaluated",
        "policy.violated",
        "action.approved",
        "action.denied",
        "action.executed",
        "action.failed",
        "approval.requested",
        "approval.granted",
        "approval.rejected",
        "approval.expired",
    }
)
_OF_REQUESTS = frozenset({"carp.request.received", "carp.resolution.completed", "carp.resolution.cached"})


def tell(lines: Iterable[bytes]) -> Story:
    """The story of stored lines."""
    teller = _Teller()
    parsed: list[Event | Unreadable] = []
    for position, line in enumerate(lines):
        try:
            parsed.append(parse(line))
        except TraceError as error:
            parsed.append(Unreadable(position, error.message))
    teller.look_ahead(parsed)
    for position, each in enumerate(parsed):
        teller.story.places[id(each)] = position
        teller.take(each)
    return teller.story


class _Teller:
    """A story being put together."""

    def __init__(self) -> None:
        self.story = Story()
        self._roots: set[str] = set()
        self._resolutions: dict[str, str] = {}
        self._spans: dict[str, Call] = {}
        self._by_request: dict[str, Request] = {}
        self._by_resolution: dict[str, Request] = {}
        self._current: Request | None = None

    def look_ahead(self, parsed: Iterable[Event | Unreadable]) -> None:
        """Find the spans that are of sessions, not of calls, and the resolutions calls are made under."""
        for each in parsed:
            if not isinstance(each, Event):
                continue
            if each.parent_span_id is not None:
                self._roots.add(each.parent_span_id)
            if each.event_type == "session.started" or each.event_type in _OF_REQUESTS:
                self._roots.add(each.span_id)
            elif (
                each.event_type == "action.requested" and (found := text_of(each.payload, "resolution_id")) is not None
            ):
                self._resolutions.setdefault(each.span_id, found)

    def take(self, each: Event | Unreadable) -> None:
        story = self.story
        if isinstance(each, Unreadable):
            story.unreadable.append(each)
            self._note(each)
            return
        story.events.append(each)
        if each.event_type in {"atlas.loaded", "atlas.unloaded"}:
            story.changes.append(each)
        request_id = text_of(each.payload, "request_id")
        if each.event_type == "session.started" and story.started is None:
            story.started = each
        elif each.event_type == "session.ended" and story.ended is None:
            story.ended = each
        elif each.event_type in _OF_REQUESTS or (
            each.event_type == "error.occurred" and request_id in self._by_request
        ):
            self._of_request(each, request_id)
        elif each.event_type in _OF_CALLS or (each.parent_span_id is not None and each.span_id not in self._roots):
            self._of_call(each)
        else:
            self._note(each)

    def _of_request(self, event: Event, request_id: str | None) -> None:
        request = self._by_request.get(request_id) if request_id is not None else None
        if request is None:
            request = Request()
            self.story.requests.append(request)
            self.story.parts.append(request)
            if request_id is not None:
                self._by_request[request_id] = request
        request.events.append(event)
        resolution_id = text_of(event.payload, "resolution_id")
        if resolution_id is not None:
            self._by_resolution.setdefault(resolution_id, request)
        self._current = request

    def _of_call(self, event: Event) -> None:
        call = self._spans.get(event.span_id)
        # A writer that gives its calls no spans of their own is read by where each begins.
        if call is None or (event.event_type == "action.requested" and call.requested is not None):
            call = self._spans[event.span_id] = Call(event.span_id)
            self.story.calls.append(call)
            self._place(call, event)
        call.events.append(event)
        approval_id = text_of(event.payload, "approval_id")
        if event.event_type.startswith("approval.") and approval_id is not None:
            self.story.approvals.setdefault(approval_id, []).append(event)

    def _place(self, call: Call, event: Event) -> None:
        resolution_id = text_of(event.payload, "resolution_id") or self._resolutions.get(event.span_id)
        named = self._by_resolution.get(resolution_id) if resolution_id is not None else self._current
        (named.parts if named is not None else self.story.parts).append(call)

    def _note(self, part: Event | Unreadable) -> None:
        (self._current.parts if self._current is not None else self.story.parts).append(part)
