"""Timestamps got while checkpoints are made: a time-stamping authority as one of the places checkpoints go to.

Rule: the authority sees a hash and nothing else. What it answers is kept only if it is of the checkpoint that was asked about, in
answer to this request and, where its root is known, signed by it. Nobody waits for it (``delivery``).
Source: RFC 3161, sections 2.4 and 3.4; specs/trace.md, "Timestamps".
"""

from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from cra_mcp.authority import split_url
from cra_mcp.errors import SettingsError, TraceError
from cra_mcp.folders import read_regular
from cra_mcp.trace import timestamp
from cra_mcp.trace.checkpoint import is_key_name
from cra_mcp.trace.posting import post

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryptography.x509 import Certificate

    from cra_mcp.trace.keeping import KeptCheckpoints

_MAX_PEM_BYTES = 4 * 1_048_576
_HEADERS = {
    "content-type": "application/timestamp-query",
    "accept": "application/timestamp-reply",
    "user-agent": "cra-mcp",
}


class TimestampAuthority:
    """Asks an authority for a token of each checkpoint it is given, and keeps checkpoint and token together.

    Args:
        url: where it is asked.
        kept: where checkpoints with tokens are kept.
        authorities: certificates its tokens must hold against before they are kept; empty: that is left to verification.

    Raises:
        SettingsError: ``missing_extra``.
    """

    def __init__(self, url: SplitResult, kept: "KeptCheckpoints", authorities: "Sequence[Certificate]" = ()) -> None:
        timestamp.require_extra()
        self.name = f"time-stamping authority {url.scheme}://{url.netloc}{url.path}"
        self._url = url
        self._kept = kept
        self._authorities = authorities

    def deliver(self, session_id: str, size: int, note: bytes) -> None:
        """See ``Sink``. A token that was lost after it was given is asked for again."""
        query = timestamp.query_of(note)
        answer = post(self._url, query.request, _HEADERS, max_answer_bytes=timestamp.MAX_TOKEN_BYTES)
        try:
            token = timestamp.token_of(answer, query)
            if self._authorities:
                timestamp.verify_stamp(token, note, self._authorities)
            self._kept.append(session_id, timestamp.add_stamp(note, self._url.hostname or "", token))
        except TraceError as error:
            raise OSError(f"{error.message} [{error.code}]") from error


def load_authorities(path: "Path") -> "tuple[Certificate, ...]":
    """The certificates of a file, as ``timestamp.read_authorities`` reads them.

    Raises:
        SettingsError: ``timestamp_ca``: there is none, or it can't be read.
    """
    try:
        pem = read_regular(path.expanduser(), _MAX_PEM_BYTES)
    except OSError as error:
        raise SettingsError(
            f"can't read {path}: {error.strerror or error}", code="timestamp_ca", hint="check the path"
        ) from None
    return timestamp.read_authorities(pem)


def authority_url(text: str) -> SplitResult:
    """The address of an authority. Both schemes will do: what it answers is signed, and it is told no secret.

    Raises:
        SettingsError: it can't be used.
    """
    try:
        url = split_url(text, {"http", "https"})
        good = is_key_name(url.hostname or "") and not url.fragment
    except ValueError:
        good, url = False, urlsplit("")
    if not good:
        raise SettingsError(
            f"no time-stamping authority is at {text.rpartition('@')[2][:100]}",
            hint="give its address as http(s)://HOST[:PORT]/PATH, without a name or password in it",
        )
    return url
