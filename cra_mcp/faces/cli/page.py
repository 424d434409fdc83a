"""The report of one session as one HTML document.

Rule: it needs nothing but itself, and nothing in it runs: its policy allows its own style and no more, and what a trace says stands
in it as text only, escaped, without characters that nobody sees or that turn the direction of reading.
Source: Content Security Policy Level 3.
"""

import base64
import hashlib
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from cra_mcp.faces.cli.output import printable
from cra_mcp.faces.cli.wording import Block, Fact, blocks, span_of_time, tally
from cra_mcp.trace.event import Event
from cra_mcp.trace.story import Story
from cra_mcp.trace.summary import summarise
from cra_mcp.trace.telling import tell
from cra_mcp.words import count_of

if TYPE_CHECKING:
    from cra_mcp.faces.cli.kept_atlases import KeptAtlases
    from cra_mcp.faces.cli.verifying import Found

_MAX_TEXT = 4_000
_MAX_CELL = 120
_COLUMNS = (
    ("#", "number"),
    ("Time (UTC)", "plain"),
    ("Event", "plain"),
    ("Action", "plain"),
    ("Decision", "plain"),
    ("Policy", "plain"),
    ("ms", "number"),
    ("Signed", "plain"),
    ("Hash", "hashes"),
)
_SOURCES = {"outside": "kept elsewhere", "beside": "beside the trace"}


def page(found: "Found", kept: "KeptAtlases", *, made: str) -> Iterator[str]:
    """The document, in pieces.

    Args:
        found: the trace, and what verification says of it.
        kept: for the reasons policies give.
        made: by what and when the report is made.
    """
    story = tell(found.lines)
    session_id = story.events[0].session_id if story.events else found.name
    style = files("cra_mcp.faces.cli").joinpath("report.css").read_text(encoding="utf-8").replace("\r\n", "\n")
    yield from _head(f"Session {session_id}", style)
    yield f"<h1>Session <code>{_text(session_id)}</code></h1>\n<p class=quiet>{_text(tally(story))}</p>\n"
    yield from _verdict(found)
    yield from _session(story)
    yield "<h2>What happened</h2>\n"
    for block in blocks(story, kept):
        yield from _block(block, found.diagnosis.bad_index)
    yield from _table(story, found)
    yield f"<footer class=quiet><p>{_text(made)}</p></footer>\n</body>\n</html>\n"


def _head(title: str, style: str) -> Iterator[str]:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    yield (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="referrer" content="no-referrer">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
    )


def _verdict(found: "Found") -> Iterator[str]:
    diagnosis, evidence = found.diagnosis, found.evidence
    yield f'<section class="verdict {"good" if found.ok else "bad"}" id="verdict">\n'
    if not diagnosis.ok:
        what = f"Broken at event {diagnosis.bad_index}: {diagnosis.code} ({diagnosis.kind})"
        yield f"<strong>{_text(what)}</strong>\n<p>{_text(diagnosis.message or '')}</p>\n"
        good = count_of(diagnosis.events, "event")
        yield f"<p>Good before it: {good}. What is told below of it and of later ones may be false.</p>\n"
    elif evidence.fault is not None:
        yield f"<strong>The checkpoints can't be trusted: {_text(evidence.fault[0])}</strong>\n"
    else:
        yield f"<strong>Intact: {count_of(diagnosis.events, 'event')}</strong>\n"
    if found.guarantee is not None:
        yield f"<p>{_text(found.guarantee)}</p>\n"
    yield f"<p><b>Checkpoints:</b> {_text(_checkpoints(found))}</p>\n"
    head = found.check.head
    if head is not None:
        yield f"<p><b>Last good event:</b> {head.sequence} <span class=hash>{_text(head.event_hash)}</span></p>\n"
    yield "</section>\n"


def _checkpoints(found: "Found") -> str:
    diagnosis, evidence = found.diagnosis, found.evidence
    if evidence.fault is not None:
        return f"{evidence.fault[1]} [{evidence.fault[0]}]"
    if evidence.source == "none":
        return evidence.note or "there are none."
    if not diagnosis.checkpoints:
        return (
            f"{_SOURCES[evidence.source]}, signed by {evidence.signer}: {len(evidence.checkpoints)}, and none agrees."
        )
    agreeing = f"{diagnosis.checkpoints} of {len(evidence.checkpoints)} agree"
    covered = count_of(diagnosis.covered, "event")
    end = "; the end of the session is among these events" if diagnosis.ended else ""
    return f"{_SOURCES[evidence.source]}, signed by {evidence.signer}: {agreeing}, the latest for {covered}{end}."


