"""Checkpoints: the size and root of a chain's Merkle tree, signed, in a text form that other tools read.

Rule: pure; reading is strict, because two readers that disagree about one text are a way to deceive one of them. Nothing in a note
counts before a signature by a key known from elsewhere was verified.
Source: C2SP signed-note and tlog-checkpoint; RFC 8032. Specified in specs/trace.md, "Checkpoints".
"""

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from cra_mcp.errors import TraceError
from cra_mcp.trace.event import is_identifier
from cra_mcp.trace.merkle import HASH_BYTES, MAX_SIZE

MAX_NOTE_BYTES = 65_536
MAX_SIGNATURES = 64
_ED25519 = b"\x01"
_ID_BYTES = 4
_KEY_BYTES = 32
_MAX_NAME = 200
_PRIVATE = "PRIVATE+KEY+"
_SIGNATURE_LINE = re.compile("\u2014 ([^ ]+) ([A-Za-z0-9+/]+={0,2})")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_ORIGIN, _TREE_SIZE, _ROOT, _LEAST_LINES = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a note says of a log. ``extensions`` are lines of other software, without meaning here.

    Attributes:
        origin: which log it is: the name of the key that signs it, a slash, and the session id.
        size: events.
        root: 32 bytes, the RFC 6962 root over the first ``size`` stored lines.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def to_text(self) -> str:
        """The text that is signed."""
        return "".join(f"{line}\n" for line in (self.origin, str(self.size), encode(self.root), *self.extensions))

    @property
    def session_id(self) -> str | None:
        """The session the origin names; None where it names none."""
        name = self.origin.rpartition("/")[2]
        return name if is_identifier(name) else None


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line of a note."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A note that has the right form. Its signatures have not been verified: ``verify`` does that.

    Attributes:
        text: what is signed.
        note: the whole of it, as it was read.
    """

    checkpoint: Checkpoint
    text: bytes
    signatures: tuple[Signature, ...]
    note: bytes

    def verify(self, keys: "Iterable[VerifierKey]") -> "VerifierKey":
        """The key of ``keys`` that signed this. Signatures by other keys don't count, for or against.

        Raises:
            TraceError: ``checkpoint_unsigned``: no signature is by one of the keys; ``checkpoint_forged``: one claims to be, and
                is not; ``checkpoint_origin``: a log of another name is signed.
        """
        signer: VerifierKey | None = None
        for key in keys:
            for signature in self.signatures:
                if (signature.name, signature.key_id) != (key.name, key.key_id):
                    continue
                if not key.has_signed(self.text, signature.signature):
                    raise TraceError(
                        f"the checkpoint bears the name of {key.name}, but not its signature",
                        code="checkpoint_forged",
                        hint="Get the checkpoint again from where it was kept; this one was made or changed by someone else.",
                    )
                signer = signer or key
        if signer is None:
            raise TraceError(
                "the checkpoint is not signed by a key that is trusted here",
                code="checkpoint_unsigned",
                hint="Give the public key of the runtime that wrote the trace (`cra-mcp trace key` there).",
            )
        if self.checkpoint.origin != origin_of(signer.name, self.checkpoint.session_id or ""):
            raise TraceError("the checkpoint's origin is not a session of the key's log", code="checkpoint_origin")
        return signer


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key that is trusted for a name.

    Attributes:
        public: 32 bytes (RFC 8032).
    """

    name: str
    public: bytes

    def __post_init__(self) -> None:
        """Refuse names that a note can't carry.

        Raises:
            TraceError: ``invalid_key``.
        """
        if not is_key_name(self.name) or len(self.public) != _KEY_BYTES:
            raise _bad_key("its name or its length is not allowed")

    @property
    def key_id(self) -> bytes:
        """Four bytes that tell keys of one name apart."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:_ID_BYTES]

    def encode(self) -> str:
        """The key as a line of text: ``name+id+key``."""
        return f"{self.name}+{self.key_id.hex()}+{encode(_ED25519 + self.public)}"

    @classmethod
    def decode(cls, text: str) -> "VerifierKey":
        """Read the line ``encode`` writes.

        Raises:
            TraceError: ``invalid_key``.
        """
        name, _, rest = text.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        key = cls(name, _key_of(encoded))
        if key.key_id.hex() != key_id:
            raise _bad_key("its id is not that of the key")
        return key

    def has_signed(self, text: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is this key's over ``text``."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - 30 ms, only where something is signed
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - as said

        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
        except (InvalidSignature, ValueError):
            return False
        return True


class SignerKey:
    """A private key and its name. It is shown to nobody: its text form is made only to be stored.

    Raises:
        TraceError: ``invalid_key``.
    """

    __slots__ = ("_private", "verifier")

    def __init__(self, name: str, seed: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - as above

        if len(seed) != _KEY_BYTES:
            raise _bad_key("its length is not allowed")
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = VerifierKey(name, self._private.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"SignerKey({self.verifier.encode()!r})"

    @classmethod
    def generate(cls, name: str | None = None) -> "SignerKey":
        """A new key; without a name it gets one of its own, made of its public part."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - as above

        private = Ed25519PrivateKey.generate()
        name = name or f"cra-mcp/{sha256(private.public_key().public_bytes_raw()).hexdigest()[:16]}"
        return cls(name, private.private_bytes_raw())

    def encode(self) -> str:
        """The key as a line of text to be stored: ``PRIVATE+KEY+name+id+key``."""
        seed = self._private.private_bytes_raw()
        return f"{_PRIVATE}{self.verifier.name}+{self.verifier.key_id.hex()}+{encode(_ED25519 + seed)}"

    @classmethod
    def decode(cls, text: str) -> "SignerKey":
        """Read the line ``encode`` writes. Errors say nothing of what is in it.

        Raises:
            TraceError: ``invalid_key``.
        """
        text = text.strip()
        name, _, rest = text.removeprefix(_PRIVATE).partition("+")
        key_id, _, encoded = rest.partition("+")
        if not text.startswith(_PRIVATE) or not is_key_name(name):
            raise _bad_key("it is no private key in the form of signed notes")
        key = cls(name, _key_of(encoded))
        if key.verifier.key_id.hex() != key_id:
            raise _bad_key("its id is not that of the key")
        return key

    def sign(self, checkpoint: Checkpoint) -> bytes:
        """The note that says ``checkpoint``, signed."""
        text = checkpoint.to_text()
        blob = encode(self.verifier.key_id + self._private.sign(text.encode()))
        return f"{text}\n\u2014 {self.verifier.name} {blob}\n".encode()

    def sign_statement(self, kind: str, data: bytes) -> bytes:
        """The signature of a statement that is no checkpoint: over a line with its kind, and ``data``.

        ``kind`` holds no line feed, so no checkpoint is ever taken for one: its first line is the name of a key and a session.
        """
        return self._private.sign(kind.encode() + b"\n" + data)


