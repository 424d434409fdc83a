"""The published JSON Schemas, generated from the models: ``python -m cra_mcp.faces.cli.schemas FOLDER`` writes them."""

import sys
from pathlib import Path

import orjson

from cra_mcp.atlas.manifest_schema import json_schema, tests_schema
from cra_mcp.messages import SCHEMA_MODELS

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, dict[str, object]]:
    """Each schema by its file name."""
    found: dict[str, dict[str, object]] = {
        "atlas-manifest.schema.json": json_schema(),
        "policy-tests.schema.json": tests_schema(),
    }
    for name, model in SCHEMA_MODELS.items():
        body = model.model_json_schema(mode="validation")
        found[f"{name}.schema.json"] = {"$schema": _DIALECT, "$id": f"urn:cra:schema:{name}:1.0", **body}
    return found


def encoded() -> dict[str, bytes]:
    """Each schema as the bytes of its file."""
    option = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    return {name: orjson.dumps(schema, option=option) for name, schema in schemas().items()}


def write(folder: Path) -> None:
    """Write all schemas into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in encoded().items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
