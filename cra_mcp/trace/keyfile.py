"""Where the key that signs checkpoints is kept: in a file of its owner's, the environment or a keyring.

Rule: a key that others could have read is refused, not used with a warning. Errors name the place, never what is in it.
Source: specs/trace.md, "Keys".
"""

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from cra_mcp.errors import SettingsError, TraceError
from cra_mcp.folders import give_back, make_private
from cra_mcp.trace.checkpoint import SignerKey, VerifierKey

KEY_FILE = "checkpoint.key"
PUBLIC_SUFFIX = ".pub"
_MAX_BYTES = 4_096
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def load_key(source: str | None, folder: Path, environ: Mapping[str, str]) -> SignerKey:
    """The key a setting names.

    Args:
        source: ``file:PATH``, ``env:NAME`` or ``keyring:SERVICE/NAME``; None: the key of ``folder``, made if there is none.
        folder: the data folder.
        environ: where ``env:`` looks.

    Raises:
        SettingsError: ``checkpoint_key``: it is not there, others can read it, or it is no key.
    """
    if source is None:
        path = folder / KEY_FILE
        try:
            return _from_file(path)
        except FileNotFoundError:
            return make_key(path)
    kind, _, name = source.partition(":")
    if not name or kind not in {"file", "env", "keyring"}:
        raise _unusable("the checkpoint key", "it must be given as file:PATH, env:NAME or keyring:SERVICE/NAME")
    if kind == "file":
        path = Path(name).expanduser()
        try:
            return _from_file(path)
        except FileNotFoundError:
            raise _unusable(str(path), "it is not there", f"make one: cra-mcp trace key --make {path}") from None
    text = environ.get(name) if kind == "env" else _from_keyring(name)
    if not text:
        raise _unusable(source, "it is not set", f"store the line that begins PRIVATE+KEY in {source}")
    return _decoded(source, text)


def is_kept(source: str | None, folder: Path, key: SignerKey) -> bool:
    """Whether ``key``, which came from there, is still in its file; True of what is not kept in a file. Makes none."""
    kind, _, name = (source or f"file:{folder / KEY_FILE}").partition(":")
    if kind != "file":
        return True
    try:
        return _from_file(Path(name).expanduser()).encode() == key.encode()
    except (FileNotFoundError, SettingsError):
        return False


def make_key(path: Path, name: str | None = None) -> SignerKey:
    """A new key in ``path``, its public part beside it; the one that is there, if there is one or another process was quicker.

    Raises:
        SettingsError: ``checkpoint_key``: it can't be stored.
        TraceError: ``invalid_key``: ``name`` can't name a key.
    """
    key = SignerKey.generate(name)
    public = path.with_suffix(PUBLIC_SUFFIX)
    try:
        make_private(path.parent)
        if not write_new(path, key):
            return _from_file(path)
        public.unlink(missing_ok=True)
        _write(public, f"{key.verifier.encode()}\n", 0o644)
    except OSError as error:
        raise _unusable(str(path), f"it can't be made ({error.strerror or error})") from error
    return key


def write_new(path: Path, key: SignerKey) -> bool:
    """Store a key in a new file, whole or not at all; False if there is one already.

    Raises:
        OSError: it can't be written.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    _write(aside, f"{key.encode()}\n", 0o600)
    try:
        if os.name == "nt":  # pragma: no cover - renaming there never replaces
            aside.rename(path)
        else:
            os.link(aside, path, follow_symlinks=False)
    except FileExistsError:
        return False
    finally:
        aside.unlink(missing_ok=True)
    return True


def public_key_of(path: Path) -> VerifierKey | None:
    """The public part of the key in ``path``; None if there is no key.

    Whoever can write there can change it: it says whose word a checkpoint is, not whether to take it.

    Raises:
        SettingsError: ``checkpoint_key``: the file is there and can't be used.
    """
    public = path.with_suffix(PUBLIC_SUFFIX)
    try:
        text = public.read_bytes()[:_MAX_BYTES]
        return VerifierKey.decode(text.decode("utf-8", "replace"))
    except FileNotFoundError:
        try:
            return _from_file(path).verifier
        except FileNotFoundError:
            return None
    except (OSError, TraceError) as error:
        raise _unusable(str(public), f"{error}") from error


def _write(path: Path, text: str, mode: int) -> None:
    fd = os.open(path, _MAKE, mode)
    give_back(path, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(fd)


def _from_file(path: Path) -> SignerKey:
    try:
        fd = os.open(path, _READ)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unusable(str(path), f"it can't be opened ({error.strerror})") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise _unusable(str(path), "it is no regular file")
        if os.name != "nt" and (status.st_mode & 0o077 or status.st_uid not in {os.geteuid(), 0}):
            raise _unusable(
                str(path),
                "others than its owner can read or change it, or it is someone else's",
                "If nobody else has read it: chmod 600, and make it yours. Otherwise make another key.",
            )
        text = os.read(fd, _MAX_BYTES)
    finally:
        os.close(fd)
    return _decoded(str(path), text.decode("utf-8", "replace"))


def _from_keyring(name: str) -> str | None:
    service, _, entry = name.partition("/")
    try:
        import keyring  # noqa: PLC0415 - an extra; 0.2 s
        from keyring.errors import KeyringError  # noqa: PLC0415 - as said
    except ModuleNotFoundError:
        raise _unusable(f"keyring:{name}", "the package keyring is missing", "install cra-mcp[keyring]") from None
    try:
        return keyring.get_password(service, entry)
    except KeyringError as error:
        raise _unusable(f"keyring:{name}", f"the keyring gives nothing ({type(error).__name__})") from error


def _decoded(place: str, text: str) -> SignerKey:
    try:
        return SignerKey.decode(text)
    except TraceError as error:
        raise _unusable(place, error.message) from None


def _unusable(place: str, what: str, hint: str | None = None) -> SettingsError:
    return SettingsError(
        f"{place}: {what}",
        code="checkpoint_key",
        hint=hint
        or "Point --checkpoint-key to a key that only you can read, or turn checkpoints off: --checkpoint-every 0.",
    )