def origin_of(name: str, session_id: str) -> str:
    """The origin of a session's log, signed by the key of this name."""
    return f"{name}/{session_id}"


def is_key_name(text: str) -> bool:
    """Whether ``text`` can name a key: printable, without spaces and plus signs."""
    return 1 <= len(text) <= _MAX_NAME and text.isprintable() and not re.search(r"[\s+]", text)


def parse_checkpoint(note: bytes) -> SignedCheckpoint:
    """Read one note. Its signatures are not verified.

    Raises:
        TraceError: ``malformed_checkpoint``.
    """
    if len(note) > MAX_NOTE_BYTES:
        raise _malformed("it is too long")
    try:
        whole = note.decode("utf-8")
    except UnicodeDecodeError:
        raise _malformed("it is not UTF-8") from None
    if any(char < " " and char != "\n" for char in whole):
        raise _malformed("it holds control characters")
    head, separator, tail = whole.rpartition("\n\n")
    if not separator or not tail.endswith("\n"):
        raise _malformed("it has no signature block")
    text = f"{head}\n"
    signatures = tuple(_signature(line) for line in tail[:-1].split("\n"))
    if len(signatures) > MAX_SIGNATURES:
        raise _malformed("it has too many signatures")
    return SignedCheckpoint(_checkpoint(head.split("\n")), text.encode(), signatures, note)


def split_notes(data: bytes) -> tuple[list[bytes], bytes]:
    """The notes of a file that holds several, an empty line between them, and what follows the last whole one.

    A checkpoint's text has no empty line, so that every other one ends a note. Whether the parts are checkpoints is not checked.
    """
    parts = data.split(b"\n\n")
    notes: list[bytes] = []
    while len(parts) > 2:  # noqa: PLR2004 - text, signatures, and the rest
        notes.append(parts.pop(0) + b"\n\n" + parts.pop(0) + b"\n")
    rest = b"\n\n".join(parts)
    if len(parts) > 1 and parts[1].endswith(b"\n"):  # one note without an empty line after it: as it is signed
        return [*notes, rest], b""
    return notes, rest


def join_notes(notes: Sequence[bytes]) -> bytes:
    """The file ``split_notes`` reads."""
    return b"".join(note + b"\n" for note in notes)


def encode(data: bytes) -> str:
    """Base64, as notes write it."""
    return base64.b64encode(data).decode()


def decode(text: str) -> bytes:
    """Read Base64; only the one form that ``encode`` writes.

    Raises:
        TraceError: ``malformed_checkpoint``.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _malformed("it holds what is no Base64") from None
    if encode(data) != text:
        raise _malformed("it holds Base64 that is not in its usual form")
    return data


def _checkpoint(lines: list[str]) -> Checkpoint:
    if len(lines) < _LEAST_LINES or not all(lines):
        raise _malformed("its text is not at least three lines, none of them empty")
    if not _SIZE.fullmatch(lines[_TREE_SIZE]) or int(lines[_TREE_SIZE]) > MAX_SIZE:
        raise _malformed("its size is no number of events")
    root = decode(lines[_ROOT])
    if len(root) != HASH_BYTES:
        raise _malformed("its root is no SHA-256 hash")
    return Checkpoint(lines[_ORIGIN], int(lines[_TREE_SIZE]), root, tuple(lines[_LEAST_LINES:]))


def _signature(line: str) -> Signature:
    match = _SIGNATURE_LINE.fullmatch(line)
    if match is None or not is_key_name(match[1]):
        raise _malformed("a signature line breaks its form")
    blob = decode(match[2])
    if len(blob) <= _ID_BYTES:
        raise _malformed("a signature is too short")
    return Signature(match[1], blob[:_ID_BYTES], blob[_ID_BYTES:])


def _key_of(encoded: str) -> bytes:
    try:
        data = decode(encoded)
    except TraceError:
        raise _bad_key("it is no Base64") from None
    if data[:1] != _ED25519:
        raise _bad_key("it is not of the kind Ed25519")
    return data[1:]


def _malformed(what: str) -> TraceError:
    return TraceError(f"the checkpoint can't be read: {what}", code="malformed_checkpoint")


def _bad_key(what: str) -> TraceError:
    return TraceError(
        f"the key can't be used: {what}",
        code="invalid_key",
        hint="A public key is one line, name+id+key, as `cra-mcp trace key` prints it.",
    )
