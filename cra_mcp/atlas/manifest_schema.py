"""The published JSON Schemas of a manifest and of policy tests, generated from their models.

Rule: it accepts and refuses what the models do. What parts say of each other no schema can say; the loader does.
Source: JSON Schema 2020-12; specs/schemas/atlas-manifest.schema.json.
"""

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from cra_mcp.atlas.case_form import TestFile
from cra_mcp.atlas.manifest import Manifest

SCHEMA_ID = "urn:cra:schema:atlas-manifest:1.0"
TESTS_SCHEMA_ID = "urn:cra:schema:policy-tests:1.0"


class _Generator(GenerateJsonSchema):
    """Null never stands in a file: optional fields are those not required."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        result = super().default_schema(schema)
        if result.get("default", ...) is None:
            del result["default"]
        return result

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Pydantic would say what members of some names look like, and nothing of other names."""
        result = super().dict_schema(schema)
        members = result.pop("patternProperties", None)
        if members is not None and "keys_schema" in schema:
            names = self.generate_inner(schema["keys_schema"])
            result = {**result, "propertyNames": names, "additionalProperties": next(iter(members.values()))}
        return result

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        result = super().tagged_union_schema(schema)
        result.pop("discriminator", None)  # OpenAPI's, not JSON Schema's
        return result


def json_schema() -> dict[str, object]:
    """The JSON Schema 2020-12 of a manifest; it refuses what the models refuse."""
    schema = Manifest.model_json_schema(schema_generator=_Generator)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **schema,
        "title": "Atlas manifest",
    }


def tests_schema() -> dict[str, object]:
    """The JSON Schema 2020-12 of one file of policy tests; the file may hold a list of them."""
    schema = TestFile.model_json_schema(schema_generator=_Generator)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": TESTS_SCHEMA_ID,
        **schema,
        "title": "Policy tests",
    }
