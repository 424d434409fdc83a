"""Loading overlays: a path in, an overlay out, or every problem at once.

Source: specs/policy.md, "Overlays".
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cra_mcp.atlas.model import Atlas
from cra_mcp.atlas.overlay import MAX_FILE_BYTES, Overlay
from cra_mcp.atlas.package import OPEN_TO_ALL
from cra_mcp.errors import AtlasInvalidError, Problem
from cra_mcp.folders import anybody_writes, open_regular
from cra_mcp.policy.model import Layer

if TYPE_CHECKING:
    from cra_mcp.atlas.loader import Keep

_HINT = '`cra-mcp docs policy`, "Overlays", explains them'


def load_policy_file(path: Path, *, keep: Callable[[str, bytes], None] | None = None) -> Overlay:
    """Load an operator's policy file: JSON, or YAML 1.2 if its name ends in ``.yaml`` or ``.yml``.

    ``keep`` is told of the file's suffix and bytes, if it was loaded.

    Raises:
        AtlasInvalidError: with every problem found.
    """
    # pydantic takes its time to import: only where a file is read.
    from cra_mcp.atlas.policy_file import parse_policy_file  # noqa: PLC0415

    data, yaml = read_bounded(path), is_yaml(path)
    overlay = parse_policy_file(data, path.name, yaml=yaml)
    if keep is not None:
        keep(".yaml" if yaml else ".json", data)
    return overlay


def is_yaml(path: Path) -> bool:
    """Whether a file is YAML by its name."""
    return path.suffix in {".yaml", ".yml"}


def read_bounded(path: Path) -> bytes:
    """The bytes of a file of the operator's.

    Raises:
        AtlasInvalidError: there is none, it can't be read, or it is too large.
    """
    try:
        with open_regular(path) as file:
            if anybody_writes(os.fstat(file.fileno()), os.stat(path.resolve().parent)):
                raise _refusal(path.name, "open_to_all", OPEN_TO_ALL)
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise _refusal(path.name, "not_found", f"there is no file {path}") from error
        raise _refusal(path.name, "unreadable", f"{path} can't be read") from error
    if len(data) > MAX_FILE_BYTES:
        raise _refusal(path.name, "too_large", f"is over the limit of {MAX_FILE_BYTES} bytes")
    return data


def load_overlay_atlas(path: Path, *, keep: "Keep | None" = None) -> Overlay:
    """Load an atlas that says ``"overlay": true``. ``keep`` is told of its files.

    Raises:
        AtlasInvalidError: with every problem found, or it is no overlay.
    """
    from cra_mcp.atlas.loader import load_atlas  # noqa: PLC0415 - as above

    atlas = load_atlas(path, keep=keep)
    if not atlas.overlay:
        raise _refusal(
            "atlas.json" if atlas.root is not None else path.name,
            "invalid_value",
            f'{atlas.atlas_id} is no overlay: load it with --atlas, or let it say "overlay": true',
        )
    return overlay_of(atlas, path.name)


def overlay_of(atlas: Atlas, name: str) -> Overlay:
    """The overlay that an overlay atlas is; ``name`` is what its file or folder is called in problems."""
    layer = Layer(atlas.atlas_id, atlas.policies, atlas.policy_set.default_effect)
    places = tuple((name, f"/policies/{policy.policy_id}") for policy in atlas.policies)
    return Overlay(atlas.version, atlas.digest, layer, places, atlas.detectors)


def _refusal(file: str, code: str, message: str) -> AtlasInvalidError:
    return AtlasInvalidError([Problem(file, "", code, message)], hint=_HINT)
