"""API keys: made, checked, listed and revoked.

Rule: a key is shown once, when it is made; what is stored is its digest, so the database gives nobody a key. A key is random
enough (256 bits) that a plain hash of it can't be searched. Checking takes the same steps for unknown, wrong, expired and
revoked keys. Source: specs/identity.md, "API keys".
"""

import hmac
import secrets
import sqlite3
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import orjson

from cra_mcp.auth.principal import Principal, Role
from cra_mcp.auth.roles import roles_of
from cra_mcp.canonical import sha256_hex
from cra_mcp.errors import CRAError
from cra_mcp.state.database import Database

PREFIX = "cra_"
SCHEMA = """
CREATE TABLE IF NOT EXISTS api_keys (
  key_id TEXT PRIMARY KEY,
  digest TEXT NOT NULL,
  subject TEXT NOT NULL,
  tenant TEXT NOT NULL,
  roles TEXT NOT NULL,
  scopes TEXT NOT NULL,
  agent_id TEXT NOT NULL,
  created_at_us INTEGER NOT NULL,
  expires_at_us INTEGER,
  revoked_at_us INTEGER,
  used_on TEXT
) STRICT;
"""

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_CHARS = 12
_SECRET_CHARS = 43  # 62^43 > 2^256
_SUM_CHARS = 6
_LENGTH = len(PREFIX) + _ID_CHARS + 1 + _SECRET_CHARS + _SUM_CHARS
_NO_DIGEST = "0" * 64
_DAY_US = 86_400 * 1_000_000
_MAX_NAME = 256


