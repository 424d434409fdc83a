"""A story in words: blocks of text that a terminal prints and a report lays out.

Rule: total over any story. What a trace says is handed on as it is: whoever shows a block makes it printable, or escapes it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, cast

from cra_mcp.faces.cli.events import detail
from cra_mcp.trace.event import Event
from cra_mcp.trace.payloads import number_of, text_of, texts_of
from cra_mcp.trace.story import Call, Consent, Decision, Fate, Request, Story, Unreadable
from cra_mcp.words import count_of

if TYPE_CHECKING:
    from cra_mcp.faces.cli.kept_atlases import Governing, KeptAtlases

Tone = Literal["good", "bad", "waiting", "plain"]

_TONES: dict[str, Tone] = {
    "executed": "good",
    "failed": "bad",
    "denied": "bad",
    "waiting": "waiting",
    "answered": "plain",
    "unfinished": "bad",
    "undecided": "bad",
    "granted": "good",
    "rejected": "bad",
    "expired": "bad",
    "requested": "waiting",
}
_RESULTS: dict[str, tuple[str, Tone]] = {
    "allow": ("allowed", "good"),
    "deny": ("denied", "bad"),
    "require_approval": ("needs approval", "waiting"),
}
_VIOLATIONS = {
    "rate_limit": "too many calls",
    "budget": "the budget is spent",
    "invalid_parameters": "the parameters are not valid",
    "unauthorized": "not for this caller",
    "frozen": "frozen by the operator",
    "definition_changed": "the tool is not the one that was approved",
}
_DECIDED_BY_DEFAULT = "default"
_SECOND_MS, _MINUTE_MS, _HOUR_MS = 1_000, 60_000, 3_600_000


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing said of a call; ``sequences`` are of the events that say it."""

    label: str
    text: str
    tone: Tone = "plain"
    sequences: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """What is told together.

    Attributes:
        kind: what it tells of.
        place: the events, as ``#3`` or ``#3-6``; ``line 4`` for one that can't be read.
        time: of day, UTC.
        title: an action, or what happened.
        text: what comes with it: parameters, a goal.
        under: a block of the request before it.
        last: position, from 0, of the last line it tells of.
    """

    kind: Literal["request", "call", "note", "unreadable", "end"]
    place: str
    time: str
    title: str
    text: str
    tone: Tone = "plain"
    facts: tuple[Fact, ...] = ()
    under: bool = False
    last: int = 0


def blocks(story: Story, kept: "KeptAtlases") -> Iterator[Block]:
    """A story, block by block."""
    for part in story.parts:
        if isinstance(part, Request):
            yield replace(request_block(part), last=story.last_place(part))
            for inner in part.parts:
                yield replace(_block(story, inner, kept, under=True), last=story.last_place(inner))
        else:
            yield replace(_block(story, part, kept, under=False), last=story.last_place(part))
    if story.ended is not None:
        ended = story.ended
        told = Block("end", _place([ended]), clock(ended.timestamp), "session ended", detail(ended))
        yield replace(told, last=story.last_place(ended))


def span_of_time(story: Story) -> str:
    """From when on, for how long, and how the session ended."""
    if not story.events:
        return "no event can be read"
    ended = text_of(story.ended.payload, "reason") if story.ended is not None else None
    end = f"ended: {ended or '?'}" if story.ended is not None else "its end is not recorded"
    return f"{story.events[0].timestamp[:19].replace('T', ' ')} UTC, {duration(story.elapsed_ms)}, {end}"


def tally(story: Story) -> str:
    """How many events, requests and calls, and what became of the calls."""
    fates = ", ".join(f"{count} {fate}" for fate, count in story.fates.items())
    calls = f"{count_of(len(story.calls), 'call')}{f': {fates}' if fates else ''}"
    unreadable = f", {len(story.unreadable)} of them unreadable" if story.unreadable else ""
    lines = len(story.events) + len(story.unreadable)
    return f"{count_of(lines, 'event')}{unreadable}; {count_of(len(story.requests), 'request')}; {calls}"


def duration(ms: float | None) -> str:
    """Milliseconds as people say them."""
    if ms is None:
        return "unknown time"
    if ms < _SECOND_MS:
        return f"{ms:.3g} ms"
    if ms < _MINUTE_MS:
        return f"{ms / _SECOND_MS:.3g} s"
    if ms < _HOUR_MS:
        return f"{int(ms // _MINUTE_MS)} min {int(ms % _MINUTE_MS // _SECOND_MS)} s"
    return f"{int(ms // _HOUR_MS)} h {int(ms % _HOUR_MS // _MINUTE_MS)} min"


def clock(timestamp: str) -> str:
    """Time of day with milliseconds."""
    return timestamp[11:23]


def call_facts(story: Story, call: Call, kept: "KeptAtlases") -> Iterator[Fact]:
    """Decision, approval, outcome, and what was hidden, of one call."""
    consent, decision = story.consent(call), call.decision
    if decision is not None:
        governing = kept.governing(story, decision.sequence, call.action_id)
        yield _decided(decision, consent, governing)
    if consent is not None:
        yield _consented(call, consent)
    yield _outcome(call, story.fate(call))
    hidden = sum(event.event_type == "context.redacted" for event in call.events)
    if hidden:
        told = "; ".join(detail(event) for event in call.events if event.event_type == "context.redacted")
        yield Fact("hidden", told)


def _block(story: Story, part: Call | Event | Unreadable, kept: "KeptAtlases", *, under: bool) -> Block:
    if isinstance(part, Call):
        return _call(story, part, kept, under=under)
    if isinstance(part, Unreadable):
        return Block("unreadable", f"line {part.position}", "", "unreadable", part.message, "bad", under=under)
    tone: Tone = "bad" if part.event_type == "error.occurred" else "plain"
    return Block("note", _place([part]), clock(part.timestamp), part.event_type, detail(part), tone, under=under)


