"""Runs conformance vectors of kind ``atlas`` against the loader.

Rule: nothing is decided here; the files of a vector are written to a folder and loaded like any other atlas.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from cra_mcp.atlas.loader import load_atlas, load_atlas_text
from cra_mcp.atlas.model import Atlas
from cra_mcp.errors import AtlasInvalidError


def run(vector: Mapping[str, object]) -> object:
    """What the loader makes of ``vector["input"]``, to be compared with ``vector["expect"]``."""
    given = cast("Mapping[str, object]", vector["input"])
    expected = cast("Mapping[str, object]", vector["expect"])
    try:
        atlas = _load(given)
    except AtlasInvalidError as error:
        problems = [{"file": found.file, "pointer": found.pointer, "code": found.code} for found in error.problems]
        return {"ok": False, "problems": problems}
    return {"ok": True, "digest": atlas.digest} if "digest" in expected else {"ok": True}


def _load(given: Mapping[str, object]) -> Atlas:
    if "text" in given:
        return load_atlas_text(cast("str", given["text"]), name="atlas.json")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        for name, content in cast("Mapping[str, object]", given["files"]).items():
            path = root / name
            if not path.resolve().is_relative_to(root):
                raise ValueError(f"a vector's files stay in their folder, and {name!r} would not")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((content if isinstance(content, str) else json.dumps(content)).encode())
        return load_atlas(root)
