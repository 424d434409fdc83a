"""``demo``: the main job, done in front of you by the real server and a real MCP client.

Nothing is staged: the server runs as a process of its own, the client is the SDK's, approval goes through the same record that
``cra-mcp approve`` writes, and each step is checked. It needs no network.
"""

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from cra_mcp.errors import CRAError
from cra_mcp.faces.cli.options import config_of
from cra_mcp.faces.cli.output import NO, OK, complain, emit, emit_json, paint
from cra_mcp.faces.cli.shipped import data_folder
from cra_mcp.faces.cli.traces import print_trace

if TYPE_CHECKING:
    import mcp_types as t
    from mcp import Client

_RECEIPT = "dev.cra/receipt"


@dataclass(slots=True)
class _Story:
    """What the demo tells and has checked."""

    quiet: bool
    steps: list[dict[str, object]] = field(default_factory=list[dict[str, object]])

    def tell(self, text: str = "") -> None:
        if not self.quiet:
            emit(text)

    def chapter(self, title: str) -> None:
        self.tell()
        self.tell(paint(title, "bold"))

    def check(self, what: str, ok: bool, shown: str = "") -> None:
        self.steps.append({"step": what, "ok": ok})
        mark = paint("✓", "green") if ok else paint("✗ NOT AS EXPECTED:", "red")
        self.tell(f"  {mark} {what}")
        for line in shown.splitlines():
            self.tell(f"      {paint(line, 'dim')}")

    @property
    def ok(self) -> bool:
        return all(step["ok"] for step in self.steps)


def demo(
    folder: Annotated[
        Path | None,
        typer.Option("--dir", help="Keep database, traces and approvals here. Default: a temporary folder."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a report as JSON instead of the story.")] = False,
) -> None:
    """Watch a governed agent at work: allowed, denied, approved, recorded, verified. Takes a few seconds; needs no network.

    Examples:

      cra-mcp demo

      cra-mcp demo --dir ./demo
    """
    import anyio  # noqa: PLC0415 - not for --help

    work = Path(folder) if folder is not None else Path(tempfile.mkdtemp(prefix="cra-demo-"))
    story = _Story(quiet=as_json)
    try:
        work.mkdir(parents=True, exist_ok=True)
        session_id = anyio.run(_play, story, work)
        _inspect(story, work, session_id)
    except (CRAError, OSError) as error:
        complain(f"the demo could not finish: {error}", "run `cra-mcp doctor`")
        raise typer.Exit(NO) from None
    finally:
        if folder is None:
            shutil.rmtree(work, ignore_errors=True)
    if as_json:
        emit_json({"ok": story.ok, "steps": story.steps})
    else:
        _close(story)
    raise typer.Exit(OK if story.ok else NO)


async def _play(story: _Story, work: Path) -> str:
    """Be the host: start the server, call its tools. Returns the id of the session."""
    from mcp import Client, StdioServerParameters  # noqa: PLC0415 - takes a second

    environment = {name: value for name, value in os.environ.items() if not name.startswith("CRA_")} | {
        "CRA_SUPPORT_DB": str(work / "support.sqlite3")
    }
    atlas = data_folder("atlases") / "customer-support"
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "cra_mcp", "serve", "--atlas", str(atlas), "--data-dir", str(work), "--agent-id", "demo-agent"],
        env=environment,
    )
    story.chapter("1. A host starts the server, as Claude Desktop would, and asks for the tools")
    async with Client(server, cache=None) as client:
        tools = await client.list_tools()
        names = [tool.name for tool in tools.tools]
        story.check("the agent sees what policy allows", "ticket_search" in names, ", ".join(names))
        story.check("and not what it denies", not {"ticket_delete", "customer_delete", "customer_export"} & set(names))

        story.chapter("2. An allowed call runs")
        found = await client.call_tool("ticket_search", {"query": "refund"})
        session_id = _receipt(found).get("session_id", "")
        story.check("ticket_search answers from a real SQLite database", not found.is_error, _text(found)[:300])

        story.chapter("3. A denied call does not, and says why")
        denied = await client.call_tool("ticket_delete", {"ticket_id": "T-2001"})
        story.check("ticket_delete is refused by name of the policy", "deny-delete" in _text(denied), _text(denied))

        await _refund(story, client, work)
    return str(session_id)


