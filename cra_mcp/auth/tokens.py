"""JSON Web Tokens become principals.

Rule: the algorithm is the key's, never the token's word; a token says who issued it, for whom, and until when, or it says
nothing. What a token claims beyond that is taken in only where the form is right. Source: RFC 7519; RFC 8725; RFC 9068;
specs/identity.md, "Tokens".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from cra_mcp.auth.jwks import KeySet
from cra_mcp.auth.principal import Principal, Role
from cra_mcp.auth.roles import roles_of

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
_TYPES: Final = {"jwt", "at+jwt", "application/at+jwt"}
_MAX_TOKEN: Final = 8_192
_MAX_NAME: Final = 256
_AGENT: Final = frozenset[Role]({"agent"})


@dataclass(frozen=True, slots=True)
class TokenRules:
    """Which tokens count, and what their claims mean.

    Attributes:
        issuer: value ``iss`` must have.
        audience: value that must be in ``aud``: this server's identifier.
        tenant: of principals whose token has no tenant claim.
        tenant_claim: name of the claim that holds the tenant.
        roles_claim: name of the claim that holds the roles, a list of strings.
        leeway_s: how far clocks may differ.
    """

    issuer: str
    audience: str
    tenant: str = "default"
    tenant_claim: str = "tenant"
    roles_claim: str = "roles"
    leeway_s: float = 30.0


class TokenVerifier:
    """Checks tokens of one issuer."""

    def __init__(self, rules: TokenRules, keys: KeySet) -> None:
        self._rules = rules
        self._keys = keys

    async def check(self, token: str) -> Principal | None:
        """The principal of a token that is good now; None for any other text.

        Raises:
            KeysUnavailableError: nothing can be checked now.
        """
        import jwt  # noqa: PLC0415 - only servers with tokens

        named = _header(token)
        if named is None:
            return None
        key_id, algorithm = named
        key = await self._keys.find(key_id, algorithm)
        if key is None:
            return None
        try:
            claims = jwt.decode(
                token,
                key.material,
                algorithms=[key.algorithm],
                issuer=self._rules.issuer,
                audience=self._rules.audience,
                leeway=self._rules.leeway_s,
                options={"require": ["exp", "iss", "aud", "sub"], "strict_aud": False},
            )
        except jwt.InvalidTokenError:
            return None
        return _principal(claims, self._rules)


def _header(token: str) -> tuple[str | None, str] | None:
    """Key id and algorithm a token names; None for what can't be a token of ours. Nothing of it is believed yet."""
    import jwt  # noqa: PLC0415 - only servers with tokens

    if len(token) > _MAX_TOKEN or not token.isascii():
        return None
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError:
        return None
    algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if algorithm not in ALGORITHMS or "crit" in header or not isinstance(kind, str) or kind.lower() not in _TYPES:
        return None
    if key_id is not None and not (isinstance(key_id, str) and 1 <= len(key_id) <= _MAX_NAME):
        return None
    return key_id, algorithm


def _principal(claims: Mapping[str, object], rules: TokenRules) -> Principal | None:
    subject = _name(claims.get("sub"))
    tenant = _name(claims.get(rules.tenant_claim, rules.tenant))
    if subject is None or tenant is None:
        return None
    agent = _name(claims.get("agent_id", claims.get("client_id", claims.get("azp", subject))))
    if agent is None:
        return None
    # Without a claim of roles a token is an agent's; a claim that names none we know grants nothing.
    roles = roles_of(claims[rules.roles_claim]) if rules.roles_claim in claims else _AGENT
    return Principal(
        subject,
        tenant=tenant,
        roles=roles,
        scopes=_scopes(claims),
        agent_id=agent,
        credential="jwt",
        issuer=rules.issuer,
        credential_id=_name(claims.get("jti")) or "",
    )


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and 1 <= len(value) <= _MAX_NAME else None


def _scopes(claims: Mapping[str, object]) -> frozenset[str]:
    """``scope`` as RFC 8693 has it: words in one string; ``scp``, its common other form, may be a list."""
    value = claims.get("scope", claims.get("scp", ""))
    if isinstance(value, list):
        return frozenset(word for word in cast("list[object]", value) if isinstance(word, str))
    return frozenset(value.split()) if isinstance(value, str) else frozenset()