def _session(story: Story) -> Iterator[str]:
    started = story.started
    atlases = "; ".join(f"{ref.atlas_id} {ref.version} (SHA-256 {ref.digest})" for ref in story.atlases_at(0))
    rows = (
        ("Agent", story.origin("agent_id")),
        ("Goal", story.origin("goal") or "none given"),
        ("Tenant", story.origin("tenant")),
        ("When", span_of_time(story)),
        ("Atlases", atlases or None),
        ("Policies", f"SHA-256 {story.origin('policy_digest')}" if story.origin("policy_digest") else None),
        ("Trace", started.trace_id if started is not None else None),
    )
    yield "<h2>Session</h2>\n<dl>\n"
    for label, text in rows:
        if text is not None:
            yield f"<dt>{label}</dt><dd><bdi>{_text(text)}</bdi></dd>\n"
    yield "</dl>\n"


def _block(block: Block, bad: int | None) -> Iterator[str]:
    doubtful = bad is not None and block.last >= bad
    under = " under" if block.under else ""
    level = 3 if block.kind == "request" else 4
    yield f'<article class="block {block.kind} {block.tone}{under}{" doubtful" if doubtful else ""}">\n<div class=head>'
    yield f"<span class=place>{_text(block.place)}</span> <span class=time>{_text(block.time)}</span> "
    yield f"<h{level}><bdi>{_text(block.title)}</bdi></h{level}>"
    if doubtful:
        yield " <span class=doubt>not proven: at or after the break</span>"
    if block.text:
        said = f"<code>{_text(block.text)}</code>" if block.kind == "call" else _text(block.text)
        yield f"<p class=said><bdi>{said}</bdi></p>"
    yield "</div>\n"
    if block.facts:
        yield f"<dl>{''.join(_fact(fact) for fact in block.facts)}</dl>\n"
    yield "</article>\n"


def _fact(fact: Fact) -> str:
    links = " ".join(f'<a class=place href="#e{sequence}">#{sequence}</a>' for sequence in fact.sequences)
    return f'<dt>{_text(fact.label)}</dt><dd class="{fact.tone}"><bdi>{_text(fact.text)}</bdi> {links}</dd>\n'


def _table(story: Story, found: "Found") -> Iterator[str]:
    yield "<h2>Events</h2>\n<table>\n<thead><tr>"
    for name, kind in _COLUMNS:
        yield f"<th class={kind}>{name}</th>"
    yield "</tr></thead>\n<tbody>\n"
    unreadable = {each.position: each for each in story.unreadable}
    events = iter(story.events)
    bad = found.diagnosis.bad_index
    for position in range(len(found.lines)):
        kind = "" if bad is None or position < bad else "bad" if position == bad else "unproven"
        signed = "yes" if position < found.diagnosis.covered and kind == "" else ""
        if position in unreadable:
            message = _text(unreadable[position].message[:_MAX_CELL])
            yield f'<tr class="bad"><td class=number>{position}</td><td></td><td colspan=7>unreadable: {message}</td></tr>\n'
        else:
            yield _row(next(events), kind, signed)
    if bad is not None and bad >= len(found.lines):
        yield f'<tr class="bad"><td class=number>{bad}</td><td></td><td colspan=7>missing: the trace ends before it</td></tr>\n'
    yield "</tbody>\n</table>\n"


def _row(event: Event, kind: str, signed: str) -> str:
    seen = summarise(event)
    cells = (seen.event_type, seen.action_id or "", seen.decision or "", seen.policy_id or "")
    middle = "".join(f"<td><bdi>{_text(cell[:_MAX_CELL])}</bdi></td>" for cell in cells)
    took = "" if seen.duration_ms is None else f"{seen.duration_ms:.10g}"
    return (
        f'<tr id="e{seen.sequence}" class="{kind}"><td class=number>{seen.sequence}</td>'
        f"<td class=time>{_text(seen.timestamp[:23].replace('T', ' '))}</td>{middle}<td class=number>{took}</td>"
        f"<td>{signed}</td><td class=hash>{event.event_hash}</td></tr>\n"
    )


def _text(text: str) -> str:
    """Foreign text as text."""
    return escape(printable(text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"))