class KeyNotFoundError(CRAError):
    """No key has this id."""

    default_code = "unknown_key"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key; never the key itself. Times are microseconds since the epoch.

    ``used_on`` is the day (UTC, ``YYYY-MM-DD``) it was last used, None if never.
    """

    key_id: str
    principal: Principal
    created_at_us: int
    expires_at_us: int | None
    revoked_at_us: int | None
    used_on: str | None

    def is_good_at(self, now_us: int) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at_us is None and (self.expires_at_us is None or now_us < self.expires_at_us)

    def to_dict(self) -> dict[str, object]:
        """As plain JSON."""
        principal = {name: value for name, value in self.principal.to_dict().items() if name != "credential_id"}
        return {
            "key_id": self.key_id,
            **principal,
            "created_at_us": self.created_at_us,
            "expires_at_us": self.expires_at_us,
            "revoked_at_us": self.revoked_at_us,
            "used_on": self.used_on,
        }


class KeyStore:
    """Keys in the shared state database.

    Args:
        database: opened with ``SCHEMA``.
        now_us: the time, microseconds since the epoch.
    """

    def __init__(self, database: Database, now_us: Callable[[], int]) -> None:
        self._database = database
        self._now_us = now_us
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, ApiKey]] = {}
        self._version: int | None = None

    def create(
        self,
        subject: str,
        *,
        tenant: str,
        roles: Sequence[Role],
        agent_id: str,
        scopes: Sequence[str] = (),
        lifetime_s: int | None = None,
    ) -> tuple[str, ApiKey]:
        """Make a key; the text is not kept and can't be had again.

        Raises:
            CRAError: ``invalid_key``: a name is empty or too long, or no role was given.
            StateUnavailableError: it could not be stored.
        """
        for name, value in (("subject", subject), ("tenant", tenant), ("agent_id", agent_id)):
            if not 1 <= len(value) <= _MAX_NAME:
                raise CRAError(f"{name} must have 1 to {_MAX_NAME} characters", code="invalid_key")
        if not roles or len(roles_of(roles)) != len(set(roles)):
            raise CRAError("a key needs at least one role, and only known ones", code="invalid_key")
        key_id = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_CHARS))
        body = f"{PREFIX}{key_id}_{_base62(int.from_bytes(secrets.token_bytes(32)), _SECRET_CHARS)}"
        text = body + _checksum(body)
        now_us = self._now_us()
        principal = Principal(
            subject,
            tenant=tenant,
            roles=roles_of(roles),
            scopes=frozenset(scopes),
            agent_id=agent_id,
            credential="api_key",
            credential_id=key_id,
        )
        expires_at_us = None if lifetime_s is None else now_us + lifetime_s * 1_000_000
        key = ApiKey(key_id, principal, now_us, expires_at_us, None, None)
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO api_keys VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                (
                    key_id,
                    sha256_hex(text.encode()),
                    subject,
                    tenant,
                    orjson.dumps(sorted(principal.roles)).decode(),
                    orjson.dumps(sorted(principal.scopes)).decode(),
                    agent_id,
                    now_us,
                    expires_at_us,
                    None,
                    None,
                ),
            )
        return text, key

    def check(self, text: str) -> Principal | None:
        """The principal of a key that is good now; None for any other text.

        Raises:
            StateUnavailableError: keys can't be read, so none is accepted.
        """
        key_id = text[len(PREFIX) : len(PREFIX) + _ID_CHARS] if has_key_form(text) else ""
        stored, key = self._find(key_id)
        same = hmac.compare_digest(stored, sha256_hex(text.encode("utf-8", "surrogatepass")))
        if not same or key is None or not key.is_good_at(self._now_us()):
            return None
        self._note_use(key)
        return key.principal

    def all(self) -> list[ApiKey]:
        """Every key, revoked and expired ones included, the oldest first."""
        if not self._database.exists():
            return []
        with self._database.transaction() as connection:
            rows = connection.execute("SELECT * FROM api_keys ORDER BY created_at_us, key_id").fetchall()
        return [_key(row) for row in rows]

    def revoke(self, key_id: str) -> ApiKey:
        """Take a key back; running servers refuse it from their next request on. Safe to repeat.

        Raises:
            KeyNotFoundError: no key has this id.
            StateUnavailableError: it could not be stored.
        """
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE api_keys SET revoked_at_us = ? WHERE key_id = ? AND revoked_at_us IS NULL",
                (self._now_us(), key_id),
            )
            row = connection.execute("SELECT * FROM api_keys WHERE key_id = ?", (key_id,)).fetchone()
        with self._lock:
            self._known.pop(key_id, None)
        if row is None:
            raise KeyNotFoundError("no key has this id", hint="see `cra-mcp keys list`")
        return _key(row)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _find(self, key_id: str) -> tuple[str, ApiKey | None]:
        """The stored digest and the key of an id; a digest nothing has, if there is none.

        Keys are read again when another connection has changed the database, so a revoked key is refused at once.
        """
        with self._lock:
            version = self._database.version()
            if version != self._version:
                self._known.clear()
                self._version = version
            found = self._known.get(key_id)
            if found is None and key_id:
                with self._database.reading() as connection:
                    row = connection.execute("SELECT * FROM api_keys WHERE key_id = ?", (key_id,)).fetchone()
                if row is not None:
                    found = self._known[key_id] = (cast("str", row["digest"]), _key(row))
        return found if found is not None else (_NO_DIGEST, None)

    def _note_use(self, key: ApiKey) -> None:
        today = _day(self._now_us())
        if key.used_on == today:
            return
        with self._database.transaction() as connection:
            connection.execute("UPDATE api_keys SET used_on = ? WHERE key_id = ?", (today, key.key_id))
        with self._lock:
            self._known.pop(key.key_id, None)


def has_key_form(text: str) -> bool:
    """Whether a text looks like a key: its form and its checksum, which tells a mistyped one. Says nothing of its being good."""
    if len(text) != _LENGTH or not text.startswith(PREFIX) or not text.isascii():
        return False
    return text.endswith(_checksum(text[:-_SUM_CHARS]))


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _SUM_CHARS)


def _base62(number: int, width: int) -> str:
    digits: list[str] = []
    for _ in range(width):
        number, rest = divmod(number, 62)
        digits.append(_ALPHABET[rest])
    return "".join(reversed(digits))


def _day(now_us: int) -> str:
    from datetime import UTC, datetime  # noqa: PLC0415 - once a day and key

    return datetime.fromtimestamp(now_us / 1_000_000, UTC).strftime("%Y-%m-%d")


def _key(row: sqlite3.Row) -> ApiKey:
    principal = Principal(
        row["subject"],
        tenant=row["tenant"],
        roles=roles_of(orjson.loads(row["roles"])),
        scopes=frozenset(orjson.loads(row["scopes"])),
        agent_id=row["agent_id"],
        credential="api_key",
        credential_id=row["key_id"],
    )
    return ApiKey(
        row["key_id"], principal, row["created_at_us"], row["expires_at_us"], row["revoked_at_us"], row["used_on"]
    )
