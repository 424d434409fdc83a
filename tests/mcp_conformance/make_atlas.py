"""Writes ``atlas/atlas.json``: run it after a change here.

What the scenarios of ``@modelcontextprotocol/conformance`` call, prompt for and read, as actions of an atlas. Their names and
behaviours are the suite's; how each of them works is in ``atlas/python/fixtures.py``.
"""

import json
from pathlib import Path

ATLAS = Path(__file__).parent / "atlas" / "atlas.json"

NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}


def text(description: str) -> dict[str, str]:
    return {"type": "string", "description": description}


def takes(**properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def action(name: str, description: str, schema: object = NOTHING, *, asks: tuple[str, ...] = (), **fields: object):
    executor: dict[str, object] = {"type": "python", "callable": f"fixtures:{name}", "context": "ctx"}
    if asks:
        executor["asks"] = list(asks)
    publish = {"as": "tool", "name": name, **fields.pop("publish", {})}  # type: ignore[dict-item]
    return {
        "action_id": f"conformance.{name}",
        "name": name,
        "description": description,
        "parameters_schema": schema,
        "executor": executor,
        "publish": publish,
        **fields,
    }


def prompt(name: str, description: str, schema: object = NOTHING, **fields: object):
    return action(name, description, schema, publish={"as": "prompt"}, **fields)


def resource(name: str, description: str, uri: str, mime_type: str, schema: object = NOTHING):
    return action(name, description, schema, publish={"as": "resource", "uri": uri, "mime_type": mime_type})


RICH_SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}

ACTIONS = [
    action("test_simple_text", "Answers with a text."),
    action("test_image_content", "Answers with an image."),
    action("test_audio_content", "Answers with a sound."),
    action("test_embedded_resource", "Answers with a document."),
    action("test_multiple_content_types", "Answers with a text, an image and a document."),
    action("test_tool_with_logging", "Logs three messages."),
    action("test_logging_tool", "Logs a message."),
    action("test_tool_with_progress", "Reports progress three times."),
    action("test_error_handling", "Always fails."),
    action("test_sampling", "Asks the model.", takes(prompt=text("What to ask it.")), asks=("sampling",)),
    action("test_elicitation", "Asks the person.", takes(message=text("What to say.")), asks=("elicitation",)),
    action("test_elicitation_sep1034_defaults", "Asks with defaults.", asks=("elicitation",)),
    action("test_elicitation_sep1330_enums", "Asks with choices.", asks=("elicitation",)),
    action("test_missing_capability", "Needs a client with a model.", asks=("sampling",)),
    action("test_streaming_elicitation", "Reports progress, then asks.", asks=("elicitation",)),
    action("test_reconnection", "Lets go of the connection, then answers."),
    action("test_trigger_tool_change", "Changes a tool of this atlas on disk."),
    action("test_trigger_prompt_change", "Changes a prompt of this atlas on disk."),
    action("test_input_required_result_elicitation", "Asks for a name.", asks=("elicitation",)),
    action("test_input_required_result_sampling", "Asks for a capital.", asks=("sampling",)),
    action("test_input_required_result_list_roots", "Asks for folders.", asks=("roots",)),
    action("test_input_required_result_request_state", "Asks for a confirmation.", asks=("elicitation",)),
    action(
        "test_input_required_result_multiple_inputs",
        "Asks for three things.",
        asks=("elicitation", "sampling", "roots"),
    ),
    action("test_input_required_result_multi_round", "Asks twice.", asks=("elicitation",)),
    action("test_input_required_result_tampered_state", "Asks for a confirmation.", asks=("elicitation",)),
    action(
        "test_input_required_result_capabilities",
        "Asks for what the client can do.",
        asks=("elicitation", "sampling"),
    ),
    action("json_schema_2020_12_tool", "Has a rich schema.", RICH_SCHEMA, publish={"parameters_schema": "exact"}),
    action(
        "test_header_mirror",
        "Its argument is mirrored in a header.",
        takes(region={"type": "string", "x-mcp-header": "Region"}),
        publish={"parameters_schema": "exact"},
    ),
    prompt("test_simple_prompt", "One message."),
    prompt(
        "test_prompt_with_arguments", "Two arguments.", takes(arg1=text("The first."), arg2=text("The second."))
    ),
    prompt(
        "test_prompt_with_embedded_resource", "With a document.", takes(resourceUri=text("URI of the document."))
    ),
    prompt("test_prompt_with_image", "With an image."),
    prompt("test_input_required_result_prompt", "Asks for context.", asks=("elicitation",)),
    resource("static_text", "A text.", "test://static-text", "text/plain"),
    resource("static_binary", "An image.", "test://static-binary", "image/png"),
    resource("watched_resource", "A text to watch.", "test://watched-resource", "text/plain"),
    resource("template_data", "A record.", "test://template/{id}/data", "application/json", takes(id=text("Which."))),
]  # fmt: skip

MANIFEST = {
    "atlas_version": "1.0",
    "atlas_id": "dev.cra.conformance",
    "version": "1.0.0",
    "name": "MCP conformance",
    "description": "What the scenarios of the official MCP conformance suite need.",
    "actions": ACTIONS,
    "policies": [
        {
            "policy_id": "what-the-suite-uses",
            "type": "allow",
            "actions": ["conformance.*"],
            "reason": "the suite calls it",
        },
    ],
}


def text_of_manifest() -> str:
    """The manifest as it stands in the file."""
    return json.dumps(MANIFEST, indent=2) + "\n"


if __name__ == "__main__":
    ATLAS.write_text(text_of_manifest())
