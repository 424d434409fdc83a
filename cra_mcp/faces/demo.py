"""``demo``: the main job, done in front of you by the real server and a real MCP client.

Rule: nothing is staged. The server is a process of its own, the client is the SDK's, approval is given by ``cra-mcp approve``
in another process, and each step is checked. It needs no network.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread
import orjson

from cra_mcp.faces.cli.events import COLOURS, HEAD, rows
from cra_mcp.faces.cli.exits import NO, OK
from cra_mcp.faces.cli.hosts import known_hosts, own_entry
from cra_mcp.faces.cli.output import complain, emit, emit_json, flush, paint, printable, table
from cra_mcp.faces.cli.verifying import verify_file
from cra_mcp.words import count_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import mcp_types as t
    from mcp import Client

    from cra_mcp.trace.event import Verification

_ATLAS = "customer-support"
_AGENT = "demo-agent"
_RECEIPT = "dev.cra/receipt"
_TIME_LIMIT_S = 60.0
_SHOWN_LOG_LINES = 5
_REFUND = {"order_id": "O-3001", "amount_cents": 1250, "reason": "One part arrived broken"}


@dataclass(slots=True)
class _Story:
    """What is told, and what was checked on the way."""

    quiet: bool
    steps: list[dict[str, object]] = field(default_factory=list[dict[str, object]])

    def tell(self, text: str = "") -> None:
        """Say a line of the story at once, however long the next takes."""
        if not self.quiet:
            emit(text)
            flush()

    def chapter(self, title: str) -> None:
        """Begin a part of it."""
        self.tell()
        self.tell(paint(title, "bold"))

    def check(self, what: str, ok: bool, shown: str = "") -> None:
        """Note a step and whether it was as expected, with what was seen."""
        self.steps.append({"step": what, "ok": ok})
        mark = paint("✓", "green") if ok else paint("✗ NOT AS EXPECTED:", "red")
        self.tell(f"  {mark} {what}")
        for line in shown.split("\n") if shown else ():
            self.tell(f"      {paint(printable(line), 'dim')}")

    @property
    def ok(self) -> bool:
        """Whether all of it was as expected."""
        return all(step["ok"] for step in self.steps)


def play(folder: Path | None, *, as_json: bool) -> int:
    """Play the demo; returns the exit code.

    Args:
        folder: where to keep what it makes; None means nowhere.
        as_json: report instead of telling.
    """
    work = folder if folder is not None else Path(tempfile.mkdtemp(prefix="cra-demo-"))
    started = time.monotonic()
    story = _Story(quiet=as_json)
    try:
        work.mkdir(parents=True, exist_ok=True)
        session_id = anyio.run(_act, story, work)
        check = _inspect(story, work, session_id)
        story.tell(f"\nAll of that took {time.monotonic() - started:.1f} s.")
    except Exception as error:  # noqa: BLE001 - whatever failed, a newcomer gets a sentence and the server's last words
        complain(f"the demo could not finish: {_words_of(error)}", "run `cra-mcp doctor`")
        for line in _last_words(work):
            complain(f"server: {line}")
        return NO
    finally:
        if folder is None:
            shutil.rmtree(work, ignore_errors=True)
    if as_json:
        head = check.head.event_hash if check.head is not None else None
        config = {"mcpServers": {"cra": own_entry(_ATLAS)}}
        emit_json({"ok": story.ok, "steps": story.steps, "session_id": session_id, "head": head, "config": config})
    else:
        _close(story, folder)
    return OK if story.ok else NO


async def _act(story: _Story, work: Path) -> str:
    """Be the host: start the server and call its tools. Returns the id of the session."""
    story.chapter("1. A host starts the server, as Claude Desktop would, and asks for its tools")
    from mcp import Client, StdioServerParameters, stdio_client  # noqa: PLC0415 - takes a second, so after the title

    server = StdioServerParameters(command=sys.executable, args=_command(work), env=_environment(work))
    with anyio.fail_after(_TIME_LIMIT_S), _log_of(work).open("w", encoding="utf-8") as log:
        async with Client(stdio_client(server, errlog=log), cache=None) as client:
            tools = await client.list_tools()
            names = {tool.name for tool in tools.tools}
            hidden = {"ticket_delete", "customer_delete", "customer_export"}
            story.check("the agent sees what policy allows", "ticket_search" in names, ", ".join(sorted(names)))
            story.check("and not what it denies", not names & hidden)
            session_id = await _work(story, client)
            await _refund(story, client, work)
            await client.call_tool("cra_end_session", {"summary": "Looked at open tickets and gave a refund."})
    return session_id


async def _work(story: _Story, client: "Client") -> str:
    """What needs nobody: an allowed call, and a denied one."""
    story.chapter("2. An allowed call runs")
    found = await client.call_tool("ticket_search", {"status": "open", "limit": 2})
    ok = not found.is_error and '"ticket_id"' in _text(found)
    story.check("ticket_search answers from a real SQLite database", ok, _text(found))

    story.chapter("3. A denied call does not, and the agent is told why")
    denied = await client.call_tool("ticket_delete", {"ticket_id": "T-2001"})
    refused = denied.is_error is True and "deny-delete" in _text(denied)
    story.check("ticket_delete is refused by policy deny-delete", refused, _text(denied))
    return str(_receipt(found).get("session_id", ""))


async def _refund(story: _Story, client: "Client", work: Path) -> None:
    """The part with a person in it."""
    story.chapter("4. A refund needs a person")
    asked = await client.call_tool("refund_create", _REFUND)
    approval_id = _approval_id(asked)
    waits = asked.is_error is True and f"cra-mcp approve {approval_id}" in _text(asked)
    story.check("refund_create waits, and names the command that lets it go ahead", waits, _text(asked))

    approve = ["-m", "cra_mcp", "approve", approval_id, "--yes", "--data-dir", str(work)]
    given = await anyio.to_thread.run_sync(
        lambda: subprocess.run(  # noqa: S603 - this program itself
            [sys.executable, *approve],
            env=_environment(work),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    )
    story.check("the person runs it in another process", given.returncode == OK, given.stderr.strip())
    done = await client.call_tool("refund_create", _REFUND)
    story.check("the same call now runs", not done.is_error and "R-1" in _text(done), _text(done))
    again = await client.call_tool("refund_create", _REFUND)
    anew = again.is_error is True and _approval_id(again) not in {"", approval_id}
    story.check("once: the next one waits again", anew)


def _inspect(story: _Story, work: Path, session_id: str) -> "Verification":
    """Read the trace as an auditor would. Returns what verification found."""
    story.chapter("5. The trace has all of it, linked by hashes")
    path = work / "traces" / f"{session_id}.trace.jsonl"
    lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    if not story.quiet:
        table(HEAD, rows(lines), colours=COLOURS)
    check = verify_file(path)
    head = check.head.event_hash if check.head is not None else ""
    story.check(f"the chain of {count_of(check.events, 'event')} holds", check.ok, f"head {head}")

    story.chapter("6. Somebody edits a copy of it")
    target = next(number for number, line in enumerate(lines) if b'"event_type":"action.denied"' in line)
    forged = [*lines[:target], lines[target].replace(b"deny-delete", b"allow-admin"), *lines[target + 1 :]]
    copy = work / "tampered" / path.name
    copy.parent.mkdir(exist_ok=True)
    copy.write_bytes(b"".join(line + b"\n" for line in forged))
    caught = verify_file(copy)
    story.check(
        f"the edit of event {target} is caught, at event {target}",
        not caught.ok and caught.bad_index == target and caught.code == "hash_mismatch",
        f"{caught.code}: {caught.message}",
    )
    return check


def _close(story: _Story, folder: Path | None) -> None:
    desktop = known_hosts(Path.home(), os.environ)[0]
    entry = {"mcpServers": {"cra": own_entry(_ATLAS)}}
    story.chapter(f"Now yours: put this into {desktop.path} and restart {desktop.name}")
    story.tell(orjson.dumps(entry, option=orjson.OPT_INDENT_2).decode())
    story.tell()
    if folder is not None:
        where = f"--data-dir {folder}"
        story.tell(
            f"This demo's own: cra-mcp trace show {where} | cra-mcp trace verify {where} --all | cra-mcp pending {where}"
        )
    story.tell("Once it has worked: cra-mcp trace show | cra-mcp trace verify --all | cra-mcp pending")
    story.tell("More: cra-mcp atlas show customer-support | cra-mcp doctor | cra-mcp --help")
    if not story.ok:
        complain("not everything was as expected", "run `cra-mcp doctor`")


def _command(work: Path) -> list[str]:
    return ["-m", "cra_mcp", "serve", "--atlas", _ATLAS, "--data-dir", str(work), "--agent-id", _AGENT]


def _environment(work: Path) -> dict[str, str]:
    """This process's environment without settings of ours: the demo is the same on every machine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CRA_")}
    return {**kept, "CRA_SUPPORT_DB": str(work / "support.sqlite3")}


def _log_of(work: Path) -> Path:
    return work / "server.log"


def _last_words(work: Path) -> list[str]:
    try:
        return (
            _log_of(work)
            .read_text(encoding="utf-8", errors="replace")
            .removesuffix("\n")
            .split("\n")[-_SHOWN_LOG_LINES:]
        )
    except OSError:
        return []


def _words_of(error: BaseException) -> str:
    """What went wrong, without the wrapping that concurrent tasks give it."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _text(result: "t.CallToolResult") -> str:
    return "\n".join(str(getattr(block, "text", "")) for block in result.content)


def _receipt(result: "t.CallToolResult") -> "Mapping[str, Any]":
    meta: Mapping[str, Any] = result.meta or {}
    return meta.get(_RECEIPT, {})


def _approval_id(result: "t.CallToolResult") -> str:
    return str(_receipt(result).get("details", {}).get("approval_id", ""))
