"""Who a request is made for.

Rule: a principal comes from a credential or from whoever started the process, never from what a client says of itself.
Source: specs/identity.md.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

Role = Literal["admin", "operator", "approver", "agent", "auditor"]
Credential = Literal["local", "api_key", "jwt", "anonymous"]
LOCAL_REALM = "local"
LOCAL_SUBJECT = "local"
"""Whom sessions belong to that were begun without a principal: whoever ran the process."""


class Owner(NamedTuple):
    """Whose a session, its trace and its approvals are.

    Attributes:
        realm: who vouches for the subject: this installation, or the issuer of a token. One name in two realms is two owners.
    """

    tenant: str
    realm: str
    subject: str


def realm_of(credential: object, issuer: object) -> str:
    """Who vouches for a subject: local users and API keys are the operator's, tokens their issuer's, ``anonymous`` is nobody's."""
    if credential == "jwt":
        return f"token:{issuer if isinstance(issuer, str) else ''}"
    return "anonymous" if credential == "anonymous" else LOCAL_REALM


@dataclass(frozen=True, slots=True)
class Principal:
    """One caller.

    Attributes:
        subject: stable name within the tenant and, of a token, its issuer; with them, whose sessions and traces are "own".
        tenant: whom the caller belongs to; nothing is shared between tenants.
        roles: what the caller may do (``cra_mcp.auth.roles``).
        scopes: OAuth scopes of the credential; empty where it has none.
        agent_id: the agent that acts for the subject, as policies see it.
        credential: what the identity rests on.
        issuer: whose token it is; empty for anything else.
        credential_id: id of the API key, or the token's ``jti``; empty where there is none. It is no secret.
    """

    subject: str
    tenant: str = "default"
    roles: frozenset[Role] = field(default_factory=lambda: frozenset[Role]({"agent"}))
    scopes: frozenset[str] = frozenset()
    agent_id: str = "local"
    credential: Credential = "local"
    issuer: str = ""
    credential_id: str = ""

    @property
    def owner(self) -> Owner:
        """Who owns what this principal makes."""
        return Owner(self.tenant, realm_of(self.credential, self.issuer), self.subject)

    @property
    def binding(self) -> "Binding":
        """What its sessions are bound to: the same person, by the same agent. Roles and credentials may change meanwhile."""
        return self.tenant, realm_of(self.credential, self.issuer), self.subject, self.agent_id

    def to_dict(self) -> dict[str, object]:
        """As traces record it: no secret is in it."""
        return {
            "subject": self.subject,
            "tenant": self.tenant,
            "roles": sorted(self.roles),
            "scopes": sorted(self.scopes),
            "agent_id": self.agent_id,
            "credential": self.credential,
            **({"issuer": self.issuer} if self.issuer else {}),
            **({"credential_id": self.credential_id} if self.credential_id else {}),
        }

    def of_request(self) -> dict[str, object]:
        """What can differ between the requests of one session, as traces record it."""
        bound = {"subject", "tenant", "agent_id", "issuer"}
        return {name: value for name, value in self.to_dict().items() if name not in bound}


Binding = tuple[str, str, str, str]
"""Tenant, realm, subject and agent."""

Recheck = Callable[[], Awaitable[Principal | None]]
"""Whom the credential of a request stands for now; None: nobody any more. Raises where that can't be told."""


class Authenticator(Protocol):
    """Turns the headers of an HTTP request into a principal."""

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """The principal of a request; ``headers`` has lower-case names.

        Raises:
            AuthenticationError: there is no usable credential; ``challenge`` is the ``WWW-Authenticate`` value to answer with.
        """
        ...
