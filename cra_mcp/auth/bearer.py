"""Bearer credentials: an API key or a token, and what to answer where there is none.

Rule: every refusal of a credential is the same, whatever was wrong with it; the log says no more than that one was refused.
Source: RFC 6750; RFC 9728; specs/identity.md, "Over HTTP".
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from cra_mcp.auth.keys import KeyStore, has_key_form
from cra_mcp.auth.principal import Principal
from cra_mcp.auth.tokens import TokenVerifier
from cra_mcp.authority import split_url
from cra_mcp.errors import AuthenticationError, CRAError, ForbiddenError, SettingsError

METADATA_PATH: Final = "/.well-known/oauth-protected-resource"
_THREADS: Final = 4
# What stands between quotes in a challenge: no quote, no backslash, nothing that could end a header.
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}")
_URL: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,2048}")
_log = logging.getLogger("cra_mcp.auth")


@dataclass(frozen=True, slots=True)
class Resource:
    """This server as an OAuth 2.1 protected resource.

    Attributes:
        identifier: its URL as clients know it, such as ``https://cra.example.com/mcp``; also the audience of tokens.
        authorization_servers: issuers whose tokens it takes; empty where only API keys count.
        scopes: every one of them a token must have.
    """

    identifier: str
    authorization_servers: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse an identifier clients could not use.

        Raises:
            SettingsError: it is no absolute URL without query and fragment (RFC 9728, section 1.2).
        """
        try:
            parts = split_url(self.identifier, {"https", "http"})
            good = _URL.fullmatch(self.identifier) is not None and not parts.query and not parts.fragment
        except ValueError:
            good = False
        if not good:
            raise SettingsError(
                "the resource identifier must be an http(s) URL without query and fragment",
                hint="give the URL clients connect to, such as https://cra.example.com/mcp",
            )
        if not all(_SCOPE.fullmatch(scope) for scope in self.scopes):
            raise SettingsError("a scope has a character scopes can't have", hint="RFC 6749, section 3.3 says which")

    @property
    def metadata_path(self) -> str:
        """Path of its metadata: the well-known one, then its own path (RFC 9728, section 3.1)."""
        return METADATA_PATH + urlsplit(self.identifier).path.rstrip("/")

    @property
    def metadata_url(self) -> str:
        """URL of its metadata."""
        parts = urlsplit(self.identifier)
        return f"{parts.scheme}://{parts.netloc}{self.metadata_path}"

    def metadata(self) -> dict[str, object]:
        """The metadata document (RFC 9728, section 2)."""
        document: dict[str, object] = {
            "resource": self.identifier,
            "bearer_methods_supported": ["header"],
            "resource_name": "CRA governance runtime",
        }
        if self.authorization_servers:
            document["authorization_servers"] = list(self.authorization_servers)
        if self.scopes:
            document["scopes_supported"] = list(self.scopes)
        return document


class BearerAuthenticator:
    """Takes API keys and tokens, whichever are set up.

    Args:
        resource: what this server is to clients; None: challenges name no metadata.
        keys: API keys; None: none count.
        tokens: tokens; None: none count.
    """

    def __init__(
        self, *, resource: Resource | None = None, keys: KeyStore | None = None, tokens: TokenVerifier | None = None
    ) -> None:
        self._resource = resource
        self._keys = keys
        self._tokens = tokens
        self._limiter: anyio.CapacityLimiter | None = None

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """See ``Authenticator``.

        Raises:
            AuthenticationError: no credential, or not a good one.
            ForbiddenError: ``insufficient_scope``; ``challenge`` says which are needed.
            CRAError: credentials can't be checked now.
        """
        value = headers.get("authorization")
        if value is None:
            raise AuthenticationError("a credential is needed", challenge=self._challenge(), hint=_HINT)
        scheme, _, credential = value.partition(" ")
        if scheme.lower() != "bearer" or not credential:
            raise AuthenticationError("a bearer credential is needed", challenge=self._challenge(), hint=_HINT)
        try:
            principal = await self._check(credential)
        except CRAError as error:
            _log.warning("credentials can't be checked: %s", error.code)
            raise
        if principal is None:
            _log.warning("a credential was refused")
            raise AuthenticationError(
                "the credential is not accepted",
                challenge=self._challenge("invalid_token"),
                code="invalid_token",
                hint=_HINT,
            )
        self._check_scopes(principal)
        return principal

    async def _check(self, credential: str) -> Principal | None:
        if self._keys is not None and has_key_form(credential):
            keys = self._keys
            if self._limiter is None:
                self._limiter = anyio.CapacityLimiter(_THREADS)
            return await anyio.to_thread.run_sync(lambda: keys.check(credential), limiter=self._limiter)
        return await self._tokens.check(credential) if self._tokens is not None else None

    def _check_scopes(self, principal: Principal) -> None:
        """Scopes are the language of tokens; an API key has roles only."""
        if self._resource is None or principal.credential != "jwt":
            return
        if not principal.scopes.issuperset(self._resource.scopes):
            raise ForbiddenError(
                "the token lacks a scope",
                code="insufficient_scope",
                hint=f"ask for {' '.join(self._resource.scopes)}",
                challenge=self._challenge("insufficient_scope"),
            )

    def _challenge(self, error: str | None = None) -> str:
        parameters = ['realm="cra-mcp"']
        if error is not None:
            parameters.append(f'error="{error}"')
        if self._resource is not None:
            if self._resource.scopes and error != "invalid_token":
                parameters.append(f'scope="{" ".join(self._resource.scopes)}"')
            parameters.append(f'resource_metadata="{self._resource.metadata_url}"')
        return "Bearer " + ", ".join(parameters)


_HINT = "send Authorization: Bearer with an API key (`cra-mcp keys create`) or a token of the issuer"
