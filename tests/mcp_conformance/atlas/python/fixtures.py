"""What the actions of this atlas do: as the scenarios of the conformance suite describe it."""

import asyncio
import base64
import json
import time
from pathlib import Path

from cra_mcp import ActionError, BlockingCallContext, CallContext, Content
from cra_mcp.actions.context import elicitation, roots, sampling

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
WAV = base64.b64decode("UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=")
PAUSE_S = 0.05


def form(**properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties, "required": list(properties)}


NAME = form(name={"type": "string"})
CONFIRM = form(ok={"type": "boolean"})


# --- content -------------------------------------------------------------------------------------------------------


def test_simple_text(ctx: CallContext) -> str:
    return "This is a simple text response for testing."


def test_image_content(ctx: CallContext) -> Content:
    return Content().image(PNG, "image/png")


def test_audio_content(ctx: CallContext) -> Content:
    return Content().audio(WAV, "audio/wav")


def test_embedded_resource(ctx: CallContext) -> Content:
    return Content().document("test://embedded-resource", "This is an embedded resource content.", "text/plain")


def test_multiple_content_types(ctx: CallContext) -> Content:
    record = json.dumps({"test": "data", "value": 123})
    shown = Content().text("Multiple content types test:").image(PNG, "image/png")
    return shown.document("test://mixed-content-resource", record, "application/json")


def test_error_handling(ctx: CallContext) -> str:
    raise ActionError("This tool intentionally returns an error for testing")


def json_schema_2020_12_tool(ctx: CallContext, **given: object) -> str:
    return f"JSON Schema 2020-12 tool called with: {json.dumps(given)}"


def test_header_mirror(ctx: CallContext, region: str) -> str:
    return region


# --- telling -------------------------------------------------------------------------------------------------------


def test_tool_with_logging(ctx: BlockingCallContext) -> str:
    ctx.log("info", "Tool execution started")
    time.sleep(PAUSE_S)
    ctx.log("info", "Tool processing data")
    time.sleep(PAUSE_S)
    ctx.log("info", "Tool execution completed")
    return "Tool with logging executed successfully"


async def test_logging_tool(ctx: CallContext) -> str:
    await ctx.log("info", "Something happened")
    return "Logged"


def test_tool_with_progress(ctx: BlockingCallContext) -> str:
    for done in (0, 50, 100):
        ctx.progress(done, 100, f"Completed step {done} of 100")
        time.sleep(PAUSE_S)
    return "Done"


async def test_reconnection(ctx: CallContext) -> str:
    await ctx.release()
    await asyncio.sleep(PAUSE_S)
    return "Reconnection test completed successfully"


# --- asking --------------------------------------------------------------------------------------------------------


async def test_sampling(ctx: CallContext, prompt: str) -> str:
    answer = await ctx.sample(prompt, max_tokens=100)
    return f"LLM response: {answer['content']['text']}"


async def test_elicitation(ctx: CallContext, message: str) -> str:
    schema = form(
        username={"type": "string", "description": "User's response"},
        email={"type": "string", "description": "User's email address"},
    )
    return f"User response: {json.dumps(await ctx.elicit(message, schema))}"


def test_elicitation_sep1034_defaults(ctx: BlockingCallContext) -> str:
    schema = form(
        name={"type": "string", "default": "John Doe"},
        age={"type": "integer", "default": 30},
        score={"type": "number", "default": 95.5},
        status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        verified={"type": "boolean", "default": True},
    )
    return f"Elicitation completed: {json.dumps(ctx.elicit('Please review', schema))}"


