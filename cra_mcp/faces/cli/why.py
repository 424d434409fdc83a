"""``trace why``: one event explained: the call it belongs to, what led to it, and the policies that determined it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, cast

import typer

from cra_mcp.errors import UnknownTraceError
from cra_mcp.faces.cli.exits import NO
from cra_mcp.faces.cli.finding import find_event
from cra_mcp.faces.cli.options import AsJson, DataDir, Store, TraceDir, config_of
from cra_mcp.faces.cli.output import complain, emit, emit_json, paint, printable
from cra_mcp.faces.cli.stores import find_session, open_traces
from cra_mcp.words import count_of

if TYPE_CHECKING:
    from cra_mcp.faces.cli.kept_atlases import Governing, KeptAtlases
    from cra_mcp.settings import RuntimeConfig
    from cra_mcp.trace.event import Event
    from cra_mcp.trace.store import TraceStore
    from cra_mcp.trace.story import Call, Request, Story

EXAMPLES = (
    "cra-mcp trace why latest 10",
    "cra-mcp trace why 01a1fbca 10 --json",
    "cra-mcp trace why 01a1fbca-d011-720e-b030-f1034a65cba2",
)

_LABEL_CHARS = 10
_MAX_TEXT = 2_000


def why(
    what: Annotated[
        str, typer.Argument(metavar="EVENT|SESSION", help="Id or hash of an event; or a session, or `latest`.")
    ],
    sequence: Annotated[
        int | None, typer.Argument(metavar="[SEQUENCE]", min=0, help="Which event of the session.")
    ] = None,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Say why an event came about.

    The request, the answer, the decision, the approval and the outcome of the call it belongs to; the policies that determined it,
    with the reasons their atlas gives, where a copy of just that version is kept beside the traces; and its neighbours in the
    call. It checks the event's own hash and believes the rest of the trace: `verify` says whether it can be believed. Exit code 1
    if the event can't be read, or was changed.
    """
    from cra_mcp.faces.cli.kept_atlases import KeptAtlases  # noqa: PLC0415 - not for --help
    from cra_mcp.trace.telling import tell  # noqa: PLC0415 - not for --help

    config = config_of(data_dir=data_dir, trace_dir=trace_dir, store=store)
    traces = open_traces(data_dir, trace_dir, store)
    session_id, place, lines = _find(config, traces, what, sequence)
    story = tell(lines)
    # By its place in the file, and not by the sequence it gives itself: those differ where somebody changed it.
    unreadable = {each.position: each for each in story.unreadable}
    if place in unreadable:
        complain(
            f"event {place} can't be read: {unreadable[place].message}", f"see `cra-mcp trace verify {session_id}`"
        )
        raise typer.Exit(NO)
    event = story.events[place - sum(position < place for position in unreadable)]
    kept = KeptAtlases(config.trace_path)
    told = explain(story, event, kept)
    if as_json:
        emit_json(told)
    else:
        _print(story, event, told, kept)
    if not told["intact"]:
        complain(f"event {place} was changed: it has not the hash it names", f"see `cra-mcp trace verify {session_id}`")
        raise typer.Exit(NO)


def explain(story: "Story", event: "Event", kept: "KeptAtlases") -> dict[str, object]:
    """All there is to say of an event, as JSON.

    ``intact``: it has the hash it names. ``call``, ``request``, ``decision``, ``approval`` and ``atlas`` are null where there is
    none; ``chain`` lists the events that led to it and followed from it, in order.
    """
    call = story.call_of(event)
    request = story.request_of(call if call is not None else event)
    decision = call.decision if call is not None else None
    consent = story.consent(call) if call is not None else None
    governing = kept.governing(story, event.sequence, call.action_id) if call is not None else None
    around = call.events if call is not None else [each for each in story.events if each.span_id == event.span_id]
    place = next(number for number, each in enumerate(around) if each is event)
    chain = [*(request.events if request is not None else ()), *(call.events if call is not None else ())]
    if consent is not None:
        chain += story.approvals.get(consent.approval_id, ())
    return {
        "event": event.to_dict(),
        "intact": event.compute_hash() == event.event_hash,
        "request": _request(request),
        "call": _call(story, call),
        "decision": asdict(decision) if decision is not None else None,
        "policies": _policies(call, governing),
        "approval": asdict(consent) if consent is not None else None,
        "atlas": {**asdict(governing.ref), "kept": governing.atlas is not None} if governing is not None else None,
        "chain": [_short(each) for each in _in_order(story, chain)],
        "previous": _short(around[place - 1]) if place else None,
        "next": _short(around[place + 1]) if place + 1 < len(around) else None,
    }