def request_block(request: Request) -> Block:
    """A request and its answer."""
    asked, answer = request.asked, request.answer
    first = request.events[0]
    goal = text_of(asked.payload, "goal") if asked is not None else None
    facts: list[Fact] = []
    tone: Tone = "plain"
    if answer is None:
        tone = "bad"
        facts.append(Fact("answer", "nothing is recorded", "bad"))
    elif answer.event_type == "error.occurred":
        tone = "bad"
        error = f"{text_of(answer.payload, 'error_code')}: {text_of(answer.payload, 'error_message')}"
        facts.append(Fact("refused", error, "bad", (answer.sequence,)))
    elif answer.event_type == "carp.resolution.cached":
        earlier = number_of(answer.payload, "first_sequence")
        see = f", see #{earlier}" if earlier is not None else ""
        facts.append(Fact("answer", f"as before{see}", "plain", (answer.sequence,)))
    else:
        facts.extend(_answered(answer))
    operation = (text_of(asked.payload, "operation") if asked is not None else None) or "resolve"
    return Block("request", _place(request.events), clock(first.timestamp), operation, goal or "", tone, tuple(facts))


def _answered(answer: Event) -> Iterator[Fact]:
    payload = answer.payload
    counts = f"{number_of(payload, 'allowed_count')} allowed, {number_of(payload, 'denied_count')} denied"
    documents = number_of(payload, "context_block_count")
    took = f", {count_of(documents, 'document')}" if documents else ""
    yield Fact("answer", f"{text_of(payload, 'decision_type')}: {counts}{took}", "plain", (answer.sequence,))
    allowed = texts_of(payload, "allowed")
    if allowed:
        yield Fact("allowed", ", ".join(allowed))
    for name, label in (("requires_approval", "ask"), ("denied", "denied")):
        listed = payload.get(name)
        if isinstance(listed, list) and listed:
            yield Fact(label, ", ".join(_named(each) for each in cast("list[object]", listed)))


def _named(value: object) -> str:
    if not isinstance(value, dict):
        return "?"
    fields = cast("dict[str, object]", value)
    return f"{fields.get('action_id')} (by {fields.get('policy_id')})"


def _call(story: Story, call: Call, kept: "KeptAtlases", *, under: bool) -> Block:
    requested = call.requested
    return Block(
        "call",
        _place(call.events),
        clock(call.events[0].timestamp),
        call.action_id or "an action that is not named",
        detail(requested) if requested is not None else "(how it was asked for is not recorded)",
        _TONES[story.fate(call)],
        tuple(call_facts(story, call, kept)),
        under,
    )


def _decided(decision: Decision, consent: Consent | None, governing: "Governing | None") -> Fact:
    word, tone = _RESULTS.get(decision.result, (decision.result, "plain"))
    if decision.result == "allow" and consent is not None:
        word = "allowed with approval"
    if decision.policy_id == _DECIDED_BY_DEFAULT:
        text = f"{word} by default: no policy applies"
    else:
        text = f"{word} by {decision.policy_id}"
        if consent is None and decision.basis not in {None, decision.result, _DECIDED_BY_DEFAULT}:
            text += f" ({decision.basis})"
    others = [policy for policy in decision.determining if policy != decision.policy_id]
    if others:
        text += f", with {', '.join(others)}"
    recorded = decision.reason if decision.result == "deny" else None
    reason = recorded or (governing.reason(decision.policy_id) if governing is not None else None)
    reason = reason or _VIOLATIONS.get(decision.violation or "")
    return Fact("decision", f"{text}: {reason}" if reason else text, tone, (decision.sequence,))


def _consented(call: Call, consent: Consent) -> Fact:
    own = {event.sequence for event in call.events}
    parts = ["not answered" if consent.status == "requested" else consent.status]
    if consent.by is not None:
        parts.append(f"by {consent.by}")
    if consent.channel is not None:
        parts.append(f"over {consent.channel}" + (f" ({consent.grade})" if consent.grade else ""))
    if consent.waited_ms is not None:
        parts.append(f"after {duration(consent.waited_ms)}")
    text = " ".join(parts)
    if consent.comment:
        text += f": {consent.comment}"
    if consent.asked is not None and consent.asked not in own:
        text += f"; asked for in #{consent.asked}"
    if consent.settled is not None and consent.settled not in own:
        text += f"; see #{consent.settled}"
    places = tuple(place for place in (consent.asked, consent.settled) if place is not None)
    return Fact("approval", text, _TONES[consent.status], places)


def _outcome(call: Call, fate: Fate) -> Fact:
    end = call.end
    if end is None:
        return Fact("outcome", "nothing is recorded of what became of it", "bad")
    where = (end.sequence,)
    if fate == "executed":
        size = number_of(end.payload, "result_bytes")
        text = f"executed in {duration(call.duration_ms)}" + (f", {size} bytes" if size is not None else "")
    elif fate == "failed":
        text = f"failed after {duration(call.duration_ms)}: {detail(end)}"
    elif fate == "denied":
        reason = text_of(end.payload, "reason")
        told = call.last("policy.evaluated") is None or call.last("approval.rejected", "approval.expired") is not None
        text = f"not carried out: {reason}" if told and reason else "not carried out"
    elif fate == "waiting":
        text = "not carried out: it waits for approval"
    elif fate == "answered":
        text = "not carried out then: approved, to be made again"
    else:
        text = "approved, and nothing is recorded of how it ended"
    return Fact("outcome", text, _TONES[fate], where)


def _place(events: list[Event]) -> str:
    first, last = events[0].sequence, events[-1].sequence
    return f"#{first}" if first == last else f"#{first}-{last}"
