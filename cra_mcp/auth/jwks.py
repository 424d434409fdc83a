"""Public keys that tokens are checked with: a JSON Web Key Set from a file or a URL, kept fresh.

Rule: only asymmetric signing keys come in, each bound to one algorithm, so that no token can choose how it is checked. Keys that
can't be renewed are trusted for a bounded time, then none is. Source: RFC 7517; RFC 8725; specs/identity.md, "Tokens".
"""

import ipaddress
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast

import anyio
import anyio.to_thread

from cra_mcp.authority import split_url
from cra_mcp.canonical import parse_json
from cra_mcp.errors import CRAError, SettingsError
from cra_mcp.folders import read_regular

_MAX_BYTES: Final = 1_048_576
_MAX_KEYS: Final = 100
_TIMEOUT_S: Final = 5.0
_FRESH_S: Final = 300.0
_STALE_S: Final = 3_600.0
_PAUSE_S: Final = 15.0
_SERVES: Final[Mapping[tuple[object, object], str]] = {
    ("RSA", None): "RS256",
    ("EC", "P-256"): "ES256",
    ("OKP", "Ed25519"): "EdDSA",
}


class KeysUnavailableError(CRAError):
    """The key set can't be read, and what was known of it is too old."""

    default_code = "keys_unavailable"


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One public key and the algorithm it serves. ``material`` is what PyJWT checks with."""

    key_id: str | None
    algorithm: str
    material: Any


class KeySource(Protocol):
    """Where a key set comes from."""

    async def read(self) -> bytes:
        """The key set as JSON; at most 1 MiB.

        Raises:
            KeysUnavailableError: it can't be had now.
        """
        ...


class FileSource:
    """A key set in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> bytes:
        """See ``KeySource``."""
        try:
            return await anyio.to_thread.run_sync(self._read)
        except OSError as error:
            raise KeysUnavailableError(f"the key set can't be read ({error.strerror})") from error

    def _read(self) -> bytes:
        return read_regular(self._path, _MAX_BYTES + 1)


class UrlSource:
    """A key set at an ``https`` URL; plain ``http`` only on this machine.

    Raises:
        SettingsError: the URL is neither.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = split_url(url, {"https", "http"})
            good = parts.scheme == "https" or _is_local(parts.hostname or "")
        except ValueError:
            good = False
        if not good:
            raise SettingsError("the URL of the key set must begin https://", hint="plain http works on localhost only")
        self._url = url

    async def read(self) -> bytes:
        """See ``KeySource``. Follows no redirect and no proxy setting, so what is configured is what is asked."""
        import httpx2  # noqa: PLC0415 - only servers with tokens need an HTTP client

        data = bytearray()
        try:
            with anyio.fail_after(_TIMEOUT_S):
                async with (
                    httpx2.AsyncClient(timeout=_TIMEOUT_S, trust_env=False, follow_redirects=False) as client,
                    client.stream("GET", self._url, headers={"accept": "application/json"}) as response,
                ):
                    if response.status_code != 200:  # noqa: PLR2004 - HTTP
                        raise KeysUnavailableError(f"the key set answers with status {response.status_code}")
                    async for part in response.aiter_bytes():
                        data += part
                        if len(data) > _MAX_BYTES:
                            raise KeysUnavailableError("the key set is too large")
        except (httpx2.HTTPError, TimeoutError) as error:
            raise KeysUnavailableError(f"the key set can't be fetched ({type(error).__name__})") from error
        return bytes(data)


class KeySet:
    """Keys by id, renewed every five minutes, and when a token names one that isn't known.

    Args:
        source: where they come from.
        clock: monotonic seconds.
    """

    def __init__(self, source: KeySource, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._clock = clock
        self._keys: tuple[VerificationKey, ...] = ()
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._lock: anyio.Lock | None = None

    async def find(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
        """The key a token may be checked with. Without ``key_id``: the only one for the algorithm.

        Raises:
            KeysUnavailableError: keys can't be had, so no token is accepted.
        """
        if self._age() >= _FRESH_S:
            await self._renew()
        found = self._match(key_id, algorithm)
        if found is None:
            await self._renew()  # it may have been added since
            found = self._match(key_id, algorithm)
        return found

    def _match(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
        if self._age() >= _STALE_S:
            raise KeysUnavailableError("the key set could not be renewed for too long")
        fitting = [key for key in self._keys if key.algorithm == algorithm and key_id in {None, key.key_id}]
        return fitting[0] if len(fitting) == 1 else None

    async def _renew(self) -> None:
        """Read the source again, unless that was tried a moment ago: tokens must not make us ask as often as they like."""
        if self._lock is None:
            self._lock = anyio.Lock()
        async with self._lock:
            now = self._clock()
            if self._tried_at is not None and now - self._tried_at < _PAUSE_S:
                return
            self._tried_at = now
            try:
                self._keys = read_keys(await self._source.read())
            except KeysUnavailableError:
                if self._age() >= _STALE_S:
                    raise
                return  # what is known serves on for a while
            self._read_at = self._clock()

    def _age(self) -> float:
        return float("inf") if self._read_at is None else self._clock() - self._read_at


def read_keys(data: bytes) -> tuple[VerificationKey, ...]:
    """The signing keys of a JSON Web Key Set; what serves another purpose or algorithm is left out.

    Raises:
        KeysUnavailableError: it is no key set.
    """
    from jwt import InvalidKeyError, PyJWK, PyJWKError  # noqa: PLC0415 - only servers with tokens

    try:
        document = parse_json(data, max_bytes=_MAX_BYTES)
    except CRAError as error:
        raise KeysUnavailableError("the key set is not JSON, or is too large") from error
    listed = cast("Mapping[str, object]", document).get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise KeysUnavailableError("the key set has no list of keys")
    found: list[VerificationKey] = []
    for entry in cast("list[object]", listed)[:_MAX_KEYS]:
        if not isinstance(entry, dict):
            continue
        jwk = cast("dict[str, object]", entry)
        algorithm = _algorithm_of(jwk)
        if algorithm is None:
            continue
        try:
            # Private members, should a set hold them by mistake, are of no use here.
            public = {
                name: value for name, value in jwk.items() if name not in {"d", "p", "q", "dp", "dq", "qi", "oth"}
            }
            material = PyJWK(public, algorithm).key
        except (PyJWKError, InvalidKeyError, ValueError, TypeError):
            continue
        if algorithm == "RS256" and material.key_size < 2048:  # noqa: PLR2004 - RFC 7518, section 3.3
            continue
        key_id = jwk.get("kid")
        found.append(VerificationKey(key_id if isinstance(key_id, str) else None, algorithm, material))
    return tuple(found)


def _algorithm_of(jwk: Mapping[str, object]) -> str | None:
    """The one algorithm a key serves here; None if there is none."""
    if jwk.get("use", "sig") != "sig" or not isinstance(jwk.get("kty"), str) or isinstance(jwk.get("crv"), dict | list):
        return None
    algorithm = _SERVES.get((jwk.get("kty"), jwk.get("crv")))
    return algorithm if jwk.get("alg", algorithm) == algorithm else None


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
