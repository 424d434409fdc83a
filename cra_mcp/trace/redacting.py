"""A trace store behind which nothing is stored that the detectors find.

Rule: every event passes here on its way into a store, whoever recorded it; what others wrote (parameters, results, goals,
messages, facts, names that no action has) is searched, what the runtime itself makes (ids, hashes, decisions) is not. What
is hidden leaves a ``context.redacted`` event just before the event it was hidden in; after it, where that begins the chain.
Source: specs/trace.md, "What is recorded".
"""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from cra_mcp.trace.detect.detectors import Detectors, Found
from cra_mcp.trace.event import Draft, Head
from cra_mcp.trace.store import Recovery, Tap, TraceInfo, TraceStore

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "session.started": ("goal", "context"),
    "carp.request.received": ("goal", "query"),
    "action.requested": ("parameters",),
    "policy.violated": ("faults",),
    "action.executed": ("result",),
    "action.failed": ("error_message", "result"),
    "error.occurred": ("error_message",),
}
_WHOLE = frozenset(("input.received", "output.produced", "action.reported", "feedback.received"))
_NAMING = frozenset(("action.requested", "policy.evaluated", "policy.violated", "action.denied"))
"""What there is about a call of an action that doesn't exist, whose name may be anything."""
_FIRST = "session.started"  # stays the first of its chain: it says whose the chain is
_BY_SETTING = frozenset(("parameters", "result"))  # kept in full where the operator says so
_MAX_FOUND = 64
_ABOUT = ("action_id", "called", "disclosed")  # of the event it stands beside

Added = Callable[[str | None], frozenset[str]]
"""What the atlas of an action has hidden besides what the operator hides; None: what any loaded one has."""
Known = Callable[[str], bool]
"""Whether an action has this name."""


class RedactingStore:
    """Meets ``TraceStore``: hands everything on to ``store``, what is appended without what ``detectors`` find.

    ``added`` can only add to them, by the action an event is about. ``known`` says which names are those of actions.
    """

    remote: ClassVar[bool] = False

    def __init__(
        self,
        store: TraceStore,
        detectors: Detectors,
        added: Added = lambda _: frozenset(),
        known: Known = lambda _: False,
    ) -> None:
        if store.remote:
            raise ValueError("a remote store needs a redacting one that says it is remote")
        self._store = store
        self._detectors = detectors
        self._added = added
        self._known = known

    def append(self, session_id: str, drafts: Sequence[Draft], *, durable: bool = False) -> Head:
        """See ``TraceStore.append``. Where something was hidden, more events than ``drafts`` are stored.

        The head is that of the last draft, but for the first event of a chain, which a marker follows.
        """
        kept: list[Draft] | None = None
        for place, draft in enumerate(drafts):
            clean, found = self._clean(draft)
            if found:
                kept = list(drafts[:place]) if kept is None else kept
                told = _marker(clean, found)
                kept += (clean, told) if draft.event_type == _FIRST else (told, clean)
            elif kept is not None:
                kept.append(draft)
        return self._store.append(session_id, drafts if kept is None else kept, durable=durable)

    def _clean(self, draft: Draft) -> tuple[Draft, Sequence[Found]]:
        """A draft without what is found in it. Most have nothing to be searched, and cost next to nothing here."""
        payload = draft.payload
        if isinstance(payload, bytes):  # canonical already: made by the runtime of ids and digits
            return draft, ()
        fields, action_id = self._searched(draft.event_type, payload)
        if not fields:
            return draft, ()
        detectors = self._detectors.adding(self._added(action_id))
        found: list[Found] = []
        clean: dict[str, object] = {}
        for field in fields:
            value = payload.get(field)
            if value is None or (field in _BY_SETTING and payload.get("recording") == "full"):
                continue
            kept, hidden = detectors.value(value)
            if hidden:
                clean[field] = kept
                found.extend(each._replace(pointer=f"/{field}{each.pointer}") for each in hidden)
        return (draft._replace(payload={**payload, **clean}), found) if found else (draft, found)

    def _searched(self, event_type: str, payload: Mapping[str, object]) -> tuple[tuple[str, ...], str | None]:
        """The fields of an event that are searched, and the action whose atlas may have more hidden in them."""
        if event_type in _WHOLE or event_type.startswith("x."):
            # An action that is named in it was named by whoever wrote it, and counts for nothing.
            return tuple(payload), None
        fields = _FIELDS.get(event_type, ())
        action_id = payload.get("action_id")
        if not isinstance(action_id, str):
            return fields, None
        if (
            payload.get("disclosed") is False
        ):  # searched alike, whether it is hidden or unknown: by the name its caller used
            name = "called" if "called" in payload else "action_id"
            return (*fields, name) if event_type in _NAMING else fields, None
        if event_type in _NAMING and not self._known(action_id):
            fields = (*fields, "action_id")
        return fields, action_id

    # --- handed on -------------------------------------------------------------------------------------------------

    @property
    def tap(self) -> Tap | None:
        """See ``TraceStore.tap``: told of what is stored, without what was hidden."""
        return self._store.tap

    @tap.setter
    def tap(self, tap: Tap | None) -> None:
        self._store.tap = tap

    def begin(self, session_id: str, trace_id: str) -> None:
        """See ``TraceStore.begin``."""
        self._store.begin(session_id, trace_id)

    def head(self, session_id: str) -> Head | None:
        """See ``TraceStore.head``."""
        return self._store.head(session_id)

    def read(self, session_id: str, *, after: int = -1, limit: int | None = None) -> list[bytes]:
        """See ``TraceStore.read``."""
        return self._store.read(session_id, after=after, limit=limit)

    def unfinished(self, session_id: str) -> bytes:
        """See ``TraceStore.unfinished``."""
        return self._store.unfinished(session_id)

    def sessions(self) -> list[TraceInfo]:
        """See ``TraceStore.sessions``."""
        return self._store.sessions()

    def abandoned(self) -> list[str]:
        """See ``TraceStore.abandoned``."""
        return self._store.abandoned()

    def flush(self, session_id: str) -> None:
        """See ``TraceStore.flush``."""
        self._store.flush(session_id)

    def check(self) -> None:
        """See ``TraceStore.check``."""
        self._store.check()

    def release(self, session_id: str) -> None:
        """See ``TraceStore.release``."""
        self._store.release(session_id)

    def recover(self, session_id: str) -> Recovery:
        """See ``TraceStore.recover``."""
        return self._store.recover(session_id)

    def close(self) -> None:
        """See ``TraceStore.close``."""
        self._store.close()


def _marker(draft: Draft, found: Sequence[Found]) -> Draft:
    """The event that says what was hidden in the one beside it, and where; never what it was."""
    payload: dict[str, object] = {
        "event_type": draft.event_type,
        "found": [{"pointer": each.pointer, "detector": each.detector} for each in found[:_MAX_FOUND]],
    }
    about = draft.payload
    if isinstance(about, Mapping) and isinstance(about.get("action_id"), str):
        payload |= {name: about[name] for name in _ABOUT if name in about}
    return Draft("context.redacted", payload, draft.span_id, draft.parent_span_id)
