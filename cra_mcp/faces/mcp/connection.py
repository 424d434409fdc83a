"""What a request says about its caller: who it is, and what its client can do.

Rule: who it is comes from a credential, or from whoever started the process; ``clientInfo`` decides nothing.
"""

from typing import Any, Final

import mcp_types as t
from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.context import ServerRequestContext
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.requests import Request

from cra_mcp.auth.principal import Principal, Recheck

RequestContext = ServerRequestContext[Principal, Request]
"""A request, as handlers get it. Its lifespan context is the principal of whoever started the server."""

PRINCIPAL_SCOPE: Final = "cra.principal"
"""Where the HTTP layer puts the principal of a request, in the ASGI scope."""

RECHECK_SCOPE: Final = "cra.recheck"
"""Where it puts what looks at the credential of a request again."""


class KnownUser(AuthenticatedUser):
    """A principal in the SDK's form, where its transports look for one."""

    def __init__(self, token: AccessToken, principal: Principal) -> None:
        super().__init__(token)
        self.principal = principal


def caller() -> Principal | None:
    """Whom the HTTP request under way is made for, where the SDK asks before there is a context; None on other transports."""
    user = auth_context_var.get()
    return user.principal if isinstance(user, KnownUser) else None


def principal_of(ctx: RequestContext) -> Principal:
    """Who a request is made for: on HTTP what its credential says, on stdio whoever started the server."""
    if ctx.request is None:
        return ctx.lifespan_context
    return ctx.request.scope[PRINCIPAL_SCOPE]


def recheck_of(ctx: RequestContext) -> Recheck | None:
    """Whom the credential of a request stands for by now; None where it has none, as on stdio."""
    return None if ctx.request is None else ctx.request.scope.get(RECHECK_SCOPE)


def is_modern(ctx: RequestContext) -> bool:
    """Whether the request is written in the 2026-07-28 era."""
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


def can_fill_forms(ctx: RequestContext) -> bool:
    """Whether the client says its user can be asked to fill in a form."""
    capabilities = ctx.session.client_capabilities
    elicitation = capabilities.elicitation if capabilities is not None else None
    # An empty declaration means form, by the specification; url alone does not.
    return elicitation is not None and (elicitation.form is not None or elicitation.url is None)


def text_result(text: str, *, is_error: bool = False, meta: dict[str, Any] | None = None) -> t.CallToolResult:
    """A tool result of one text."""
    return t.CallToolResult(content=[t.TextContent(type="text", text=text)], is_error=is_error, _meta=meta)