def _find(
    config: "RuntimeConfig", store: "TraceStore", what: str, sequence: int | None
) -> tuple[str, int, list[bytes]]:
    """Session, position and lines of the event that is meant.

    Raises:
        UnknownTraceError: there is none.
    """
    if sequence is not None:
        session_id = find_session(store, what)
        lines = store.read(session_id)
        if sequence >= len(lines):
            raise UnknownTraceError(
                f"session {session_id} has {count_of(len(lines), 'event')}, from 0",
                hint=f"see `cra-mcp trace show {session_id}`",
            )
        return session_id, sequence, lines
    return find_event(config, store, what)


def _request(request: "Request | None") -> dict[str, object] | None:
    if request is None:
        return None
    asked, answer = request.asked, request.answer
    return {
        "asked": dict(asked.payload) if asked is not None else None,
        "answer": {"event_type": answer.event_type, **answer.payload} if answer is not None else None,
        "sequences": [event.sequence for event in request.events],
    }


def _call(story: "Story", call: "Call | None") -> dict[str, object] | None:
    if call is None:
        return None
    return {
        "span_id": call.span_id,
        "action_id": call.action_id,
        "parameters": call.requested.payload.get("parameters") if call.requested is not None else None,
        "outcome": story.fate(call),
        "duration_ms": call.duration_ms,
        "elapsed_ms": call.elapsed_ms,
        "sequences": [event.sequence for event in call.events],
    }


def _policies(call: "Call | None", governing: "Governing | None") -> list[dict[str, object]]:
    """Every policy a decision on the call names, the deciding one first, with its reason."""
    decision = call.decision if call is not None else None
    if decision is None:
        return []
    names = [name for name in (decision.policy_id, *decision.determining) if name is not None]
    recorded = {decision.policy_id: decision.reason} if decision.reason else {}
    return [
        {
            "policy_id": name,
            "deciding": name == decision.policy_id,
            "reason": recorded.get(name) or (governing.reason(name) if governing is not None else None),
        }
        for name in dict.fromkeys(names)
    ]


def _in_order(story: "Story", events: "Sequence[Event]") -> "list[Event]":
    wanted = {id(event) for event in events}
    return [event for event in story.events if id(event) in wanted]


def _short(event: "Event") -> dict[str, object]:
    return {"sequence": event.sequence, "event_type": event.event_type, "timestamp": event.timestamp}


def _print(story: "Story", event: "Event", told: "Mapping[str, object]", kept: "KeptAtlases") -> None:
    from cra_mcp.faces.cli.events import detail  # noqa: PLC0415 - not for --help
    from cra_mcp.faces.cli.wording import call_facts, request_block  # noqa: PLC0415 - not for --help

    emit(f"{paint(f'#{event.sequence} {event.event_type}', 'bold')}  {event.timestamp}  {_clean(detail(event))}")
    _say("session", f"{event.session_id}, of {story.origin('agent_id') or '?'}")
    call = story.call_of(event)
    request = story.request_of(call if call is not None else event)
    if request is not None:
        block = request_block(request)
        _say("request", f"{block.place} {block.title} {block.text}")
        _say("answer", next((fact.text for fact in block.facts), ""))
    if call is not None:
        asked = detail(call.requested) if call.requested is not None else ""
        _say("call", f"#{call.events[0].sequence} {call.action_id or '?'} {asked}")
        for fact in call_facts(story, call, kept):
            _say(fact.label, fact.text)
    _print_rest(event, told)


def _print_rest(event: "Event", told: "Mapping[str, object]") -> None:
    for policy in cast("list[dict[str, object]]", told["policies"]):
        deciding = " (deciding)" if policy["deciding"] else ""
        _say("policy", f"{policy['policy_id']}{deciding}: {policy['reason'] or 'no reason is known here'}")
    atlas = cast("dict[str, object] | None", told["atlas"])
    if atlas is not None:
        copy = "a copy is kept" if atlas["kept"] else "no copy is kept here"
        _say("atlas", f"{atlas['atlas_id']} {atlas['version']}, SHA-256 {str(atlas['digest'])[:16]}…; {copy}")
    for label in ("previous", "next"):
        near = cast("dict[str, object] | None", told[label])
        _say(label, f"#{near['sequence']} {near['event_type']}" if near is not None else "none in this span")
    for number, step in enumerate(cast("list[dict[str, object]]", told["chain"])):
        mark = "  <- this" if step["sequence"] == event.sequence else ""
        _say("" if number else "chain", f"#{step['sequence']} {step['event_type']}{mark}")


def _say(label: str, text: str) -> None:
    emit(f"{paint(label.ljust(_LABEL_CHARS), 'dim')}{_clean(text)}".rstrip())


def _clean(text: str) -> str:
    return printable(text[:_MAX_TEXT])
