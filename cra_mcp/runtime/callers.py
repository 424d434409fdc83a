"""Who makes a request in a session: whoever it belongs to, with roles that may call.

Rule: a session lends nobody its roles. Each request is checked for those of its own principal, and what is refused is recorded in
the session if it is the caller's. Source: specs/identity.md, "Requests".
"""

from cra_mcp.auth.principal import Principal
from cra_mcp.auth.roles import require
from cra_mcp.errors import CRAError, ForbiddenError
from cra_mcp.gate.call import shown_id
from cra_mcp.runtime.sessions import Sessions, unknown_session
from cra_mcp.session import Session


def check_owner(session: Session, principal: Principal | None) -> None:
    """Refuse a principal somebody else's session; None stands for whoever began it.

    Raises:
        RequestError: ``unknown_session``, as for one that isn't there.
    """
    if principal is not None and (session.principal is None or session.principal.binding != principal.binding):
        raise unknown_session()


def check_caller(sessions: Sessions, session: Session, principal: Principal | None, action_id: str | None) -> None:
    """Refuse a request that its principal may not make; None stands for whoever began the session.

    Raises:
        RequestError: ``unknown_session``: it is somebody else's, which answers like one that isn't there.
        ForbiddenError: none of the principal's roles may call; recorded.
        TraceUnavailableError: the refusal could not be recorded.
    """
    check_owner(session, principal)
    if principal is None:
        return
    try:
        require(principal, "call")
    except ForbiddenError as error:
        what = error.message if action_id is None else f"{error.message}: {shown_id(action_id)}"
        sessions.record_error(session, None, CRAError(what, code=error.code), principal=principal)
        raise
