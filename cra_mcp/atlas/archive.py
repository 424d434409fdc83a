"""Atlases and policy files kept by their digest, so that a trace can be decided again after the atlas it names has changed or gone.

Rule: written once and never changed; what is read back has the digest it is kept under, or it isn't used.
Source: specs/trace.md, "Replay"; specs/atlas.md, "Digest".
"""

import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from cra_mcp.atlas.loader import load_atlas
from cra_mcp.atlas.model import Atlas
from cra_mcp.atlas.overlay import Overlay
from cra_mcp.atlas.overlay_loading import load_overlay_atlas, load_policy_file
from cra_mcp.atlas.package import MANIFEST, Package
from cra_mcp.canonical import sha256_hex
from cra_mcp.errors import AtlasInvalidError
from cra_mcp.folders import make_private, open_private
from cra_mcp.secret_forms import has_certain

FOLDER = ".atlases"
"""Name of the archive in a folder of traces."""
DATABASES = ".databases"
"""Folder in an archive with a file for each database whose traces have their atlases in it: the path of the database."""
DIGEST = re.compile(r"[0-9a-f]{64}")
"""What atlases and policy files are kept under."""

_log = logging.getLogger("cra_mcp.atlas")

_PRIVATE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_POLICY_FILE = "policy"


class AtlasArchive:
    """One folder a digest. May be used by several processes at once.

    Args:
        root: made when the first atlas is kept.
        database: where the traces are that name what is kept, if not in the folder around ``root``.
    """

    def __init__(self, root: Path, database: Path | None = None) -> None:
        self._root = root
        self._database = database
        self._held: Mapping[str, Mapping[str, bytes]] = {}  # to keep again what was let go while it is loaded

    def keep(self, package: Package) -> None:
        """Keep the files of an atlas. One that is kept already costs a look.

        Never raises: an atlas that can't be kept is used all the same, since nothing but replay depends on it.
        """
        # The file of a one-file atlas may be called anything; its digest calls it atlas.json.
        names = {MANIFEST if package.root is None else name: data for name, data in package.files.items()}
        self._keep(package.digest(), names)

    def keep_policy_file(self, suffix: str, data: bytes) -> None:
        """Keep an operator's policy file. As ``keep``."""
        self._keep(sha256_hex(data), {f"{_POLICY_FILE}{suffix}": data})

    def refresh(self, digests: Iterable[str]) -> None:
        """Say that a trace is about to name all that is kept under ``digests``; what was let go meanwhile is kept again.

        As ``keep``. What was loaded before and isn't named is let go of.
        """
        held, named = self._held, tuple(digests)
        self._held = {digest: held[digest] for digest in named if digest in held}
        for digest in named:
            if not self._touch(digest) and digest in held:
                self._keep(digest, held[digest])

    def _touch(self, digest: str) -> bool:
        """Whether something is kept under a digest; it counts as used now."""
        try:
            os.utime(self._root / digest)
        except FileNotFoundError:
            return False
        except OSError:  # someone else's folder
            return (self._root / digest).is_dir()
        return True

    def _name_database(self) -> None:
        """Say, in the archive, that a database elsewhere needs it."""
        if self._database is not None:
            text = os.fsencode(self._database.absolute())
            with suppress(FileExistsError):
                _write(self._root / DATABASES / sha256_hex(text)[:16], text + b"\n")

    def _keep(self, digest: str, files: Mapping[str, bytes]) -> None:
        if any(map(has_certain, files.values())):
            _log.warning("an atlas is not kept for replay: one of its files holds what has the form of a secret")
            return
        self._held = {**self._held, digest: files}
        target, draft = self._root / digest, self._root / f".{uuid4()}"
        try:
            self._name_database()
            if self._touch(digest):
                return
            make_private(draft)
            for name, data in files.items():
                _write(draft / name, data)
            os.rename(draft, target)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            if not target.is_dir():  # or somebody else has just kept it
                _log.warning("an atlas can't be kept for replay: %s", error.strerror)

    def load(self, digest: str) -> Atlas | None:
        """The atlas of a digest; None if it isn't kept, or what is kept is no longer what was.

        Args:
            digest: from a trace: untrusted.
        """
        folder = self._folder(digest)
        try:
            atlas = load_atlas(folder) if folder is not None else None
        except AtlasInvalidError:
            return None
        return atlas if atlas is not None and atlas.digest == digest else None

    def load_overlay(self, digest: str) -> Overlay | None:
        """The overlay atlas or policy file of a digest. As ``load``."""
        folder = self._folder(digest)
        if folder is None:
            return None
        files = [path for suffix in (".json", ".yaml") if (path := folder / f"{_POLICY_FILE}{suffix}").is_file()]
        try:
            overlay = load_policy_file(files[0]) if files else load_overlay_atlas(folder)
        except AtlasInvalidError:
            return None
        return overlay if overlay.digest == digest else None

    def _folder(self, digest: str) -> Path | None:
        if DIGEST.fullmatch(digest) is None:
            return None
        return self._root / digest


def _write(path: Path, data: bytes) -> None:
    make_private(path.parent)
    with open(open_private(path, _PRIVATE_FILE), "wb") as file:
        file.write(data)
