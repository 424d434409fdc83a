"""The official MCP conformance suite, both lines of it, against the real server over Streamable HTTP.

Every scored check passes through gate and policy, and every call is in a trace that verifies.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"cra_conformance_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("suite", ["2025-11-25", "2026-07-28", "0.1.16"])
async def test_every_scored_check_passes_and_every_call_is_in_a_trace_that_verifies(suite: str) -> None:
    report = await script("run").run(suite)
    assert report.ok, str(report)


def test_the_atlas_is_what_the_script_makes() -> None:
    made = script("make_atlas")
    assert made.ATLAS.read_text() == made.text_of_manifest()
