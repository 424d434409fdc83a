"""CARP requests as messages: the checks that come before their content.

Source: specs/carp.md, "Order of checks".
"""

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from cra_mcp.auth.principal import Principal
from cra_mcp.errors import RequestError
from cra_mcp.policy.conditions import higher
from cra_mcp.policy.model import Facts, RiskTier
from cra_mcp.resolution.model import Query
from cra_mcp.runtime.callers import check_owner
from cra_mcp.runtime.sessions import Sessions, risk_tier_of
from cra_mcp.session import Session

if TYPE_CHECKING:
    from cra_mcp.messages import CarpRequest, Execution

_MAX_SKEW_NS = 300 * 1_000_000_000


def admit(
    sessions: Sessions,
    session_id: str,
    request: object,
    operation: str,
    *,
    now_ns: int,
    principal: Principal | None,
) -> "tuple[Session, CarpRequest]":
    """The session a request is made in, and the request as a message.

    Raises:
        RequestError: the first check that fails, in their order; recorded if the session is active.
    """
    from cra_mcp.messages import parse_request  # noqa: PLC0415 - pydantic only where messages are read

    message = parse_request(request)
    session = sessions.get(session_id)
    if session is not None:
        check_owner(session, principal)  # before anything is said or recorded of it
    try:
        if session is not None:
            session.see(message.request_id)
        _check_clock(message.timestamp, now_ns)
        session = sessions.running(session_id)
        requester = message.requester
        if requester.session_id != session_id or requester.agent_id != session.agent_id:
            raise RequestError("invalid_request", "/requester: is not who this session belongs to")
        if message.operation != operation:
            raise RequestError("invalid_request", f'/operation: must be "{operation}" here')
    except RequestError as error:
        if session is not None and session.status == "active":
            sessions.record_error(session, message.request_id, error)
        raise
    return session, message


def wish_of(sessions: Sessions, session: Session, message: "CarpRequest") -> "Execution":
    """What a request wants carried out.

    Raises:
        RequestError: ``invalid_request``: it doesn't say; recorded.
    """
    if message.execution is None:
        error = RequestError("invalid_request", "/execution: is required")
        raise sessions.recorded(session, message.request_id, error)
    return message.execution


def query_of(message: "CarpRequest") -> Query:
    """What a request asks for."""
    task = message.task
    return Query(task.goal, tuple(task.context_hints), tuple(task.required_capabilities), tuple(message.atlas_ids))


def facts_of(facts: Facts, message: "CarpRequest") -> Facts:
    """A requester's facts with what a request may add: it can raise the risk and name further facts, and change none."""
    return replace(
        facts,
        task_risk=higher(facts.task_risk, risk_tier_of(message.task.risk_tier or RiskTier.LOW)),
        context={**message.context, **facts.context},
    )


def _check_clock(timestamp: str, now_ns: int) -> None:
    try:
        sent_ns = int(datetime.fromisoformat(timestamp).timestamp() * 1_000_000_000)
    except ValueError:
        raise RequestError("invalid_request", "/timestamp: is not a date") from None
    if abs(now_ns - sent_ns) > _MAX_SKEW_NS:
        raise RequestError("clock_skew", "timestamp is more than 5 minutes off", hint="set the clock of the caller")
