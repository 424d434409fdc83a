"""Atlases and policy files kept by their digest, so that a trace can be decided again after the atlas it names has changed or gone.

Rule: written once and never changed; what is read back has the digest it is kept under, or it isn't used.
Source: specs/trace.md, "Replay"; specs/atlas.md, "Digest".
"""

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from cra_mcp.atlas.loader import load_atlas
from cra_mcp.atlas.model import Atlas
from cra_mcp.atlas.overlay import Overlay
from cra_mcp.atlas.overlay_loading import load_overlay_atlas, load_policy_file
from cra_mcp.atlas.package import MANIFEST, Package
from cra_mcp.canonical import sha256_hex
from cra_mcp.errors import AtlasInvalidError

FOLDER = ".atlases"
"""Name of the archive in a folder of traces."""

_log = logging.getLogger("cra_mcp.atlas")

_PRIVATE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_HEX = frozenset("0123456789abcdef")
_DIGEST_CHARS = 64
_POLICY_FILE = "policy"


class AtlasArchive:
    """One folder a digest. May be used by several processes at once.

    Args:
        root: made when the first atlas is kept.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

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

    def _keep(self, digest: str, files: Mapping[str, bytes]) -> None:
        target = self._root / digest
        if target.is_dir():
            return
        draft = self._root / f".{uuid4()}"
        try:
            draft.mkdir(mode=0o700, parents=True)
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
        if len(digest) != _DIGEST_CHARS or not _HEX.issuperset(digest):
            return None
        return self._root / digest


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(os.open(path, _PRIVATE_FILE, 0o600), "wb") as file:
        file.write(data)
