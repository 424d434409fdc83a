"""The runtime: all that a face may use.

Rule: sessions, resolutions, calls and traces are reached through here only. Synchronous where nothing waits; ``execute`` is
asynchronous, ``execute_blocking`` is the same for programs without an event loop.
Source: specs/carp.md.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

from cra_mcp.approval.ledger import ApprovalLedger
from cra_mcp.approval.model import Approval, Asker, Channel
from cra_mcp.atlas.model import Action, Atlas, ContextBlock
from cra_mcp.atlas.registry import Catalogue
from cra_mcp.canonical import digest, lossy, sha256_hex
from cra_mcp.errors import CRAError, RequestError, TraceError
from cra_mcp.gate.call import Call, ExecutionOutcome
from cra_mcp.gate.gate import Gate
from cra_mcp.gate.replays import Replays
from cra_mcp.policy.conditions import higher
from cra_mcp.policy.model import Facts, RiskTier
from cra_mcp.resolution import Answer, Permission, Query, Resolution, Resolver
from cra_mcp.session import EndReason, Session
from cra_mcp.settings import RuntimeConfig
from cra_mcp.trace.event import Draft, Event, Verification, parse, verify
from cra_mcp.trace.store import Recovery, TraceInfo, TraceStore

if TYPE_CHECKING:
    from types import TracebackType

    from anyio.from_thread import BlockingPortal

    from cra_mcp.gate.call import Progress
    from cra_mcp.messages import CarpRequest

_MAX_SKEW_NS = 300 * 1_000_000_000
_MAX_GOAL = 10_000


@dataclass(frozen=True, slots=True)
class AtlasInfo:
    """A loaded atlas, for listings."""

    atlas_id: str
    version: str
    name: str
    description: str
    digest: str
    actions: int
    policies: int

    def to_dict(self) -> dict[str, object]:
        """As plain JSON."""
        return {
            "atlas_id": self.atlas_id,
            "version": self.version,
            "name": self.name,
            "description": self.description,
            "digest": self.digest,
            "actions": self.actions,
            "policies": self.policies,
        }


class Runtime:
    """Governs what agents may do, and records what they did.

    Use it as a context manager (``with`` or ``async with``): leaving it ends its sessions and closes what it opened. Actions on
    MCP upstreams can be carried out inside ``async with``, or by ``execute_blocking``.

    Args:
        config: settings.
        store: where traces are kept.
        ledger: approvals.
        gate: the enforcement point; made with the same store and ledger.
    """

    def __init__(self, *, config: RuntimeConfig, store: TraceStore, ledger: ApprovalLedger, gate: Gate) -> None:
        self.config = config
        self._store = store
        self._ledger = ledger
        self._gate = gate
        self._resolver = Resolver(gate.catalogue)
        self._sessions: dict[str, Session] = {}
        self._replays: dict[str, Replays] = {}
        self._lock = threading.RLock()
        self._portal: BlockingPortal | None = None
        self._blocking = ExitStack()
        self._closed = False

    # --- atlases ---------------------------------------------------------------------------------------------------

    def load_atlas(self, path: str | Path) -> AtlasInfo:
        """Load an atlas folder, or an atlas of one ``.json`` file.

        Raises:
            AtlasInvalidError: with every problem found.
            AtlasConflictError: something loaded already has one of its names.
        """
        from cra_mcp.atlas.loader import load_atlas  # noqa: PLC0415 - pydantic and schemas only where atlases are read

        return self._add(load_atlas(Path(path)))

    def load_atlas_from_json(self, text: str | bytes) -> AtlasInfo:
        """Load an atlas of one JSON text.

        Raises:
            AtlasInvalidError: with every problem found.
            AtlasConflictError: something loaded already has one of its names.
        """
        from cra_mcp.atlas.loader import load_atlas_text  # noqa: PLC0415 - as above

        return self._add(load_atlas_text(text))

    def unload_atlas(self, atlas_id: str) -> None:
        """Forget an atlas: its actions are unknown from now on, in sessions under way too.

        Raises:
            RequestError: ``unknown_atlas``.
        """
        with self._lock:
            atlas = self._gate.catalogue.get(atlas_id)
            if atlas is None:
                raise RequestError("unknown_atlas", f"no loaded atlas is called {atlas_id[:100]!r}")
            self._switch(self._gate.catalogue.without(atlas_id), "atlas.unloaded", atlas)

    def list_atlases(self) -> list[AtlasInfo]:
        """The loaded atlases, in load order."""
        return [_info(atlas) for atlas in self._gate.catalogue.atlases]

    def atlases(self) -> tuple[Atlas, ...]:
        """The loaded atlases themselves, in load order."""
        return self._gate.catalogue.atlases

    def atlas(self, atlas_id: str) -> Atlas:
        """One loaded atlas.

        Raises:
            RequestError: ``unknown_atlas``.
        """
        atlas = self._gate.catalogue.get(atlas_id)
        if atlas is None:
            raise RequestError(
                "unknown_atlas", f"no loaded atlas is called {atlas_id[:100]!r}", hint="see list_atlases()"
            )
        return atlas

    def _add(self, atlas: Atlas) -> AtlasInfo:
        with self._lock:
            self._switch(self._gate.catalogue.with_atlas(atlas), "atlas.loaded", atlas)
        return _info(atlas)

    def _switch(self, catalogue: Catalogue, event_type: str, atlas: Atlas) -> None:
        """Make a new catalogue current; every session under way records it first, or nothing changes."""
        payload = {"atlas_id": atlas.atlas_id, "version": atlas.version, "digest": atlas.digest}
        for session in self._active():
            self._record(session, event_type, payload)
        self._gate.use(catalogue)
        self._resolver = Resolver(catalogue)
        for session in self._active():
            session.resolution = None

    # --- sessions --------------------------------------------------------------------------------------------------

    def create_session(
        self,
        agent_id: str | None = None,
        goal: str = "",
        *,
        parent_session_id: str | None = None,
        risk_tier: RiskTier | str = RiskTier.LOW,
        context: Mapping[str, object] | None = None,
    ) -> Session:
        """Start a session and its chain.

        Args:
            agent_id: who acts; None means the configured one.
            goal: what for, at most 10,000 characters.
            parent_session_id: the session this one works for.
            risk_tier: of the task; a request can raise it, never lower it.
            context: facts policies may match; a request can add to them, never change them.

        Raises:
            RequestError: ``invalid_request`` or ``unknown_session`` (of the parent).
            TraceUnavailableError: the chain can't be begun.
        """
        agent = agent_id if agent_id is not None else self.config.agent_id
        if not 1 <= len(agent) <= 256:  # noqa: PLR2004 - specs/carp.md
            raise RequestError("invalid_request", "agent_id must have 1 to 256 characters")
        _check_goal(goal, lowest=0)
        parent = self._known(parent_session_id) if parent_session_id is not None else None
        session_id = self.config.new_id()
        trace_id = parent.trace_id if parent is not None else self.config.new_id()
        session = Session(
            session_id=session_id,
            trace_id=trace_id,
            root_span=self.config.new_id(),
            agent_id=agent,
            goal=goal,
            facts=Facts(
                agent_id=agent,
                session_id=session_id,
                tenant=self.config.tenant,
                task_risk=_tier(risk_tier),
                context=dict(context or {}),
            ),
            started_ns=self.config.clock_ns(),
            parent_session_id=parent_session_id,
        )
        self._begin(session)
        return session

    def _begin(self, session: Session) -> None:
        atlases = self._gate.catalogue.atlases
        payload: dict[str, object] = {
            "agent_id": session.agent_id,
            "goal": lossy(session.goal),
            "atlases": [
                {"atlas_id": atlas.atlas_id, "version": atlas.version, "digest": atlas.digest} for atlas in atlases
            ],
            "policy_digest": digest([[atlas.atlas_id, atlas.policy_set.digest] for atlas in atlases]),
            "risk_tier": session.facts.task_risk.value,
            "tenant": session.facts.tenant,
        }
        if session.parent_session_id is not None:
            payload["parent_session_id"] = session.parent_session_id
        if session.facts.context:
            payload["context"] = lossy(session.facts.context)
        self._store.begin(session.session_id, session.trace_id)
        try:
            self._store.append(session.session_id, [Draft("session.started", payload, session.root_span)])
        except TraceError:
            self._store.release(session.session_id)
            raise
        with self._lock:
            self._sessions[session.session_id] = session

    def get_session(self, session_id: str) -> Session | None:
        """A session of this runtime, ended ones included; None if there is none with this id."""
        return self._sessions.get(session_id)

    def end_session(self, session_id: str, *, reason: EndReason = "completed") -> None:
        """End a session: no call is taken any more; those under way are the last in its chain. Safe to repeat.

        Raises:
            RequestError: ``unknown_session``.
        """
        session = self._known(session_id)
        with session.lock:
            if session.status == "active":
                session.status = "ending"
                session.end_reason = reason
        self._finish(session)

    def _finish(self, session: Session) -> None:
        """Write ``session.ended`` once nothing is under way."""
        with session.lock:
            if session.status != "ending" or session.active_calls:
                return
            session.status = "ended"
        payload = {
            "reason": session.end_reason or "completed",
            "duration_ms": max(0, self.config.clock_ns() - session.started_ns) // 1_000 / 1_000,
        }
        # A full disk must not keep a session open: the missing event is what the trace then shows.
        with suppress(TraceError):
            self._record(session, "session.ended", payload)
        self._store.release(session.session_id)
        self._replays.pop(session.session_id, None)

    # --- CARP ------------------------------------------------------------------------------------------------------

    def resolve(
        self,
        session_id: str,
        request: "CarpRequest | Mapping[str, object] | None" = None,
        *,
        goal: str | None = None,
        context_hints: Sequence[str] = (),
        required_capabilities: Sequence[str] = (),
        atlas_ids: Sequence[str] = (),
    ) -> Resolution:
        """What the session's agent may know and do for a goal.

        Args:
            session_id: an active session.
            request: a CARP request; or give the parts.
            goal: what for; None means the session's goal.
            context_hints: words that raise the rank of context blocks.
            required_capabilities: consider only what these capabilities name.
            atlas_ids: consider only these atlases.

        Raises:
            RequestError: what is wrong with the request; recorded if the session exists.
            TraceUnavailableError: the resolution could not be recorded, so there is none.
        """
        if request is not None:
            return self._resolve_message(session_id, request)
        session = self._running(session_id)
        text = session.goal if goal is None else goal
        query = Query(text, tuple(context_hints), tuple(required_capabilities), tuple(atlas_ids))
        return self._resolve(session, query, session.facts, self.config.new_id())

    def _resolve_message(self, session_id: str, request: object) -> Resolution:
        from cra_mcp.messages import parse_request  # noqa: PLC0415 - pydantic only where messages are read

        message = parse_request(request)
        session = self._admit(session_id, message, "resolve")
        task = message.task
        query = Query(task.goal, tuple(task.context_hints), tuple(task.required_capabilities), tuple(message.atlas_ids))
        facts = replace(
            session.facts,
            task_risk=higher(session.facts.task_risk, _tier(task.risk_tier or RiskTier.LOW)),
            context={**message.context, **session.facts.context},
        )
        return self._resolve(session, query, facts, message.request_id)

    def _resolve(self, session: Session, query: Query, facts: Facts, request_id: str) -> Resolution:
        now_us = self.config.clock_ns() // 1_000
        resolver = self._resolver
        try:
            _check_goal(query.goal, lowest=0)
            answer = resolver.answer(query, facts, now_us)
            ttl_seconds = resolver.ttl_seconds(query, now_us, self.config.ttl_seconds)
        except RequestError as error:
            self._record_error(session, request_id, error, received=_received(query, facts, session, request_id))
            raise
        resolution_id = self.config.new_id()
        root_span = session.root_span
        with session.lock:
            # What a trace has said once it need not say again: a repeated answer names the event that lists it.
            first = session.recorded_answers.get(answer)
            if first is not None and facts is session.facts:
                # Canonical by construction, in a place that runs on every repeat: keys in order, ids and digits only.
                payload = (
                    f'{{"digest":"{answer.outcome.digest}","first_sequence":{first},"request_id":"{request_id}",'
                    f'"resolution_id":"{resolution_id}","ttl_seconds":{ttl_seconds}}}'
                ).encode()
                head = self._store.append(session.session_id, (Draft("carp.resolution.cached", payload, root_span),))
            else:
                received = _received(query, facts, session, request_id)
                completed = _completed(answer, request_id, resolution_id, ttl_seconds)
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

    def permissions(self, agent_id: str | None = None) -> tuple[Permission, ...]:
        """What an agent could be allowed now, without a session: what a face lists. Nothing is recorded."""
        facts = Facts(agent_id=agent_id or self.config.agent_id, session_id="", tenant=self.config.tenant)
        return self._resolver.answer(Query(""), facts, self.config.clock_ns() // 1_000).outcome.allowed

    def action_id_of(self, published: str) -> str | None:
        """The action published under a host-safe name; None if there is none."""
        found = self._gate.catalogue.by_published_name(published)
        return found[1].action_id if found is not None else None

    def find_action(self, action_id: str) -> Action | None:
        """A loaded action, whatever policy says of it."""
        found = self._gate.catalogue.find(action_id)
        return found[1] if found is not None else None

    async def execute(
        self,
        session_id: str,
        action_id: str,
        parameters: object = None,
        *,
        resolution_id: str | None = None,
        idempotency_key: str | None = None,
        asker: Asker | None = None,
        on_progress: "Progress | None" = None,
    ) -> ExecutionOutcome:
        """Have an action carried out, if policy allows it.

        Denial, bad parameters and failure are outcomes, not exceptions: look at ``status``.

        Args:
            session_id: an active session.
            action_id: the action.
            parameters: a JSON object, or None for none.
            resolution_id: a resolution of this session that must still hold; None uses the newest, renewed if it has expired.
            idempotency_key: the same key in a session has the first outcome again and carries nothing out.
            asker: how to ask for approval while the call waits; None leaves it pending.
            on_progress: told of the action's progress.

        Raises:
            RequestError: the session or the resolution can't be used; recorded if the session exists.
            TraceUnavailableError: the call could not even be recorded.
        """
        session = self._running(session_id)
        resolution = self._held(session, resolution_id)
        return await self._execute(
            session,
            Call(
                session=session,
                resolution=resolution,
                action_id=action_id,
                parameters=parameters,
                request_id=self.config.new_id(),
                execution_id=self.config.new_id(),
                asker=asker,
                on_progress=on_progress,
            ),
            idempotency_key,
        )

    async def execute_message(self, session_id: str, request: object) -> ExecutionOutcome:
        """As ``execute``, for a CARP request of operation ``execute``.

        Raises:
            RequestError: what is wrong with the request; recorded if the session exists.
            TraceUnavailableError: the call could not even be recorded.
        """
        from cra_mcp.messages import parse_request  # noqa: PLC0415 - pydantic only where messages are read

        message = parse_request(request)
        session = self._admit(session_id, message, "execute")
        wish = message.execution
        if wish is None:
            raise self._recorded(
                session, message.request_id, RequestError("invalid_request", "/execution: is required")
            )
        resolution = self._held(session, wish.resolution_id)
        call = Call(
            session=session,
            resolution=resolution,
            action_id=wish.action_id,
            parameters=wish.parameters,
            request_id=message.request_id,
            execution_id=self.config.new_id(),
        )
        return await self._execute(session, call, wish.idempotency_key)

    async def _execute(self, session: Session, call: Call, idempotency_key: str | None) -> ExecutionOutcome:
        session.enter()
        try:
            if idempotency_key is None:
                return await self._gate.execute(call)
            return await self._execute_once(session, call, idempotency_key)
        finally:
            session.leave()
            self._finish(session)

    async def _execute_once(self, session: Session, call: Call, key: str) -> ExecutionOutcome:
        replays = self._replays.setdefault(session.session_id, Replays())
        try:
            known = replays.claim(key, digest([call.action_id, lossy(call.parameters)]))
        except RequestError as error:
            raise self._recorded(session, call.request_id, error) from None
        if known is not None:
            payload = {
                "action_id": known.action_id,
                "execution_id": known.execution_id,
                "request_id": call.request_id,
            }
            self._record(session, "x.cra.action.replayed", payload)
            return known
        outcome: ExecutionOutcome | None = None
        try:
            outcome = await self._gate.execute(call)
            return outcome
        finally:
            settled = outcome is not None and outcome.status != "pending_approval"
            replays.settle(key, outcome if settled else None)

    def execute_blocking(
        self,
        session_id: str,
        action_id: str,
        parameters: object = None,
        *,
        resolution_id: str | None = None,
        idempotency_key: str | None = None,
        asker: Asker | None = None,
    ) -> ExecutionOutcome:
        """``execute`` for programs without an event loop; it runs on a thread of the runtime. Raises the same."""
        return self._loop().call(
            lambda: self.execute(
                session_id,
                action_id,
                parameters,
                resolution_id=resolution_id,
                idempotency_key=idempotency_key,
                asker=asker,
            )
        )

    # --- traces ----------------------------------------------------------------------------------------------------

    def get_trace(self, session_id: str, *, after: int = -1, limit: int | None = None) -> list[Event]:
        """Events of a session whose sequence is above ``after``, oldest first.

        Raises:
            UnknownTraceError: no such trace.
            TraceError: ``malformed_event``; ``verify_chain`` says where.
        """
        return [parse(line) for line in self._store.read(session_id, after=after, limit=limit)]

    def read_trace(self, session_id: str, *, after: int = -1, limit: int | None = None) -> list[bytes]:
        """The stored lines themselves: the bytes that were hashed.

        Raises:
            UnknownTraceError: no such trace.
        """
        return self._store.read(session_id, after=after, limit=limit)

    def verify_chain(self, session_id: str) -> Verification:
        """Check a whole chain.

        Raises:
            UnknownTraceError: no such trace.
        """
        lines = self._store.read(session_id)
        return verify(lines, session_id=session_id, tail=self._store.unfinished(session_id))

    def list_traces(self) -> list[TraceInfo]:
        """All traces in the store, the most recently written first."""
        return self._store.sessions()

    def recover_trace(self, session_id: str) -> Recovery:
        """Keep the longest valid prefix of a trace nobody writes, and set the rest aside.

        Raises:
            TraceLockedError: it is being written.
            UnknownTraceError: no such trace.
        """
        return self._store.recover(session_id)

    def record(self, session_id: str, event_type: str, payload: Mapping[str, object]) -> None:
        """Add an event of a face's own to an active session.

        Raises:
            RequestError: ``unknown_session`` or ``session_ended``.
            TraceUnavailableError: it can't be stored.
        """
        self._record(self._running(session_id), event_type, payload)

    def record_context(self, session_id: str, block: ContextBlock) -> None:
        """Record that a context block was handed to the agent of an active session. Raises as ``record``."""
        payload = {
            "block_id": block.block_id,
            "source": block.source,
            "token_count": block.token_estimate,
            "content_hash": sha256_hex(block.content.encode()),
        }
        self.record(session_id, "context.injected", payload)

    # --- approvals -------------------------------------------------------------------------------------------------

    def pending_approvals(self) -> list[Approval]:
        """Approvals waiting for an answer in this data folder, the oldest first."""
        return self._ledger.pending()

    def settle_approval(self, approval_id: str, *, granted: bool, by: str, channel: Channel = "library") -> Approval:
        """Grant or reject a pending approval. The call it was asked for is then made again by the agent.

        Raises:
            ApprovalError: ``unknown_approval``, ``approval_settled`` or ``approval_expired``.
        """
        return self._ledger.settle(approval_id, granted=granted, by=by, channel=channel)

    # --- life ------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Open for a program without an event loop."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """End what is open."""
        self.close()

    async def __aenter__(self) -> Self:
        """Open on this event loop."""
        await self._gate.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """End what is open."""
        await self._gate.__aexit__(kind, error, trace)
        self.close()

    def close(self) -> None:
        """End all sessions, flush and close. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._blocking.close()
        for session in self._active():
            self.end_session(session.session_id)
        self._store.close()
        self._ledger.close()

    def _loop(self) -> "BlockingPortal":
        """The event loop of blocking calls, started with the first of them."""
        from anyio.from_thread import start_blocking_portal  # noqa: PLC0415 - only programs without a loop need it

        with self._lock:
            if self._portal is None:
                self._portal = self._blocking.enter_context(start_blocking_portal())
                self._blocking.enter_context(self._portal.wrap_async_context_manager(self._gate))
            return self._portal

    # --- inside ----------------------------------------------------------------------------------------------------

    def _known(self, session_id: str) -> Session:
        session = self._sessions.get(session_id)
        if session is None:
            raise RequestError(
                "unknown_session", "there is no such session here", hint="start one with create_session()"
            )
        return session

    def _running(self, session_id: str) -> Session:
        session = self._known(session_id)
        if session.status != "active":
            raise RequestError("session_ended", "this session has ended", hint="start a new session")
        return session

    def _active(self) -> Iterable[Session]:
        with self._lock:
            return [session for session in self._sessions.values() if session.status == "active"]

    def _admit(self, session_id: str, message: "CarpRequest", operation: str) -> Session:
        """The checks of a CARP request that come before its content, in their order (specs/carp.md, "Order of checks")."""
        session = self._sessions.get(session_id)
        try:
            if session is not None:
                session.see(message.request_id)
            _check_clock(message.timestamp, self.config.clock_ns())
            session = self._running(session_id)
            requester = message.requester
            if requester.session_id != session_id or requester.agent_id != session.agent_id:
                raise RequestError("invalid_request", "/requester: is not who this session belongs to")
            if message.operation != operation:
                raise RequestError("invalid_request", f'/operation: must be "{operation}" here')
        except RequestError as error:
            if session is not None and session.status == "active":
                self._record_error(session, message.request_id, error)
            raise
        return session

    def _held(self, session: Session, resolution_id: str | None) -> Resolution:
        now_us = self.config.clock_ns() // 1_000
        if resolution_id is None:
            current = session.resolution
            if current is not None and now_us < current.expires_at_us:
                return current
            query = current.query if current is not None else Query(session.goal)
            facts = current.facts if current is not None else session.facts
            return self._resolve(session, query, facts, self.config.new_id())
        found = session.resolutions.get(resolution_id)
        if found is None:
            error = RequestError("unknown_resolution", "this session has no such resolution", hint="resolve again")
            raise self._recorded(session, None, error)
        if now_us >= found.expires_at_us:
            error = RequestError("resolution_expired", "this resolution has expired", hint="resolve again")
            raise self._recorded(session, None, error)
        return found

    def _record(self, session: Session, event_type: str, payload: Mapping[str, object]) -> None:
        self._store.append(session.session_id, [Draft(event_type, payload, session.root_span)])

    def _recorded(self, session: Session, request_id: str | None, error: RequestError) -> RequestError:
        self._record_error(session, request_id, error)
        return error

    def _record_error(
        self,
        session: Session,
        request_id: str | None,
        error: CRAError,
        *,
        received: Mapping[str, object] | None = None,
    ) -> None:
        drafts: list[Draft] = []
        if received is not None:
            drafts.append(Draft("carp.request.received", received, session.root_span))
        payload: dict[str, object] = {"error_code": error.code, "error_message": error.message}
        if request_id is not None:
            payload["request_id"] = request_id
        drafts.append(Draft("error.occurred", cast("Mapping[str, object]", lossy(payload)), session.root_span))
        self._store.append(session.session_id, drafts)


