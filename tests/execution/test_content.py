"""Results of Python functions that are more than a JSON value."""

import base64

import pytest

from cra_mcp.atlas.model import PythonExecutor
from cra_mcp.errors import ExecutionError
from cra_mcp.execution.python_callable import PythonBackend

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n"


@pytest.fixture
async def backend():
    made = PythonBackend()
    yield made
    await made.aclose()


async def test_a_function_can_show_texts_images_sounds_and_documents(kit, backend) -> None:
    kit.python(
        "from cra_mcp import Content\n"
        f"PNG = {PNG!r}\n"
        "def tool():\n"
        "    shown = Content().text('hi').image(PNG, 'image/png').audio(PNG, 'audio/wav')\n"
        "    shown = shown.document('a://t', 'text', 'text/plain').document('a://b', PNG, 'image/png')\n"
        "    return shown.structured({'n': 1})\n"
    )
    result = await kit.call(backend, kit.action(PythonExecutor("tool:tool")))
    data = base64.b64encode(PNG).decode()
    assert result.value == {"n": 1}
    assert result.content == (
        {"type": "text", "text": "hi"},
        {"type": "image", "data": data, "mimeType": "image/png"},
        {"type": "audio", "data": data, "mimeType": "audio/wav"},
        {"type": "resource", "resource": {"uri": "a://t", "mimeType": "text/plain", "text": "text"}},
        {"type": "resource", "resource": {"uri": "a://b", "mimeType": "image/png", "blob": data}},
    )


@pytest.mark.parametrize(
    "block",
    [
        {},
        {"type": "text"},
        {"type": "text", "text": 1},
        {"type": "image", "data": "x"},
        {"type": "resource"},
        {"type": "resource", "resource": {"uri": "a://b"}},
        {"type": "video", "data": "x", "mimeType": "video/mp4"},
        {"type": "text", "text": "x", "more": object()},
    ],
)
async def test_blocks_of_another_form_are_refused(kit, backend, block) -> None:
    kit.python(
        "from cra_mcp import Content\n"
        "def tool(block, odd): return Content((({**block, 'more': object()} if odd else block),))"
    )
    odd = "more" in block
    sent = {key: value for key, value in block.items() if key != "more"}
    with pytest.raises(ExecutionError) as caught:
        await kit.call(backend, kit.action(PythonExecutor("tool:tool")), parameters={"block": sent, "odd": odd})
    assert caught.value.code == "invalid_result"