async def _refund(story: _Story, client: "Client", work: Path) -> None:
    """The part with a person in it."""
    from cra_mcp.compose import open_ledger  # noqa: PLC0415 - not for --help

    story.chapter("4. A refund needs a person")
    wish = {"order_id": "O-3001", "amount_cents": 1250, "reason": "Arrived with a cracked lid, see T-2001"}
    asked = await client.call_tool("refund_create", wish)
    approval_id = str(_receipt(asked).get("details", {}).get("approval_id", ""))
    story.check(
        "refund_create waits, and names the command that lets it go ahead",
        f"cra-mcp approve {approval_id}" in _text(asked),
        _text(asked),
    )
    ledger = open_ledger(config_of(data_dir=work, trace_dir=work / "traces"))
    ledger.settle(approval_id, granted=True, by="you", channel="cli")
    ledger.close()
    done = await client.call_tool("refund_create", wish)
    story.check("approved in another terminal, the same call runs", not done.is_error, _text(done))
    again = await client.call_tool("refund_create", wish)
    other = str(_receipt(again).get("details", {}).get("approval_id", ""))
    story.check("once: the next one is asked for anew", again.is_error is True and bool(other) and other != approval_id)
    await client.call_tool("cra_end_session", {"summary": "demo"})


def _inspect(story: _Story, work: Path, session_id: str) -> None:
    """Read the trace as an auditor would."""
    from cra_mcp.trace.event import split_lines, verify  # noqa: PLC0415 - not for --help

    story.chapter("5. The trace has all of it, hash-chained")
    path = work / "traces" / f"{session_id}.trace.jsonl"
    data = path.read_bytes()
    lines, tail = split_lines(data)
    if not story.quiet:
        print_trace(lines)
    check = verify(lines, session_id=session_id, tail=tail)
    head = check.head.event_hash if check.head is not None else ""
    story.check(f"the chain of {check.events} events holds", check.ok, f"head {head}")

    story.chapter("6. Somebody edits the trace")
    target = next(number for number, line in enumerate(lines) if b'"event_type":"action.denied"' in line)
    forged = [*lines[:target], lines[target].replace(b"deny-delete", b"allow-admin"), *lines[target + 1 :]]
    caught = verify(forged, session_id=session_id)
    story.check(
        f"the edit of event {target} is caught there",
        not caught.ok and caught.bad_index == target,
        f"{caught.code}: {caught.message}",
    )


def _close(story: _Story) -> None:
    command = Path(sys.executable).parent / ("cra-mcp.exe" if sys.platform == "win32" else "cra-mcp")
    entry: dict[str, Any] = {
        "mcpServers": {"cra": {"command": str(command), "args": ["serve", "--atlas", "customer-support"]}}
    }
    story.chapter("Yours: put this into claude_desktop_config.json and restart Claude Desktop")
    story.tell(orjson.dumps(entry, option=orjson.OPT_INDENT_2).decode())
    story.tell()
    story.tell("Then: cra-mcp trace show latest | cra-mcp trace verify --all | cra-mcp pending")
    if not story.ok:
        complain("not everything was as expected", "run `cra-mcp doctor`")


def _text(result: "t.CallToolResult") -> str:
    return "\n".join(str(getattr(block, "text", "")) for block in result.content)


def _receipt(result: "t.CallToolResult") -> dict[str, Any]:
    meta: dict[str, Any] = dict(result.meta or {})
    return meta.get(_RECEIPT, {})
