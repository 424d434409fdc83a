"""Calls on their way to the gate: counted in their session, and carried out once per idempotency key.

Rule: a session under way is not ended beneath a call. Source: specs/carp.md, "Idempotency".
"""

from cra_mcp.canonical import digest, lossy
from cra_mcp.errors import RequestError
from cra_mcp.gate.call import Call, ExecutionOutcome
from cra_mcp.gate.gate import Gate
from cra_mcp.gate.replays import Replays
from cra_mcp.gate.standing import has_lapsed
from cra_mcp.runtime.observing import Observers
from cra_mcp.runtime.sessions import Sessions
from cra_mcp.session import Session


class Calls:
    """Hands calls of active sessions to the gate."""

    def __init__(self, gate: Gate, sessions: Sessions) -> None:
        self._gate = gate
        self._sessions = sessions
        self._replays: dict[str, Replays] = {}
        self.observers = Observers()

    async def execute(self, call: Call, idempotency_key: str | None) -> ExecutionOutcome:
        """Have the gate decide and carry out a call, or answer with the first outcome of its key.

        Raises:
            RequestError: ``session_ended``, or the key can't be used (recorded).
            TraceUnavailableError: the repeat of a key could not be recorded.
        """
        session = call.session
        call = self._gate.prepare(call)
        session.enter()
        try:
            carry_out = (
                self._gate.execute(call) if idempotency_key is None else self._execute_once(call, idempotency_key)
            )
            return await (self.observers.watch(carry_out) if self.observers else carry_out)
        finally:
            session.leave()
            self._sessions.watchers.grown(session.session_id)
            if session.status == "ending":
                self._sessions.finish(session)
                self.forget(session)

    def forget(self, session: Session) -> None:
        """Drop the outcomes kept for a session that has ended."""
        if session.status == "ended":
            self._replays.pop(session.session_id, None)

    async def _execute_once(self, call: Call, key: str) -> ExecutionOutcome:
        session = call.session
        replays = self._replays.setdefault(session.session_id, Replays())
        try:
            # With other roles it is another call: what one may be answered, another may not.
            roles = sorted(call.resolution.facts.roles)
            known = replays.claim(key, digest([call.action_id, lossy(call.parameters), roles]))
        except RequestError as error:
            raise self._sessions.recorded(session, call.request_id, error) from None
        if known is not None:
            payload = {
                "action_id": known.action_id,
                "execution_id": known.execution_id,
                "request_id": call.request_id,
            }
            self._sessions.record(session, "x.cra.action.replayed", payload)
            return known
        outcome: ExecutionOutcome | None = None
        try:
            outcome = await self._gate.execute(call)
            return outcome
        finally:
            settled = outcome is not None and outcome.status != "pending_approval" and not has_lapsed(outcome)
            replays.settle(key, outcome if settled else None)
