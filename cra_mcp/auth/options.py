"""What a server is told of its callers' credentials.

Source: specs/identity.md, "Over HTTP".
"""

from dataclasses import dataclass
from pathlib import Path

from cra_mcp.auth.bearer import BearerAuthenticator, Resource
from cra_mcp.auth.jwks import FileSource, KeySet, UrlSource
from cra_mcp.auth.keys import KeyStore
from cra_mcp.auth.tokens import TokenRules, TokenVerifier
from cra_mcp.errors import SettingsError


@dataclass(frozen=True, slots=True)
class AuthOptions:
    """Which credentials count.

    Attributes:
        api_keys: whether API keys do.
        issuer: whose tokens do; None: nobody's.
        jwks: URL or file of the issuer's keys.
        public_url: URL clients know this server by; the audience tokens must name.
        scopes: every one of them a token must have.
        tenant: of principals whose token names none.
    """

    api_keys: bool = False
    issuer: str | None = None
    jwks: str | None = None
    public_url: str | None = None
    scopes: tuple[str, ...] = ()
    tenant: str = "default"

    def __post_init__(self) -> None:
        """Refuse what belongs together and isn't.

        Raises:
            SettingsError: something is missing.
        """
        if (self.issuer is None) != (self.jwks is None):
            raise SettingsError("tokens need both their issuer and its keys", hint="give --jwt-issuer and --jwks")
        if self.issuer is not None and self.public_url is None:
            raise SettingsError("tokens must be made for this server", hint="give --public-url; it is their audience")
        if self.scopes and self.issuer is None:
            raise SettingsError("only tokens have scopes", hint="give --jwt-issuer, or leave --require-scope out")

    @property
    def resource(self) -> Resource | None:
        """This server as clients know it; None where that wasn't said.

        Raises:
            SettingsError: its URL can't be used.
        """
        if self.public_url is None:
            return None
        issuers = (self.issuer,) if self.issuer is not None else ()
        return Resource(self.public_url, issuers, self.scopes)

    def authenticator(self, keys: KeyStore) -> BearerAuthenticator | None:
        """What checks credentials; None where none count, so that everybody is anonymous.

        Raises:
            SettingsError: a URL can't be used.
        """
        if not self.api_keys and self.issuer is None:
            return None
        tokens = None
        if self.issuer is not None and self.jwks is not None and self.public_url is not None:
            source = UrlSource(self.jwks) if "://" in self.jwks else FileSource(Path(self.jwks))
            rules = TokenRules(self.issuer, self.public_url, tenant=self.tenant)
            tokens = TokenVerifier(rules, KeySet(source))
        return BearerAuthenticator(resource=self.resource, keys=keys if self.api_keys else None, tokens=tokens)