def _received(query: Query, facts: Facts, session: Session, request_id: str) -> dict[str, object]:
    payload: dict[str, object] = {"goal": lossy(query.goal), "operation": "resolve", "request_id": request_id}
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
    }


def _info(atlas: Atlas) -> AtlasInfo:
    return AtlasInfo(
        atlas_id=atlas.atlas_id,
        version=atlas.version,
        name=atlas.name,
        description=atlas.description,
        digest=atlas.digest,
        actions=len(atlas.actions),
        policies=len(atlas.policies),
    )


def _tier(tier: RiskTier | str) -> RiskTier:
    try:
        return RiskTier(tier)
    except ValueError:
        raise RequestError("invalid_request", "risk_tier must be low, medium, high or critical") from None


def _check_goal(goal: str, *, lowest: int) -> None:
    if not lowest <= len(goal) <= _MAX_GOAL:
        raise RequestError("invalid_request", f"goal must have {lowest} to {_MAX_GOAL} characters")


def _check_clock(timestamp: str, now_ns: int) -> None:
    try:
        sent_ns = int(datetime.fromisoformat(timestamp).timestamp() * 1_000_000_000)
    except ValueError:
        raise RequestError("invalid_request", "/timestamp: is not a date") from None
    if abs(now_ns - sent_ns) > _MAX_SKEW_NS:
        raise RequestError("clock_skew", "timestamp is more than 5 minutes off", hint="set the clock of the caller")
