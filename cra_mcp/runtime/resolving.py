"""CARP resolve for the sessions of a runtime: answered by the resolver, recorded, and kept for the calls made under it.

Rule: a resolution that could not be recorded does not exist. Source: specs/carp.md, "Resolution".
"""

from collections.abc import Mapping
from dataclasses import replace

from cra_mcp.atlas.registry import Catalogue
from cra_mcp.auth.principal import Principal
from cra_mcp.auth.roles import may
from cra_mcp.canonical import lossy
from cra_mcp.errors import RequestError
from cra_mcp.policy.model import Facts
from cra_mcp.resolution.model import Answer, Permission, Query, Resolution
from cra_mcp.resolution.resolver import Resolver
from cra_mcp.runtime.sessions import Sessions, check_goal, facts_outside
from cra_mcp.session import Session
from cra_mcp.settings import RuntimeConfig
from cra_mcp.trace.event import Draft, format_timestamp
from cra_mcp.trace.store import TraceStore


class Resolving:
    """Makes and finds resolutions.

    Args:
        catalogue: the atlases to resolve from.
    """

    def __init__(self, config: RuntimeConfig, store: TraceStore, sessions: Sessions, catalogue: Catalogue) -> None:
        self._config = config
        self._store = store
        self._sessions = sessions
        self._resolver = Resolver(catalogue)

    def use(self, catalogue: Catalogue) -> None:
        """Resolve from ``catalogue`` from now on; what was resolved before no longer stands in for new calls."""
        self._resolver = Resolver(catalogue)
        for session in self._sessions.active():
            session.outdate()

    def preview(self, principal: Principal | None) -> Answer | None:
        """What a principal could be allowed and told now, without a session; None if it may not call. Nothing is recorded."""
        if principal is not None and not may(principal, "call"):
            return None
        return self._resolver.answer(
            Query(""), facts_outside(self._config, principal), self._config.clock_ns() // 1_000
        )

    def hidden(self, principal: Principal | None) -> Mapping[str, Permission]:
        """The actions that a principal must not be told of now, by id, whether it may call or not."""
        now_us = self._config.clock_ns() // 1_000
        return self._resolver.answer(Query(""), facts_outside(self._config, principal), now_us).outcome.hidden

    def unchanged_for_us(self) -> int | None:
        """Microseconds until time can change what anybody is allowed or told; None: it never does."""
        now_us = self._config.clock_ns() // 1_000
        boundary = self._resolver.next_boundary(Query(""), now_us)
        return None if boundary is None else boundary - now_us

    def resolve(
        self, session: Session, query: Query, facts: Facts, request_id: str, principal: Principal | None = None
    ) -> Resolution:
        """Resolve a query of an active session, and make the resolution the current one for its roles.

        Args:
            session: where it is recorded.
            query: what is asked.
            facts: of the requester, its roles included.
            request_id: names the request.
            principal: who asks; None: whoever began the session.

        Raises:
            RequestError: what is wrong with the query; recorded.
            TraceUnavailableError: the resolution could not be recorded, so there is none.
        """
        now_us = self._config.clock_ns() // 1_000
        resolver = self._resolver
        try:
            check_goal(query.goal)
            answer = resolver.answer(query, facts, now_us)
            ttl_seconds = resolver.ttl_seconds(query, now_us, self._config.ttl_seconds)
        except RequestError as error:
            self._sessions.record_error(
                session, request_id, error, received=_received(query, facts, session, request_id, principal)
            )
            raise
        resolution_id = self._config.new_id()
        root_span = session.root_span
        with session.lock:
            # What a trace has said once it need not say again: a repeated answer names the event that lists it.
            first = session.recorded_answers.get(answer)
            if first is not None and facts is session.facts:
                # Canonical by construction, in a place that runs on every repeat: keys in order, ids and digits only.
                at = f'"at":"{format_timestamp(now_us * 1_000)}",' if answer.timed else ""
                payload = (
                    f'{{{at}"digest":"{answer.outcome.digest}","first_sequence":{first},"request_id":"{request_id}",'
                    f'"resolution_id":"{resolution_id}","ttl_seconds":{ttl_seconds}}}'
                ).encode()
                head = self._store.append(session.session_id, (Draft("carp.resolution.cached", payload, root_span),))
            else:
                received = _received(query, facts, session, request_id, principal)
                completed = _completed(answer, request_id, resolution_id, ttl_seconds)
                if answer.timed:
                    completed["at"] = format_timestamp(now_us * 1_000)
                head = self._store.append(
                    session.session_id,
                    (
                        Draft("carp.request.received", received, root_span),
                        Draft("carp.resolution.completed", completed, root_span),
                    ),
                )
                if facts is session.facts:
                    session.recorded_answers[answer] = head.sequence
            resolution = Resolution(
                resolution_id,
                request_id,
                head.timestamp,
                session.trace_id,
                ttl_seconds,
                now_us + ttl_seconds * 1_000_000,
                query,
                facts,
                answer,
            )
            session.keep(resolution)
        return resolution

    def held(self, session: Session, resolution_id: str | None, principal: Principal | None = None) -> Resolution:
        """The resolution a call is made under: the named one, or the current one for its roles, renewed if it has expired.

        Raises:
            RequestError: ``unknown_resolution`` or ``resolution_expired``; recorded.
            TraceUnavailableError: as ``resolve``.
        """
        now_us = self._config.clock_ns() // 1_000
        own = session.facts_for(principal)
        if resolution_id is None:
            current = session.current.get(own.roles)
            if current is not None and now_us < current.expires_at_us:
                return current
            facts = current.facts if current is not None else own
            latest = current or session.resolution
            if current is None and latest is not None and latest.facts.task_risk.rank > own.task_risk.rank:
                facts = replace(own, task_risk=latest.facts.task_risk)  # what others asked for may tighten, never widen
            query = latest.query if latest is not None else Query(session.goal)
            return self.resolve(session, query, facts, self._config.new_id(), principal)
        found = session.resolutions.get(resolution_id)
        if found is None or found.facts.roles != own.roles:
            error = RequestError(
                "unknown_resolution", "this session has no such resolution for your roles", hint="resolve again"
            )
            raise self._sessions.recorded(session, None, error)
        if now_us >= found.expires_at_us:
            error = RequestError("resolution_expired", "this resolution has expired", hint="resolve again")
            raise self._sessions.recorded(session, None, error)
        return found


