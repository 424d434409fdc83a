"""Timestamps of checkpoints: a third party's signed word that a checkpoint existed at a time.

Rule: pure. A token is a line in the signature block of the checkpoint it is of, as if by a key nobody trusts: every reader of
checkpoints passes over it, and nothing it says counts before it was verified against certificates known from elsewhere.
Source: RFC 3161; RFC 5816; C2SP signed-note. Specified in specs/trace.md, "Timestamps".
"""

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn

from cra_mcp.errors import SettingsError, TraceError
from cra_mcp.trace.checkpoint import SignedCheckpoint, encode

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from rfc3161_client import TimeStampResponse

MAX_TOKEN_BYTES = 32_768
_KIND = b"\xffcra.dev/rfc3161@v1"
_ID_BYTES = 4
_SHA256 = "2.16.840.1.101.3.4.2.1"
_GRANTED = (0, 1)
_STATUS_GRANTED = b"\x30\x03\x02\x01\x00"  # PKIStatusInfo of an answer that holds a token
_LONGEST_PATH = 8


@dataclass(frozen=True, slots=True)
class Query:
    """What an authority is asked.

    Attributes:
        request: the TimeStampReq, DER.
        nonce: the random number the answer must repeat.
        imprint: SHA-256 of the note.
    """

    request: bytes
    nonce: int
    imprint: bytes


