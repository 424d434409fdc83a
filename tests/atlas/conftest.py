"""Small atlases to build on."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cra_mcp.atlas.loader import load_atlas, load_atlas_text
from cra_mcp.atlas.model import Atlas
from cra_mcp.errors import AtlasInvalidError


def manifest(**fields: object) -> dict[str, object]:
    """The smallest manifest, and what is given."""
    return {
        "atlas_version": "1.0",
        "atlas_id": "com.example.a",
        "version": "1.0.0",
        "name": "A",
        "description": "d",
        **fields,
    }


def action(action_id: str = "t.read", **fields: object) -> dict[str, object]:
    """The smallest action, and what is given."""
    return {"action_id": action_id, "name": "n", "description": "d", "parameters_schema": {"type": "object"}, **fields}


def load(value: object) -> Atlas:
    """A one-file atlas of this value."""
    return load_atlas_text(json.dumps(value))


def problems(source: object) -> list[tuple[str, str, str]]:
    """What is wrong with a folder, a text or a value: file, pointer and code of each problem; none if it loads."""
    try:
        if isinstance(source, Path):
            load_atlas(source)
        else:
            load_atlas_text(source if isinstance(source, str | bytes) else json.dumps(source), name="atlas.json")
    except AtlasInvalidError as error:
        return [(found.file, found.pointer, found.code) for found in error.problems]
    return []


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[Mapping[str, object]], Path]:
    """Makes an atlas folder: objects are written as JSON, text and bytes as they are."""

    def make(files: Mapping[str, object]) -> Path:
        root = tmp_path / "atlas"
        for name, content in {"atlas.json": manifest(), **files}.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                path.write_bytes((content if isinstance(content, str) else json.dumps(content)).encode())
        return root

    return make
