"""The published schemas are those of the code, and what the runtime says fits them."""

import json
from pathlib import Path

import jsonschema
import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.faces.cli.schemas import encoded

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "specs" / "schemas"


def test_no_published_schema_has_drifted() -> None:
    """`just fix` writes them anew."""
    published = {path.name: path.read_bytes() for path in FOLDER.glob("*.json")}
    assert published == encoded()


@pytest.mark.parametrize("name", sorted(encoded()))
def test_each_is_a_schema_of_2020_12(name: str) -> None:
    schema = json.loads((FOLDER / name).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"].startswith("urn:cra:schema:")


def check(name: str, value: object) -> None:
    schema = json.loads((FOLDER / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(value)))


def test_what_the_runtime_says_fits() -> None:
    with CRARuntime(RuntimeConfig(store="memory")) as runtime:
        for atlas in ("customer-support", "devops", "filesystem"):
            runtime.load_atlas(ROOT / "atlases" / atlas)
            manifest = json.loads((ROOT / "atlases" / atlas / "atlas.json").read_text())
            check("atlas-manifest", {"policies": [], "actions": [], **manifest})
        session = runtime.create_session("agent", "goal").session_id
        check("carp-resolution", runtime.resolve(session).to_dict())
        for action, parameters in (("ticket.delete", {}), ("no.such", {}), ("refund.create", {}), ("git.push", {})):
            check("carp-execution", runtime.execute_blocking(session, action, parameters).to_dict())
        for event in runtime.get_trace(session):
            check("trace-event", event.to_dict())


def test_a_schema_refuses_what_the_code_refuses() -> None:
    with pytest.raises(jsonschema.ValidationError):
        check("carp-request", {"carp_version": "2.0"})
    with pytest.raises(jsonschema.ValidationError):
        check("atlas-manifest", {"atlas_version": "1.0", "surprise": 1})
