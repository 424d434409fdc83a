"""The runtime: all that a face may use.

Rule: sessions, resolutions, calls and traces are reached through here only. Synchronous where nothing waits; ``execute`` is
asynchronous, ``execute_blocking`` is the same for programs without an event loop.
Source: specs/carp.md.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cra_mcp.approval.ledger import ApprovalLedger
from cra_mcp.approval.model import Asker
from cra_mcp.atlas.archive import AtlasArchive
from cra_mcp.atlas.model import Action, Atlas, ContextBlock
from cra_mcp.atlas.registry import AtlasInfo
from cra_mcp.auth.principal import Principal, Recheck
from cra_mcp.auth.roles import require
from cra_mcp.canonical import sha256_hex
from cra_mcp.gate.call import Call, ExecutionOutcome, Question
from cra_mcp.gate.gate import Gate
from cra_mcp.policy.model import Facts, RiskTier
from cra_mcp.ranking import Choice, rank, within
from cra_mcp.resolution.model import Permission, Query, Resolution
from cra_mcp.runtime import arguments
from cra_mcp.runtime.abandoned import end_abandoned
from cra_mcp.runtime.administration import Administration
from cra_mcp.runtime.atlases import LoadedAtlases
from cra_mcp.runtime.blocking import BlockingLoop
from cra_mcp.runtime.callers import check_caller, check_owner
from cra_mcp.runtime.calls import Calls
from cra_mcp.runtime.freezing import KillSwitch
from cra_mcp.runtime.observing import Observer
from cra_mcp.runtime.records import Records
from cra_mcp.runtime.requests import admit, facts_of, query_of, wish_of
from cra_mcp.runtime.resolving import Resolving
from cra_mcp.runtime.sessions import Sessions, facts_outside, risk_tier_of
from cra_mcp.runtime.watching import Change, Watcher
from cra_mcp.session import EndReason, Session
from cra_mcp.settings import RuntimeConfig
from cra_mcp.trace.checkpointing import CheckpointCounts
from cra_mcp.trace.event import Event
from cra_mcp.trace.store import TraceStore

if TYPE_CHECKING:
    from types import TracebackType

    from cra_mcp.gate.call import Client, Progress
    from cra_mcp.gate.explaining import CallExplanation
    from cra_mcp.messages import CarpRequest
    from cra_mcp.replay.again import Replayed


class Runtime(Administration, Records):
    """Governs what agents may do, and records what they did.

    Use it as a context manager (``with`` or ``async with``): leaving it ends its sessions and closes what it opened. Actions on
    MCP upstreams can be carried out inside ``async with``, or by ``execute_blocking``. What an operator does is in its base
    ``Administration``, what is looked up afterwards in ``Records``.

    Args:
        config: settings.
        store: where traces are kept.
        ledger: approvals.
        gate: the enforcement point; made with the same store and ledger.
        archive: keeps the files of loaded atlases, for replay; None: they aren't kept.
    """

    def __init__(
        self,
        *,
        config: RuntimeConfig,
        store: TraceStore,
        ledger: ApprovalLedger,
        gate: Gate,
        archive: AtlasArchive | None = None,
    ) -> None:
        self.config = config
        self._gate = gate
        self._sessions = Sessions(config, store)
        self._resolving = Resolving(config, store, self._sessions, gate.catalogue)
        Administration.__init__(
            self,
            LoadedAtlases(gate, self._resolving, self._sessions, archive),
            KillSwitch(config, gate, self._sessions),
        )
        Records.__init__(self, store, ledger)
        self._calls = Calls(gate, self._sessions)
        self._blocking = BlockingLoop(gate)
        ledger.listen(lambda approval: self._sessions.watchers.tell(Change("approval", approval.session_id)))
        self._closed = False

    # --- sessions --------------------------------------------------------------------------------------------------

    def create_session(
        self,
        agent_id: str | None = None,
        goal: str = "",
        *,
        parent_session_id: str | None = None,
        risk_tier: RiskTier | str = RiskTier.LOW,
        context: Mapping[str, object] | None = None,
        principal: Principal | None = None,
    ) -> Session:
        """Start a session and its chain.

        Args:
            agent_id: who acts; None means the principal's agent, or the configured one.
            goal: what for, at most 10,000 characters.
            parent_session_id: the session this one works for.
            risk_tier: of the task; a request can raise it, never lower it.
            context: facts policies may match; a request can add to them, never change them.
            principal: whom the session belongs to; None: whoever runs this process.

        Raises:
            RequestError: ``invalid_request``, or ``unknown_session`` or ``session_ended`` (of the parent).
            TraceUnavailableError: the chain can't be begun.
        """
        if principal is not None:
            require(principal, "call")
        parent = self._sessions.running(parent_session_id) if parent_session_id is not None else None
        if parent is not None:
            check_owner(parent, principal)
        if agent_id is None:
            agent_id = principal.agent_id if principal is not None else self.config.agent_id
        return self._sessions.begin(
            self._atlases.use(),
            agent_id=agent_id,
            goal=goal,
            parent=parent,
            risk_tier=risk_tier_of(risk_tier),
            context=arguments.mapping("context", context or {}),
            principal=principal,
        )

    def get_session(self, session_id: str) -> Session | None:
        """A session of this runtime, ended ones included; None if there is none with this id."""
        return self._sessions.get(arguments.text("session_id", session_id))

    def end_session(self, session_id: str, *, reason: EndReason = "completed") -> None:
        """End a session: no call is taken any more; those under way are the last in its chain. Safe to repeat.

        Raises:
            RequestError: ``unknown_session``.
        """
        session = self._sessions.known(session_id)
        self._sessions.end(session, reason)
        self._calls.forget(session)

    def end_abandoned(self) -> list[str]:
        """End the sessions of the trace folder whose process died, and sign them; those that were ended. It reads their traces."""
        return end_abandoned(self._store)

    def active_sessions(self) -> int:
        """How many sessions of this runtime have not ended."""
        return len(self._sessions.active())

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
        principal: Principal | None = None,
    ) -> Resolution:
        """What the session's agent may know and do for a goal.

        Args:
            session_id: an active session.
            request: a CARP request; or give the parts.
            goal: what for; None means the session's goal.
            context_hints: words that raise the rank of context blocks.
            required_capabilities: consider only what these capabilities name.
            atlas_ids: consider only these atlases.
            principal: who asks, with roles of its own; None: whoever began the session.

        Raises:
            RequestError: what is wrong with the request; recorded if the session exists.
            ForbiddenError: none of the principal's roles may call; recorded.
            TraceUnavailableError: the resolution could not be recorded, so there is none.
        """
        if request is not None:
            now_ns = self.config.clock_ns()
            session, message = admit(self._sessions, session_id, request, "resolve", now_ns=now_ns, principal=principal)
            check_caller(self._sessions, session, principal, None)
            facts = facts_of(session.facts_for(principal), message)
            return self._resolving.resolve(session, query_of(message), facts, message.request_id, principal)
        session = self._sessions.running(session_id)
        check_caller(self._sessions, session, principal, None)
        text = session.goal if goal is None else arguments.text("goal", goal)
        query = Query(text, tuple(context_hints), tuple(required_capabilities), tuple(atlas_ids))
        return self._resolving.resolve(session, query, session.facts_for(principal), self.config.new_id(), principal)

    def permissions(self, principal: Principal | None = None) -> tuple[Permission, ...]:
        """What a principal could be allowed now, without a session: what a face lists. Nothing is recorded.

        None stands for whoever runs this process.
        """
        answer = self._resolving.preview(principal)
        return answer.outcome.allowed if answer is not None else ()

    def context(self, principal: Principal | None = None) -> tuple[ContextBlock, ...]:
        """Context blocks a principal could be given now, the most important first. Nothing is recorded. None as above."""
        answer = self._resolving.preview(principal)
        return answer.context_blocks if answer is not None else ()

    def hidden(self, principal: Principal | None = None) -> Mapping[str, Permission]:
        """The actions that a principal must not be told of now, by id. Nothing is recorded. None as above."""
        return self._resolving.hidden(principal)

    def unchanged_for_ms(self, at_most_ms: int) -> int:
        """For how long ``permissions`` and ``context`` stay as they are if nothing but time passes; ``at_most_ms`` at most."""
        left_us = self._resolving.unchanged_for_us()
        return at_most_ms if left_us is None else min(at_most_ms, left_us // 1_000)

    def action_id_of(self, published: str) -> str | None:
        """The action published under a host-safe name; None if there is none."""
        found = self._gate.catalogue.by_published_name(published)
        return found[1].action_id if found is not None else None

    def published(self, kind: str) -> tuple[Action, ...]:
        """The loaded actions published as a ``kind``, whatever policy says of them, in load order."""
        return self._gate.catalogue.published(kind)

    def find_action(self, action_id: str) -> Action | None:
        """A loaded action, whatever policy says of it."""
        found = self._gate.catalogue.find(action_id)
        return found[1] if found is not None else None

    def explain(
        self,
        action_id: str,
        arguments: Mapping[str, object] | None = None,
        *,
        facts: Facts | None = None,
        at_us: int | None = None,
        approved: bool = False,
    ) -> "CallExplanation":
        """Explain what would become of a call: every policy considered, what it read, and which one decides.

        It is for whoever runs this process: it tells of hidden actions and policies too. Nothing is charged or recorded.

        Args:
            action_id: one that isn't declared has an explanation, too.
            arguments: of the call; None: not known.
            facts: of the requester (those of a session are its ``facts``); None: whoever runs this process.
            at_us: the instant, microseconds since the epoch; None: now.
            approved: as if this very call had been approved.
        """
        known = facts or facts_outside(self.config, None)
        now_us = self.config.clock_ns() // 1_000 if at_us is None else at_us
        return self._gate.explain(Question(action_id, known, arguments, now_us, approved))

    def explain_outcome(self, outcome: ExecutionOutcome) -> "CallExplanation | None":
        """Explain a denied call, at the instant it was decided; None for any other outcome.

        Policies, freezes and counters are those of now: ask before they change.
        """
        return self._gate.explain(outcome.question) if outcome.question is not None else None

    def check_caller(self, session_id: str, principal: Principal, action_id: str) -> None:
        """Whether a principal may call in an active session, for faces that do something before they call.

        Raises:
            RequestError: ``unknown_session`` or ``session_ended``.
            ForbiddenError: none of its roles may call; recorded.
        """
        check_caller(self._sessions, self._sessions.running(session_id), principal, action_id)

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
        client: "Client | None" = None,
        otel: Mapping[str, str] | None = None,
        principal: Principal | None = None,
        recheck: Recheck | None = None,
        called: str | None = None,
        offered: bool = True,
        host_arguments: Collection[str] = (),
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
            client: whom the action may talk back to.
            otel: ``trace_id`` and ``span_id`` of the OpenTelemetry span the call is made in; its event names them.
            principal: who makes the call, which is decided by its roles; None: whoever began the session.
            recheck: whom its credential stands for by now; asked where the call has waited.
            called: what the caller asked for, where that is not the action id: a published name, a URI.
            offered: False where nothing of the kind the caller asked for has that name: it is refused as unknown.
            host_arguments: parameters that the caller's program adds by itself; those that the action doesn't declare are left out.

        Raises:
            RequestError: the session or the resolution can't be used; recorded if the session exists.
            ForbiddenError: none of the principal's roles may call; recorded.
            TraceUnavailableError: the call could not even be recorded.
        """
        session = self._sessions.running(session_id)
        arguments.text("action_id", action_id)
        check_caller(self._sessions, session, principal, action_id)
        resolution = self._resolving.held(session, resolution_id, principal)
        return await self._calls.execute(
            Call(
                session=session,
                resolution=resolution,
                action_id=action_id,
                parameters=parameters,
                request_id=self.config.new_id(),
                execution_id=self.config.new_id(),
                asker=asker,
                on_progress=on_progress,
                client=client,
                otel=otel,
                principal=principal,
                recheck=recheck,
                called=called,
                offered=offered,
                host_arguments=frozenset(host_arguments),
            ),
            idempotency_key,
        )

    async def execute_message(
        self, session_id: str, request: object, *, principal: Principal | None = None, recheck: Recheck | None = None
    ) -> ExecutionOutcome:
        """As ``execute``, for a CARP request of operation ``execute``.

        Raises:
            RequestError: what is wrong with the request; recorded if the session exists.
            ForbiddenError: none of the principal's roles may call; recorded.
            TraceUnavailableError: the call could not even be recorded.
        """
        now_ns = self.config.clock_ns()
        session, message = admit(self._sessions, session_id, request, "execute", now_ns=now_ns, principal=principal)
        wish = wish_of(self._sessions, session, message)
        check_caller(self._sessions, session, principal, wish.action_id)
        resolution = self._resolving.held(session, wish.resolution_id, principal)
        call = Call(
            session=session,
            resolution=resolution,
            action_id=wish.action_id,
            parameters=wish.parameters,
            request_id=message.request_id,
            execution_id=self.config.new_id(),
            principal=principal,
            recheck=recheck,
        )
        return await self._calls.execute(call, wish.idempotency_key)

    def execute_blocking(
        self,
        session_id: str,
        action_id: str,
        parameters: object = None,
        *,
        resolution_id: str | None = None,
        idempotency_key: str | None = None,
        asker: Asker | None = None,
        principal: Principal | None = None,
    ) -> ExecutionOutcome:
        """``execute`` for programs without an event loop; it runs on a thread of the runtime. Raises the same."""
        return self._blocking.run(
            lambda: self.execute(
                session_id,
                action_id,
                parameters,
                resolution_id=resolution_id,
                idempotency_key=idempotency_key,
                asker=asker,
                principal=principal,
            )
        )

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Tell ``watcher`` of every change of the catalogue, of traces and of approvals, until what is returned is called.

        It is called on any thread, and must not wait. A trace is told of once for each call, not for each of its events. What
        another process does with an approval is noticed while a call waits for it here.
        """
        return self._sessions.watchers.add(watcher)

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Tell ``observer`` of every call that ends, until what is returned is called.

        It is called on the thread of the call, and must not wait.
        """
        return self._calls.observers.add(observer)

    def replay(
        self, trace: "str | Iterable[Event | bytes]", atlas: "Atlas | AtlasInfo | str | Path | None" = None
    ) -> "Replayed":
        """Make every resolution and decision of a trace again, and compare.

        Args:
            trace: a session id, or the events (``get_trace``) or stored lines (``read_trace``) of one.
            atlas: what it was decided by, or the path of that; None: it is loaded, or was kept. Atlases are told by their digest.

        Raises:
            TraceError: the chain is broken (with the code of that), ``atlas_missing``, or ``not_replayable``.
            AtlasInvalidError: ``atlas`` can't be loaded.
        """
        from cra_mcp.runtime.replaying import AtHand, lines_of, replay_lines  # noqa: PLC0415 - not on the way of a call

        given = [atlas] if isinstance(atlas, Atlas) else []
        if isinstance(atlas, str | Path):
            from cra_mcp.atlas.loader import load_atlas  # noqa: PLC0415 - pydantic only where atlases are read

            given = [load_atlas(Path(atlas))]
        lines = self.read_trace(trace) if isinstance(trace, str) else lines_of(trace)
        return replay_lines(lines, AtHand(given, self._atlases.catalogue, self._atlases.archive))

    # --- what faces and agents add to a trace ------------------------------------------------------------------------

    def record(self, session_id: str, event_type: str, payload: Mapping[str, object]) -> None:
        """Add an event of a face's own to an active session.

        Raises:
            RequestError: ``unknown_session`` or ``session_ended``.
            TraceUnavailableError: it can't be stored.
        """
        self._sessions.record(self._sessions.running(session_id), event_type, payload)

    def record_context(self, session_id: str, block: ContextBlock, principal: Principal | None = None) -> None:
        """Record that a context block was handed to the agent of an active session. Raises as ``record``.

        ``principal``: whose request it was; None: that of whoever began the session.
        """
        session = self._sessions.running(session_id)
        payload: dict[str, object] = {
            "block_id": block.block_id,
            "source": block.source,
            "token_count": block.token_estimate,
            "content_hash": sha256_hex(block.content.encode()),
        }
        if principal is not None and principal != session.principal:
            payload["principal"] = principal.of_request()
        self._sessions.record(session, "context.injected", payload)

    def choose_context(
        self,
        session_id: str,
        need: str,
        *,
        hints: Sequence[str] = (),
        max_tokens: int,
        principal: Principal | None = None,
    ) -> tuple[Resolution, Choice]:
        """The documents that fit a need best, within a budget; each that is given is recorded. Raises as ``resolve``."""
        resolution = self.resolve(session_id, goal=need, context_hints=hints, principal=principal)
        choice = within(rank(resolution.context_blocks, need, hints), max_tokens)
        for each in choice.given:
            self.record_context(session_id, each.block, principal)
        return resolution, choice

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

    def check(self) -> None:
        """Whether a call could be recorded, and an approval looked up, now. It waits for the disk.

        Raises:
            StateUnavailableError: the state database can't be opened.
            TraceUnavailableError: traces can't be written.
        """
        self._store.check()
        self._ledger.check()

    def checkpoint_counts(self) -> CheckpointCounts | None:
        """What became of the checkpoints of what is recorded; None where none are made."""
        return None

    def close(self) -> None:
        """End all sessions, flush and close. Safe to call twice.

        Raises:
            TraceUnavailableError: all is closed, and the end of a trace may be lost.
        """
        if self._closed:
            return
        self._closed = True
        self._blocking.close()
        for session in self._sessions.active():
            self.end_session(session.session_id)
        try:
            self._store.close()
        finally:
            self._ledger.close()
            self._gate.close()