def _received(
    query: Query, facts: Facts, session: Session, request_id: str, principal: Principal | None
) -> dict[str, object]:
    payload: dict[str, object] = {"goal": lossy(query.goal), "operation": "resolve", "request_id": request_id}
    if principal is not None and principal != session.principal:
        payload["principal"] = principal.of_request()
    if query.hints or query.capabilities or query.atlas_ids or facts is not session.facts:
        payload["query"] = lossy(
            {
                "atlas_ids": list(query.atlas_ids),
                "context": dict(facts.context),
                "context_hints": list(query.hints),
                "required_capabilities": list(query.capabilities),
                "risk_tier": facts.task_risk.value,
            }
        )
    return payload


def _completed(answer: Answer, request_id: str, resolution_id: str, ttl_seconds: int) -> dict[str, object]:
    outcome = answer.outcome
    return {
        **outcome.recorded,
        "allowed_count": len(outcome.allowed),
        "context_block_count": len(answer.context_blocks),
        "context_blocks": list(answer.block_ids),
        "decision_type": outcome.decision_type,
        "denied_count": len(outcome.denied) + len(outcome.hidden),
        "digest": outcome.digest,
        "request_id": request_id,
        "resolution_id": resolution_id,
        "ttl_seconds": ttl_seconds,
        **({"undisclosed": list(outcome.hidden)} if outcome.hidden else {}),
    }
