"""What a trace says was asked and decided: requests and calls, put together from their events.

Rule: pure. A trace comes from outside: what it can't mean is refused with the event that says so. Source: specs/trace.md,
"Event types" and "Replay".
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Literal, cast

import orjson

from cra_mcp.canonical import digest
from cra_mcp.errors import TraceError
from cra_mcp.policy.model import Facts, RiskTier
from cra_mcp.resolution.model import Query
from cra_mcp.trace.event import parse

Payload = Mapping[str, object]
Verdict = Literal["allow", "require_approval", "deny", "invalid", "unanswered"]

# Where the type of an event stands in a stored line: the hash and the id before it have fixed widths.
_TYPE_AT = len('{"event_hash":"","event_id":"","event_type":"') + 64 + 36
_TIMESTAMP_CHARS = 27
_SECOND_CHARS = 19
_CALL_EVENTS = frozenset(
    {
        "action.requested",
        "policy.evaluated",
        "policy.violated",
        "action.approved",
        "action.denied",
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


@dataclass(frozen=True, slots=True)
class AtlasRef:
    """An atlas as a trace names it."""

    atlas_id: str
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class CatalogueChange:
    """From ``sequence`` on another atlas is loaded, or one fewer, or an overlay more.

    Attributes:
        atlas: which; ``atlas_id`` is the name of an overlay.
        replaces: the id of the atlas in whose place it is loaded.
    """

    sequence: int
    kind: Literal["loaded", "unloaded", "overlay"]
    atlas: AtlasRef
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A CARP resolve and its recorded answer.

    Attributes:
        sequence: of the answer.
        at_us: the instant it was given for, microseconds since the epoch.
        masked: something of what was asked, or of the session's facts, was hidden before it was recorded.
        answer: payload of ``carp.resolution.completed``, or of ``carp.resolution.cached``; None for an error.
        error_code: of a request that was refused.
    """

    sequence: int
    at_us: int
    query: Query
    facts: Facts
    resolution_id: str | None
    answer: Payload | None
    error_code: str | None = None
    masked: bool = False


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One ``policy.evaluated``: what policy said of a call at an instant, with or without consent given before."""

    sequence: int
    at_us: int
    result: str
    policy_id: str
    basis: str
    determining: tuple[str, ...]
    consented: bool


@dataclass(slots=True)
class RecordedCall:
    """A call and everything that was decided on it.

    Attributes:
        sequence: of ``action.requested``.
        requested_us: when it is dated, microseconds since the epoch.
        parameters: None where the trace holds only a part or a hash of them, or they are no object.
        formless: they are known to be no JSON object.
        resolution_id: None in traces that don't say it.
        evaluations: in order.
        invalid: its parameters were refused.
        approval: what became of the consent it needed, an event type; None if it needed none or nobody has answered.
    """

    sequence: int
    requested_us: int
    span_id: str
    action_id: str
    parameters: Payload | None
    parameters_hash: str
    resolution_id: str | None
    formless: bool = False
    evaluations: list[Evaluation] = field(default_factory=list[Evaluation])
    invalid: bool = False
    approved: bool = False
    denied_by: str | None = None
    approval: str | None = None

    @property
    def verdict(self) -> Verdict:
        """What policy made of the call: that consent was needed, whatever was answered, unless a limit refused it then."""
        if self.invalid:
            return "invalid"
        if self.evaluations and self.evaluations[-1].result == "deny":
            return "deny"
        if self.approval is not None:
            return "require_approval"
        return cast("Verdict", self.evaluations[0].result) if self.evaluations else "unanswered"

    @property
    def policy_id(self) -> str | None:
        """The policy that was named first."""
        return self.evaluations[0].policy_id if self.evaluations else self.denied_by


@dataclass(slots=True)
class RecordedSession:
    """A whole trace, as far as decisions go. Lists are in the order of the chain.

    Attributes:
        overlays: in force from the start, in load order; ``atlas_id`` is the name of an overlay.
        shadow: only the overlays' denials were enforced.
    """

    session_id: str
    started_us: int
    facts: Facts
    goal: str
    atlases: tuple[AtlasRef, ...]
    overlays: tuple[AtlasRef, ...] = ()
    shadow: bool = False
    changes: list[CatalogueChange] = field(default_factory=list[CatalogueChange])
    asked: list[Asked] = field(default_factory=list[Asked])
    calls: list[RecordedCall] = field(default_factory=list[RecordedCall])
    events: int = 0


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
        fields = _Fields(payload, sequence)
        try:
            at_us = _micros(timestamp)
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

    def _note(self, session: RecordedSession, event_type: str, at_us: int, fields: "_Fields") -> None:
        sequence = fields.sequence
        if event_type in {"atlas.loaded", "atlas.unloaded"}:
            kind: Literal["loaded", "unloaded"] = "loaded" if event_type == "atlas.loaded" else "unloaded"
            replaces = fields.maybe_text("replaces")
            session.changes.append(CatalogueChange(sequence, kind, _atlas_ref(fields, "atlas_id"), replaces))
        elif event_type == "x.cra.overlay.loaded":
            session.changes.append(CatalogueChange(sequence, "overlay", _atlas_ref(fields, "overlay_id")))
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
        self, session: RecordedSession, request: tuple[Query, Facts, bool], at_us: int, fields: "_Fields"
    ) -> None:
        query, facts, masked = request
        resolution_id = fields.text("resolution_id")
        session.asked.append(
            Asked(fields.sequence, fields.instant(at_us), query, facts, resolution_id, fields.payload, None, masked)
        )


class _Fields:
    """The payload of one event, read with suspicion."""

    __slots__ = ("payload", "sequence")

    def __init__(self, payload: Payload, sequence: int) -> None:
        self.payload = payload
        self.sequence = sequence

    def fault(self, message: str) -> TraceError:
        return TraceError(f"event {self.sequence}: {message}", code="not_replayable", hint="verify the trace first")

    def text(self, name: str) -> str:
        value = self.payload.get(name)
        if not isinstance(value, str):
            raise self.fault(f"{name} is not a text")
        return value

    def maybe_text(self, name: str) -> str | None:
        value = self.payload.get(name)
        return value if isinstance(value, str) else None

    def number(self, name: str) -> int:
        value = self.payload.get(name)
        if type(value) is not int:
            raise self.fault(f"{name} is not a whole number")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.payload.get(name, ())
        if not isinstance(value, list | tuple):
            raise self.fault(f"{name} is not a list")
        found: list[str] = []
        for each in cast("list[object]", value):
            if not isinstance(each, str):
                raise self.fault(f"{name} holds what is no text")
            found.append(each)
        return tuple(found)

    def part(self, name: str) -> "_Fields | None":
        value = self.payload.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.fault(f"{name} is not an object")
        return _Fields(cast("Payload", value), self.sequence)

    def parts(self, name: str) -> "list[_Fields]":
        value = self.payload.get(name)
        if not isinstance(value, list):
            raise self.fault(f"{name} is not a list")
        found: list[_Fields] = []
        for entry in cast("list[object]", value):
            if not isinstance(entry, dict):
                raise self.fault(f"{name} holds what is no object")
            found.append(_Fields(cast("Payload", entry), self.sequence))
        return found

    def tier(self) -> RiskTier:
        try:
            return RiskTier(self.payload.get("risk_tier", RiskTier.LOW))
        except ValueError:
            raise self.fault("risk_tier is none") from None

    def instant(self, dated_us: int) -> int:
        """``at``, or when the event is dated."""
        text = self.maybe_text("at")
        if text is None:
            return dated_us
        try:
            if len(text) != _TIMESTAMP_CHARS:
                raise ValueError(text)
            return _micros(text)
        except ValueError:
            raise self.fault("at is not an instant") from None


def _started(session_id: str, at_us: int, fields: _Fields) -> RecordedSession:
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


def _atlas_ref(fields: _Fields, name: str) -> AtlasRef:
    return AtlasRef(fields.text(name), fields.text("version"), fields.text("digest"))


def _query(session: RecordedSession, fields: _Fields) -> tuple[Query, Facts]:
    """What was asked. Only what differs from the session is in ``query``."""
    query = fields.part("query")
    goal = fields.text("goal")
    if query is None:
        return Query(goal), session.facts
    context = query.part("context")
    facts = Facts(
        agent_id=session.facts.agent_id,
        session_id=session.facts.session_id,
        tenant=session.facts.tenant,
        task_risk=query.tier(),
        context=context.payload if context is not None else {},
        subject=session.facts.subject,
        roles=session.facts.roles,
    )
    asked = Query(goal, query.texts("context_hints"), query.texts("required_capabilities"), query.texts("atlas_ids"))
    return asked, facts


def _requested(span_id: str, at_us: int, fields: _Fields) -> RecordedCall:
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


def _follow(call: RecordedCall, event_type: str, at_us: int, fields: _Fields) -> None:
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
    elif event_type == "action.approved":
        call.approved = True
    elif event_type == "action.denied":
        call.denied_by = fields.text("policy_id")
    else:
        call.approval = event_type


def _parts(line: bytes) -> tuple[str, int, str, str, Payload]:
    """Type, sequence, span, timestamp and payload of an event. What isn't plainly one is left to ``parse``, which says why."""
    try:
        value = orjson.loads(line)
        parts = value["event_type"], value["sequence"], value["span_id"], value["timestamp"], value["payload"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        parts = None
    if parts is None or tuple(map(type, parts)) != (str, int, str, str, dict) or len(parts[3]) != _TIMESTAMP_CHARS:
        event = parse(line)
        return event.event_type, event.sequence, event.span_id, event.timestamp, event.payload
    return parts


def _micros(timestamp: str) -> int:
    """A timestamp of six fractional digits as microseconds since the epoch; exact, unlike a float."""
    return _second_us(timestamp[:_SECOND_CHARS]) + int(timestamp[_SECOND_CHARS + 1 : -1])


@lru_cache(maxsize=64)
def _second_us(text: str) -> int:
    return int(datetime.fromisoformat(f"{text}+00:00").timestamp()) * 1_000_000
