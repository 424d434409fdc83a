"""Who a request comes from.

Rule: every request that reaches a handler has a principal. Without an authenticator it is the anonymous one, and the server
stays on this machine. An answer that stays open is worth no more than its credential: it ends when that does.
"""

import asyncio
import logging
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Final, cast

import anyio
import orjson
from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthorizationContext
from mcp.server.auth.provider import AccessToken
from starlette.types import ASGIApp, Receive, Scope, Send

from cra_mcp.auth.principal import Authenticator, Binding, Principal
from cra_mcp.errors import AuthenticationError, CRAError, ForbiddenError
from cra_mcp.faces.mcp.connection import PRINCIPAL_SCOPE, RECHECK_SCOPE, KnownUser
from cra_mcp.faces.mcp.http.answers import Answer, Refusal
from cra_mcp.faces.mcp.http.limits import is_stream

_UNAVAILABLE: Final = Refusal(
    503, "authentication_unavailable", "the credential can't be checked now", "try again later"
)
_NO_LONGER: Final = Refusal(401, "invalid_token", "the credential is no longer valid", "get another one")
_TWICE: Final = Refusal(400, "invalid_request", "a request has one Authorization header at most", "send one")
_log = logging.getLogger("cra_mcp.http")


class Authenticate:
    """Puts the principal of a request into its scope, or answers 401 or 403.

    Args:
        app: what is protected.
        authenticator: reads credentials; None: everybody is ``anonymous``.
        anonymous: who callers are without an authenticator.
        recheck_s: seconds between looks at the credential of a stream that is open.
    """

    def __init__(
        self, app: ASGIApp, *, authenticator: Authenticator | None, anonymous: Principal, recheck_s: float
    ) -> None:
        self._app = app
        self._recheck_s = recheck_s
        self._authenticator = authenticator
        self._anonymous = anonymous

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        principal = self._anonymous
        if self._authenticator is not None:
            found = await _authenticated(self._authenticator, scope)
            if not isinstance(found, Principal):
                refusal, headers = found
                await refusal.send(scope, receive, send, headers)
                return
            principal = found
        user = _as_user(principal)
        # Sealed request state is bound to who asks, too; the SDK looks here for that.
        token = auth_context_var.set(user)
        known = {**scope, PRINCIPAL_SCOPE: principal, "user": user}
        if self._authenticator is not None:
            known[RECHECK_SCOPE] = partial(_again, self._authenticator, scope)
        try:
            if self._authenticator is not None and is_stream(scope):
                await self._while_it_holds(self._authenticator, principal, known, receive, send)
            else:
                await self._app(known, receive, send)
        finally:
            auth_context_var.reset(token)

    async def _while_it_holds(
        self, authenticator: Authenticator, principal: Principal, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer with a stream, which ends when its credential no longer stands for the same principal."""
        answer = Answer(send)
        with anyio.CancelScope() as cancel:
            looking = asyncio.create_task(self._look(authenticator, principal, scope, cancel))
            try:
                await self._app(scope, receive, answer.send)
            finally:
                looking.cancel()
        if cancel.cancelled_caught:
            await answer.finish(scope, receive, _NO_LONGER)

    async def _look(
        self, authenticator: Authenticator, principal: Principal, scope: Scope, cancel: anyio.CancelScope
    ) -> None:
        while await _authenticated(authenticator, scope) == principal:  # noqa: ASYNC110 - nobody tells of an expiry
            await anyio.sleep(self._recheck_s)
        cancel.cancel()


async def _again(authenticator: Authenticator, scope: Scope) -> Principal | None:
    """Whom the credential of a request stands for by now; None: for nobody.

    Raises:
        CRAError: it can't be checked.
    """
    found = await _authenticated(authenticator, scope)
    if isinstance(found, Principal):
        return found
    if found[0] is _UNAVAILABLE:
        raise CRAError("the credential can't be checked now", code=_UNAVAILABLE.code)
    return None


async def _authenticated(
    authenticator: Authenticator, scope: Scope
) -> Principal | tuple[Refusal, Mapping[str, str] | None]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        if name == "authorization" and name in headers:
            return _TWICE, None
        headers[name] = raw_value.decode("latin-1")
    try:
        return await authenticator.authenticate(headers)
    except AuthenticationError as error:
        refusal = Refusal(401, error.code, error.message, error.hint or "send a credential this server accepts")
        return refusal, {"www-authenticate": error.challenge}
    except ForbiddenError as error:
        refusal = Refusal(403, error.code, error.message, error.hint or "ask for another role")
        return refusal, {"www-authenticate": error.challenge} if error.challenge is not None else None
    except CRAError:
        return _UNAVAILABLE, None  # and said in the log where it was met
    except Exception as error:  # noqa: BLE001 - foreign code; without an answer nobody is let in
        _log.error("authenticator failed: %s", type(error).__name__)
        return _UNAVAILABLE, None


@lru_cache(maxsize=1_024)
def _as_user(principal: Principal) -> KnownUser:
    """The principal in the SDK's form: its transports bind sessions to its parts. There is no token in it."""
    tenant, realm, subject, agent_id = principal.binding
    issuer = orjson.dumps([tenant, realm]).decode()  # no two pairs have one text
    token = AccessToken(
        token="", client_id=agent_id, scopes=sorted(principal.scopes), subject=subject, claims={"iss": issuer}
    )
    return KnownUser(token, principal)


def owner_of(context: AuthorizationContext) -> Binding:
    """The SDK's form of a principal, as ``Principal.binding`` has it."""
    tenant, realm = cast("list[str]", orjson.loads(context["issuer"] or '["",""]'))
    return tenant, realm, context["subject"] or "", context["client_id"]
