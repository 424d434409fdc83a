"""A trace put together: from its events to what was asked and decided.

Rule: pure. A trace comes from outside: what it can't mean is refused with the event that says so. Source: specs/trace.md,
"Event types" and "Replay".
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, cast

import orjson

from cra_mcp.canonical import digest
from cra_mcp.errors import TraceError
from cra_mcp.policy.model import Facts
from cra_mcp.replay.fields import TIMESTAMP_CHARS, Fields, micros
from cra_mcp.replay.recorded import Asked, AtlasRef, CatalogueChange, Evaluation, Payload, RecordedCall, RecordedSession
from cra_mcp.resolution.model import Query
from cra_mcp.trace.event import parse

# Where the type of an event stands in a stored line: the hash and the id before it have fixed widths.
_TYPE_AT = len('{"event_hash":"","event_id":"","event_type":"') + 64 + 36
_CALL_EVENTS = frozenset(
    {
        "action.requested",
        "policy.evaluated",
        "policy.violated",
        "action.approved",
        "action.denied",
        "action.failed",
        "approval.requested",
        "approval.granted",
        "approval.rejected",
        "approval.expired",
    }
)
_SESSION_EVENTS = frozenset(
    {
        "session.started",
        "carp.request.received",
        "carp.resolution.completed",
        "carp.resolution.cached",
        "error.occurred",
        "atlas.loaded",
        "atlas.unloaded",
        "context.redacted",
        "x.cra.overlay.loaded",
    }
)
_READ = _CALL_EVENTS | _SESSION_EVENTS
_READ_BYTES = tuple(sorted(name.encode() + b'"' for name in _READ))


def read_session(lines: Iterable[bytes]) -> RecordedSession:
    """Put a trace together. Hashes are not checked: ``verify`` does that.

    Raises:
        TraceError: ``not_replayable``: the first event is not ``session.started``, or one has a payload that means nothing.
        TraceError: ``malformed_event``.
    """
    reader = _Reader()
    for count, line in enumerate(lines):
        reader.events = count + 1
        if (
            count
            and line[_TYPE_AT - 15 : _TYPE_AT] == b',"event_type":"'
            and not line.startswith(_READ_BYTES, _TYPE_AT)
        ):
            continue
        reader.take(line)
    return reader.finish()


class _Reader:
    """One trace being read."""

    def __init__(self) -> None:
        self.events = 0
        self._session: RecordedSession | None = None
        self._spans: dict[str, RecordedCall] = {}
        self._requests: dict[str, tuple[Query, Facts, bool]] = {}
        self._listed: dict[int, tuple[Query, Facts, bool]] = {}
        self._started_masked = False
        self._next_masked = False

    def take(self, line: bytes) -> None:
        event_type, sequence, span_id, timestamp, payload = _parts(line)
        if event_type not in _READ:
            return
        fields = Fields(payload, sequence)
        try:
            at_us = micros(timestamp)
        except ValueError:
            raise fields.fault("timestamp is not an instant") from None
        session = self._session
        if session is None:
            if event_type != "session.started":
                raise fields.fault("the first event is not session.started")
            self._session = _started(parse(line).session_id, at_us, fields)
        elif event_type == "action.requested":
            self._spans[span_id] = call = _requested(span_id, at_us, fields)
            session.calls.append(call)
        elif event_type in _CALL_EVENTS:
            call = self._spans.get(span_id)
            if call is not None:
                _follow(call, event_type, at_us, fields)
        else:
            self._note(session, event_type, at_us, fields)

    def finish(self) -> RecordedSession:
        if self._session is None:
            raise TraceError("the trace is empty", code="not_replayable")
        self._session.events = self.events
        return self._session

    def _note(self, session: RecordedSession, event_type: str, at_us: int, fields: Fields) -> None:
        sequence = fields.sequence
        if event_type in {"atlas.loaded", "atlas.unloaded"}:
            kind: Literal["loaded", "unloaded"] = "loaded" if event_type == "atlas.loaded" else "unloaded"
            replaces = fields.maybe_text("replaces")
            session.changes.append(CatalogueChange(sequence, kind, _atlas_ref(fields, "atlas_id"), replaces))
        elif event_type == "x.cra.overlay.loaded":
            replaces = fields.maybe_text("replaces")
            session.changes.append(CatalogueChange(sequence, "overlay", _atlas_ref(fields, "overlay_id"), replaces))
        elif event_type == "context.redacted":
            # It follows session.started, which is first in its chain, and comes before any other event it speaks of.
            what = fields.maybe_text("event_type")
            self._started_masked = self._started_masked or what == "session.started"
            self._next_masked = self._next_masked or what == "carp.request.received"
        elif event_type == "carp.request.received":
            masked, self._next_masked = self._started_masked or self._next_masked, False
            self._requests[fields.text("request_id")] = (*_query(session, fields), masked)
        elif event_type == "carp.resolution.completed":
            request = self._requests.pop(fields.text("request_id"), None)
            if request is None:
                raise fields.fault("it answers a request that was not recorded")
            self._listed[sequence] = request
            self._answered(session, request, at_us, fields)
        elif event_type == "carp.resolution.cached":
            request = self._listed.get(fields.number("first_sequence"))
            if request is None:
                raise fields.fault("it repeats an answer that was not recorded")
            self._answered(session, request, at_us, fields)
        else:
            request = self._requests.pop(fields.maybe_text("request_id") or "", None)
            if request is not None:
                query, facts, masked = request
                code = fields.maybe_text("error_code")
                session.asked.append(Asked(sequence, at_us, query, facts, None, None, code, masked))

    def _answered(
        self, session: RecordedSession, request: tuple[Query, Facts, bool], at_us: int, fields: Fields
    ) -> None:
        query, facts, masked = request
        resolution_id = fields.text("resolution_id")
        session.asked.append(
            Asked(fields.sequence, fields.instant(at_us), query, facts, resolution_id, fields.payload, None, masked)
        )


def _started(session_id: str, at_us: int, fields: Fields) -> RecordedSession:
    principal = fields.part("principal")
    context = fields.part("context")
    atlases = [_atlas_ref(entry, "atlas_id") for entry in fields.parts("atlases")]
    overlays = (
        [_atlas_ref(entry, "overlay_id") for entry in fields.parts("overlays")] if "overlays" in fields.payload else []
    )
    facts = Facts(
        agent_id=fields.text("agent_id"),
        session_id=session_id,
        tenant=fields.maybe_text("tenant") or "default",
        task_risk=fields.tier(),
        context=context.payload if context is not None else {},
        subject=principal.text("subject") if principal is not None else "local",
        roles=frozenset(principal.texts("roles")) if principal is not None else frozenset(),
    )
    return RecordedSession(
        session_id,
        at_us,
        facts,
        fields.text("goal"),
        tuple(atlases),
        tuple(overlays),
        fields.payload.get("mode") == "shadow",
    )


def _atlas_ref(fields: Fields, name: str) -> AtlasRef:
    return AtlasRef(fields.text(name), fields.text("version"), fields.text("digest"))


def _query(session: RecordedSession, fields: Fields) -> tuple[Query, Facts]:
    """What was asked. Only what differs from the session is in ``query``."""
    query = fields.part("query")
    goal = fields.text("goal")
    principal = fields.part("principal")
    own = session.facts
    if principal is not None:
        own = replace(own, roles=frozenset(principal.texts("roles")))
    if query is None:
        return Query(goal), own
    context = query.part("context")
    facts = Facts(
        agent_id=own.agent_id,
        session_id=own.session_id,
        tenant=own.tenant,
        task_risk=query.tier(),
        context=context.payload if context is not None else {},
        subject=own.subject,
        roles=own.roles,
    )
    asked = Query(goal, query.texts("context_hints"), query.texts("required_capabilities"), query.texts("atlas_ids"))
    return asked, facts


def _requested(span_id: str, at_us: int, fields: Fields) -> RecordedCall:
    parameters = fields.payload.get("parameters")
    stated = fields.text("parameters_hash")
    # What was hidden or left out has another hash: only then a call can be decided again by its arguments.
    exact = isinstance(parameters, dict) and digest(cast("Payload", parameters)) == stated
    return RecordedCall(
        fields.sequence,
        at_us,
        span_id,
        fields.text("action_id"),
        cast("Payload", parameters) if exact else None,
        stated,
        fields.maybe_text("resolution_id"),
        formless=parameters is not None and not isinstance(parameters, dict),
    )


def _follow(call: RecordedCall, event_type: str, at_us: int, fields: Fields) -> None:
    if event_type == "policy.evaluated":
        call.evaluations.append(
            Evaluation(
                fields.sequence,
                fields.instant(at_us),
                fields.text("result"),
                fields.text("policy_id"),
                fields.maybe_text("basis") or "",
                fields.texts("determining"),
                consented=call.approval == "approval.granted",
            )
        )
    elif event_type == "policy.violated":
        call.invalid = call.invalid or fields.maybe_text("violation_type") == "invalid_parameters"
        # What was wrong with their form is not in what is recorded of them, which has a canonical one.
        call.formless = call.formless or _is_of_form(fields.payload.get("faults"))
    elif event_type == "action.approved":
        call.approved = True
    elif event_type == "action.failed":
        call.broken_off = not call.approved
    elif event_type == "action.denied":
        call.denied_by = fields.text("policy_id")
    else:
        call.approval = event_type


def _is_of_form(faults: object) -> bool:
    """Whether what is wrong with parameters is their form, wherever in them it is."""
    match faults:
        case [{"keyword": "form"}]:
            return True
        case _:
            return False


def _parts(line: bytes) -> tuple[str, int, str, str, Payload]:
    """Type, sequence, span, timestamp and payload of an event. What isn't plainly one is left to ``parse``, which says why."""
    try:
        value = orjson.loads(line)
        parts = value["event_type"], value["sequence"], value["span_id"], value["timestamp"], value["payload"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        parts = None
    if parts is None or tuple(map(type, parts)) != (str, int, str, str, dict) or len(parts[3]) != TIMESTAMP_CHARS:
        event = parse(line)
        return event.event_type, event.sequence, event.span_id, event.timestamp, event.payload
    return parts
