"""Whose a trace is: what its first event says.

Rule: the first event of a chain never changes, so an answer holds for good. Source: specs/identity.md, "Ownership".
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import cast

from cra_mcp.auth.principal import LOCAL_REALM, LOCAL_SUBJECT, Owner, realm_of
from cra_mcp.errors import TraceError
from cra_mcp.trace.event import Event, parse
from cra_mcp.trace.store import TraceStore

_MAX_KNOWN = 65_536


class Owners:
    """Owners by session id, read from the traces."""

    def __init__(self, store: TraceStore) -> None:
        self._store = store
        self._known: OrderedDict[str, Owner] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, session_id: str) -> Owner | None:
        """The owner of a trace; None where there is no such trace, or its first event says nothing that can be relied on."""
        with self._lock:
            known = self._known.get(session_id)
        if known is not None:
            return known
        try:
            lines = self._store.read(session_id, limit=1)
            found = _stated(parse(lines[0])) if lines else None
        except TraceError:
            return None
        if found is not None:
            with self._lock:
                self._known[session_id] = found
                if len(self._known) > _MAX_KNOWN:
                    self._known.popitem(last=False)
        return found


def _stated(first: Event) -> Owner | None:
    if first.event_type != "session.started":
        return None
    payload = first.payload
    principal = payload.get("principal")
    if principal is None:
        tenant, realm, subject = payload.get("tenant", "default"), LOCAL_REALM, LOCAL_SUBJECT
    elif isinstance(principal, dict):
        stated = cast("Mapping[str, object]", principal)
        tenant, subject = stated.get("tenant"), stated.get("subject")
        realm = realm_of(stated.get("credential"), stated.get("issuer"))
    else:
        return None
    return Owner(tenant, realm, subject) if isinstance(tenant, str) and isinstance(subject, str) else None
