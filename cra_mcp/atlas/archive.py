"""Atlases kept by their digest, so that a trace can be decided again after the atlas it names has changed or gone.

Rule: written once and never changed; what is read back has the digest it is kept under, or it isn't used.
Source: specs/trace.md, "Replay"; specs/atlas.md, "Digest".
"""

import logging
import os
import shutil
from pathlib import Path
from uuid import uuid4

from cra_mcp.atlas.loader import load_atlas
from cra_mcp.atlas.model import Atlas
from cra_mcp.atlas.package import MANIFEST, Package
from cra_mcp.errors import AtlasInvalidError

FOLDER = ".atlases"
"""Name of the archive in a folder of traces."""

_log = logging.getLogger("cra_mcp.atlas")

_PRIVATE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_HEX = frozenset("0123456789abcdef")
_DIGEST_CHARS = 64


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
        target = self._root / package.digest()
        if target.is_dir():
            return
        draft = self._root / f".{uuid4()}"
        try:
            draft.mkdir(mode=0o700, parents=True)
            for name, data in package.files.items():
                # The file of a one-file atlas may be called anything; its digest calls it atlas.json.
                _write(draft / (MANIFEST if package.root is None else name), data)
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
        if len(digest) != _DIGEST_CHARS or not _HEX.issuperset(digest):
            return None
        try:
            atlas = load_atlas(self._root / digest)
        except AtlasInvalidError:
            return None
        return atlas if atlas.digest == digest else None


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(os.open(path, _PRIVATE_FILE, 0o600), "wb") as file:
        file.write(data)