@dataclass(frozen=True, slots=True)
class Stamp:
    """A token as it was found. It has not been verified: ``verify_stamp`` does that.

    Attributes:
        name: what the line is called; who wrote the line chose it.
        token: the TimeStampToken, DER.
    """

    name: str
    token: bytes


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A token that was borne out: what it is of existed at ``time``.

    Attributes:
        time: UTC.
        accuracy: how far off ``time`` may be, by the authority's own word; None where it gives none.
        authority: subject of the certificate that signed it (RFC 4514).
        serial_number: of the token, at the authority.
        policy: object identifier of the policy it was given under.
    """

    time: datetime
    accuracy: timedelta | None
    authority: str
    serial_number: int
    policy: str

    def to_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "time": self.time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "accuracy_s": None if self.accuracy is None else self.accuracy.total_seconds(),
            "authority": self.authority,
            "serial_number": str(self.serial_number),
            "policy": self.policy,
        }


def require_extra() -> None:
    """Have what reads and writes timestamps.

    Raises:
        SettingsError: ``missing_extra``: it is not installed.
    """
    if find_spec("rfc3161_client") is None:
        raise SettingsError(
            "timestamps need a package that is not installed",
            code="missing_extra",
            hint="install cra-mcp[timestamps]",
        )


def read_authorities(pem: bytes) -> "tuple[Certificate, ...]":
    """Certificates to trust for timestamps: roots, and what lies between them and an authority if its tokens leave that out.

    Raises:
        SettingsError: ``timestamp_ca``: there is no self-signed one in it.
    """
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415 - 30 ms, only where there are timestamps

    try:
        with _quiet():
            found = tuple(load_pem_x509_certificates(pem))
            if any(each.issuer == each.subject for each in found):
                return found
    except ValueError:
        pass
    raise SettingsError(
        "the certificates for timestamps can't be read, or none of them is a root",
        code="timestamp_ca",
        hint="Give the authority's self-signed root certificate as PEM (-----BEGIN CERTIFICATE-----).",
    )


def query_of(note: bytes) -> Query:
    """Ask for a timestamp of a note, with the authority's certificate in it, and a new nonce.

    Raises:
        SettingsError: ``missing_extra``.
    """
    require_extra()
    from rfc3161_client import TimestampRequestBuilder  # noqa: PLC0415 - an extra
    from rfc3161_client.base import HashAlgorithm  # noqa: PLC0415 - as said

    made = TimestampRequestBuilder().data(note).hash_algorithm(HashAlgorithm.SHA256).nonce(nonce=True)
    request = made.cert_request(cert_request=True).build()
    if request.nonce is None:  # pragma: no cover - it was asked for
        raise _malformed("there is no nonce in the request")
    return Query(request.as_bytes(), request.nonce, sha256(note).digest())


def token_of(answer: bytes, query: Query) -> bytes:
    """The token of an authority's answer, if it is the answer to this query. Who signed it is not checked here.

    Args:
        answer: the TimeStampResp, DER.
        query: what was asked.

    Raises:
        TraceError: ``timestamp_refused``: the authority gives none; ``timestamp_mismatch``: it is of something else;
            ``timestamp_nonce``: it is the answer to another request; ``malformed_timestamp``.
    """
    if len(answer) > MAX_TOKEN_BYTES:
        raise _malformed("it is too long")
    response = _parsed(answer)
    if response.status not in _GRANTED:
        raise TraceError(f"the authority gives no timestamp (status {response.status})", code="timestamp_refused")
    try:
        with _quiet():
            _check_imprint(response, query.imprint)
            nonce, token = response.tst_info.nonce, response.time_stamp_token()
    except ValueError:
        raise _malformed("what should be its token is none") from None
    if nonce != query.nonce:
        raise TraceError("the timestamp is the answer to another request", code="timestamp_nonce")
    return token


def add_stamp(note: bytes, name: str, token: bytes) -> bytes:
    """The note with a token of it in its signature block."""
    return note + f"\u2014 {name} {encode(_key_id(name) + token)}\n".encode()


def stamps_of(signed: SignedCheckpoint) -> tuple[Stamp, ...]:
    """The tokens in a note, unverified."""
    return tuple(Stamp(each.name, each.signature) for each in signed.signatures if each.key_id == _key_id(each.name))


def without_stamps(signed: SignedCheckpoint) -> bytes:
    """The note that tokens are of: as it was signed, without lines of tokens."""
    head, separator, tail = signed.note.rpartition(b"\n\n")
    lines = zip(tail.removesuffix(b"\n").split(b"\n"), signed.signatures, strict=True)
    return head + separator + b"".join(line + b"\n" for line, each in lines if each.key_id != _key_id(each.name))


def verify_stamp(token: bytes, note: bytes, authorities: "Sequence[Certificate]") -> Timestamp:
    """Check that a token is of ``note``, and by an authority that one of the certificates vouches for.

    Certificates have to be valid at the time the token gives: tokens outlive them.

    Args:
        token: the TimeStampToken, DER.
        note: what it must be of, without tokens.
        authorities: as ``read_authorities`` reads them; the self-signed ones are trusted.

    Raises:
        TraceError: ``malformed_timestamp``; ``timestamp_mismatch``: it is of something else; ``timestamp_expired``: a certificate
            was not valid at its time; ``timestamp_untrusted``: no certificate that was given vouches for the authority, or not for
            its timestamps; ``timestamp_forged``: the authority did not sign this.
        SettingsError: ``missing_extra``.
    """
    require_extra()
    from rfc3161_client import VerificationError, VerifierBuilder  # noqa: PLC0415 - an extra

    if len(token) > MAX_TOKEN_BYTES:
        raise _malformed("it is too long")
    response = _parsed(_answer_of(token))
    try:
        with _quiet():
            _check_imprint(response, sha256(note).digest())
            path = _path(response, authorities)
            _check_validity(path, response.tst_info.gen_time)
            try:
                VerifierBuilder(roots=list(authorities)).build().verify(response, sha256(note).digest())
            except VerificationError as error:
                _refuse(error)
            return _timestamp(response, path[0])
    except TraceError:
        raise
    except Exception as error:  # of parsers of hostile bytes, which have many names for what they don't like
        raise _malformed("it holds what no token holds") from error


def _parsed(answer: bytes) -> "TimeStampResponse":
    from rfc3161_client import decode_timestamp_response  # noqa: PLC0415 - an extra

    try:
        return decode_timestamp_response(answer)
    except ValueError:
        raise _malformed("it is no answer of a time-stamping authority") from None


def _check_imprint(response: "TimeStampResponse", imprint: bytes) -> None:
    found = response.tst_info.message_imprint
    if found.hash_algorithm.dotted_string != _SHA256 or found.message != imprint:
        raise TraceError("the timestamp is not of this checkpoint", code="timestamp_mismatch")


def _path(response: "TimeStampResponse", authorities: "Sequence[Certificate]") -> "list[Certificate]":
    """The certificate of who signed, then those that say they vouch for it, as far as they are known. No signature is checked."""
    from cryptography.x509 import load_der_x509_certificate  # noqa: PLC0415 - as above

    signers = list(response.signed_data.signer_infos)
    embedded = [load_der_x509_certificate(each) for each in response.signed_data.certificates]
    own = [
        each
        for each in embedded
        for signer in signers
        if (each.issuer, each.serial_number) == (signer.issuer, signer.serial_number)
    ]
    if len(signers) != 1 or not own:
        raise _malformed("it does not hold one signature and the certificate of who signed it")
    path = own[:1]
    while path[-1].issuer != path[-1].subject and len(path) < _LONGEST_PATH:
        above = [each for each in (*authorities, *embedded) if each.subject == path[-1].issuer]
        if not above:
            break
        path.append(above[0])
    return path


def _check_validity(path: "Sequence[Certificate]", time: datetime) -> None:
    for each in path:
        if not each.not_valid_before_utc <= time <= each.not_valid_after_utc:
            raise TraceError(
                "a certificate of the authority was not valid at the time it gives", code="timestamp_expired"
            )


def _refuse(error: Exception) -> NoReturn:
    """Say why the library does not accept a token. It tells by text alone; what is not known counts as forged."""
    text = str(error)
    if "certificate verify error" in text or "EKU" in text:
        raise TraceError(
            "no certificate that was given vouches for the authority",
            code="timestamp_untrusted",
            hint="Give the root certificate of the time-stamping authority (--tsa-ca).",
        ) from None
    raise TraceError("the timestamp is not signed by the authority it names", code="timestamp_forged") from None


def _timestamp(response: "TimeStampResponse", signer: "Certificate") -> Timestamp:
    info = response.tst_info
    accuracy = getattr(info, "accuracy", None)  # optional in a token, and not in the library's types
    return Timestamp(
        time=info.gen_time,
        accuracy=None
        if accuracy is None
        else timedelta(
            seconds=accuracy.seconds or 0, milliseconds=accuracy.millis or 0, microseconds=accuracy.micros or 0
        ),
        authority=signer.subject.rfc4514_string(),
        serial_number=info.serial_number,
        policy=info.policy.dotted_string,
    )


def _answer_of(token: bytes) -> bytes:
    """A TimeStampResp that grants ``token``: the form in which the library reads one."""
    body = _STATUS_GRANTED + token
    size = len(body).to_bytes(4, "big").lstrip(b"\0")
    length = size if len(body) < 0x80 else bytes([0x80 | len(size)]) + size  # noqa: PLR2004 - DER, short form
    return b"\x30" + length + body


def _key_id(name: str) -> bytes:
    """What tells lines of tokens from signatures."""
    return sha256(name.encode() + b"\n" + _KIND).digest()[:_ID_BYTES]


@contextmanager
def _quiet() -> Generator[None]:
    """What cryptography finds odd in a certificate is no matter for the operator's terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _malformed(what: str) -> TraceError:
    return TraceError(f"the timestamp can't be read: {what}", code="malformed_timestamp")