def test_elicitation_sep1330_enums(ctx: BlockingCallContext) -> str:
    options = ["option1", "option2", "option3"]
    titled = [{"const": f"value{n}", "title": f"Choice {n}"} for n in (1, 2, 3)]
    schema = form(
        untitledSingle={"type": "string", "enum": options},
        titledSingle={"type": "string", "oneOf": titled},
        legacyEnum={"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
        untitledMulti={"type": "array", "items": {"type": "string", "enum": options}},
        titledMulti={"type": "array", "items": {"anyOf": titled}},
    )
    return f"Elicitation completed: {json.dumps(ctx.elicit('Please choose', schema))}"


async def test_missing_capability(ctx: CallContext) -> str:
    return str(await ctx.sample("Hello", max_tokens=5))


async def test_streaming_elicitation(ctx: CallContext) -> str:
    await ctx.progress(1, 2, "about to ask")
    return str(await ctx.elicit("What is your name?", NAME))


async def test_input_required_result_elicitation(ctx: CallContext) -> str:
    answer = await ctx.elicit("What is your name?", NAME, key="user_name")
    return f"Hello, {answer.get('content', {}).get('name')}!"


def test_input_required_result_sampling(ctx: BlockingCallContext) -> str:
    return str(ctx.sample("What is the capital of France?", max_tokens=100, key="capital_question")["content"])


async def test_input_required_result_list_roots(ctx: CallContext) -> str:
    return str(await ctx.roots(key="client_roots"))


async def test_input_required_result_request_state(ctx: CallContext) -> str:
    await ctx.elicit("Please confirm", CONFIRM, key="confirm")
    return "state-ok"


async def test_input_required_result_multiple_inputs(ctx: CallContext) -> str:
    answers = await ctx.ask(
        {
            "user_name": elicitation("What is your name?", NAME),
            "greeting": sampling("Generate a greeting", max_tokens=50),
            "client_roots": roots(),
        }
    )
    return f"Answered: {', '.join(sorted(answers))}"


async def test_input_required_result_multi_round(ctx: CallContext) -> str:
    name = await ctx.elicit("Step 1: What is your name?", NAME, key="step1")
    color = await ctx.elicit("Step 2: What is your favorite color?", form(color={"type": "string"}), key="step2")
    return f"{name['content']['name']} likes {color['content']['color']}"


async def test_input_required_result_tampered_state(ctx: CallContext) -> str:
    await ctx.elicit("Please confirm", CONFIRM, key="confirm")
    return "confirmed"


async def test_input_required_result_capabilities(ctx: CallContext) -> str:
    wanted = {"elicitation": elicitation("What is your name?", NAME), "sampling": sampling("Hello", max_tokens=5)}
    answers = await ctx.ask({key: question for key, question in wanted.items() if ctx.can(question.capability)})
    return f"Answered: {', '.join(sorted(answers))}"


# --- prompts -------------------------------------------------------------------------------------------------------


def test_simple_prompt(ctx: CallContext) -> str:
    return "This is a simple prompt for testing."


def test_prompt_with_arguments(ctx: CallContext, arg1: str, arg2: str) -> str:
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


def test_prompt_with_embedded_resource(ctx: CallContext, resourceUri: str) -> Content:  # noqa: N803 - the suite's name
    shown = Content().document(resourceUri, "Embedded resource content for testing.", "text/plain")
    return shown.text("Please process the embedded resource above.")


def test_prompt_with_image(ctx: CallContext) -> Content:
    return Content().image(PNG, "image/png").text("Please analyze the image above.")


async def test_input_required_result_prompt(ctx: CallContext) -> str:
    schema = form(context={"type": "string"})
    answer = await ctx.elicit("What context should the prompt use?", schema, key="user_context")
    return f"Use this context: {answer['content']['context']}"


# --- resources -----------------------------------------------------------------------------------------------------


def static_text(ctx: CallContext) -> str:
    return "This is the content of the static text resource."


def static_binary(ctx: CallContext) -> Content:
    return Content().image(PNG, "image/png")


def watched_resource(ctx: CallContext) -> str:
    return "Watched resource content"


def template_data(ctx: CallContext, id: str) -> str:  # noqa: A002 - the suite's name
    return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


# --- changes: an edit of this atlas on disk, as its author would make it --------------------------------------------


def test_trigger_tool_change(ctx: CallContext) -> str:
    return _edit("tool")


def test_trigger_prompt_change(ctx: CallContext) -> str:
    return _edit("prompt")


def _edit(kind: str) -> str:
    path = Path(__file__).parent.parent / "actions" / f"changing_{kind}.json"
    there = path.exists()
    if there:
        path.unlink()
    else:
        changing = {
            "action_id": f"conformance.changing_{kind}",
            "name": "Changing",
            "description": "Comes and goes.",
            "parameters_schema": {"type": "object"},
            "executor": {"type": "python", "callable": "fixtures:test_simple_text", "context": "ctx"},
            "publish": {"as": kind},
        }
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(changing))
    return f"The {kind} has {'gone' if there else 'come'}."
