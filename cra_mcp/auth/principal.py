"""Who a request is made for.

Rule: a principal comes from a credential or from whoever started the process, never from what a client says of itself.
Source: specs/identity.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

Role = Literal["admin", "operator", "approver", "agent", "auditor"]
Credential = Literal["local", "api_key", "jwt", "anonymous"]


@dataclass(frozen=True, slots=True)
class Principal:
    """One caller.

    Attributes:
        subject: stable name within the tenant; with it, whose sessions and traces are "own".
        tenant: whom the caller belongs to; nothing is shared between tenants.
        roles: what the caller may do (``cra_mcp.auth.roles``).
        scopes: OAuth scopes of the credential; empty where it has none.
        agent_id: the agent that acts for the subject, as policies see it.
        credential: what the identity rests on.
    """

    subject: str
    tenant: str = "default"
    roles: frozenset[Role] = field(default_factory=lambda: frozenset[Role]({"agent"}))
    scopes: frozenset[str] = frozenset()
    agent_id: str = "local"
    credential: Credential = "local"

    @property
    def owner(self) -> tuple[str, str]:
        """``(tenant, subject)``: who owns what this principal makes."""
        return self.tenant, self.subject

    def to_dict(self) -> dict[str, object]:
        """As traces record it: no secret is in it."""
        return {
            "subject": self.subject,
            "tenant": self.tenant,
            "roles": sorted(self.roles),
            "scopes": sorted(self.scopes),
            "agent_id": self.agent_id,
            "credential": self.credential,
        }


class Authenticator(Protocol):
    """Turns the headers of an HTTP request into a principal."""

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """The principal of a request; ``headers`` has lower-case names.

        Raises:
            AuthenticationError: there is no usable credential; ``challenge`` is the ``WWW-Authenticate`` value to answer with.
        """
        ...
