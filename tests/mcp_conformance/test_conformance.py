"""The official MCP conformance suite, both lines of it, against the real server over Streamable HTTP.

Every scored check passes through gate and policy, and every call is in a trace that verifies.
"""

import pytest

from tests.mcp_conformance import make_atlas, run

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("suite", ["2025-11-25", "2026-07-28", "0.1.16"])
async def test_every_scored_check_passes_and_every_call_is_in_a_trace_that_verifies(suite: str) -> None:
    report = await run.run(suite)
    assert report.ok, str(report)


def test_the_atlas_is_what_the_script_makes() -> None:
    assert make_atlas.ATLAS.read_text() == make_atlas.text_of_manifest()
