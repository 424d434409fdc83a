"""``doctor``: whether this machine has what the runtime needs, and where the hosts keep their configuration."""

import os
import platform
import shutil
import sqlite3
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, cast

import orjson
import typer

import cra_mcp
from cra_mcp.faces.cli.options import AsJson, DataDir, TraceDir, config_of, reporting
from cra_mcp.faces.cli.output import NO, OK, emit_json, table

State = Literal["ok", "note", "problem"]

_PACKAGES = ("mcp", "pydantic", "jsonschema-rs", "anyio", "orjson", "rfc8785", "uuid-utils", "typer")
_LEAST_FREE = 100 * 1_048_576
_COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    name: str
    state: State
    detail: str


def doctor(data_dir: DataDir = None, trace_dir: TraceDir = None, as_json: AsJson = False) -> None:
    """Look at this machine: versions, folders, disk, programs, host configurations. Exit code 1 on a problem.

    Examples:

      cra-mcp doctor

      cra-mcp doctor --json
    """
    with reporting():
        config = config_of(data_dir=data_dir, trace_dir=trace_dir)
        findings = [
            *_versions(),
            _folder("data folder", config.data_path),
            _folder("trace folder", config.trace_path),
            _disk(config.trace_path),
            *_programs(),
            *_hosts(),
        ]
    healthy = all(finding.state != "problem" for finding in findings)
    if as_json:
        emit_json(
            {"ok": healthy, "findings": [{"name": f.name, "state": f.state, "detail": f.detail} for f in findings]}
        )
    else:
        table(("STATE", "WHAT", "DETAIL"), [(f.state, f.name, f.detail) for f in findings], colours=_COLOURS)
    raise typer.Exit(OK if healthy else NO)


def _versions() -> list[Finding]:
    found = [
        Finding("cra-mcp", "ok", cra_mcp.__version__),
        Finding("python", "ok", f"{platform.python_version()} ({sys.executable})"),
        Finding("system", "ok", platform.platform()),
    ]
    for package in _PACKAGES:
        try:
            found.append(Finding(package, "ok", version(package)))
        except PackageNotFoundError:
            found.append(Finding(package, "problem", "not installed; install cra-mcp again"))
    fixed = sqlite3.sqlite_version_info >= (3, 51, 3)
    note = "" if fixed else "; its WAL mode has a known bug with several writers, which is not used here"
    found.append(Finding("sqlite", "ok", f"{sqlite3.sqlite_version}{note}"))
    return found


def _folder(name: str, path: Path) -> Finding:
    """Whether files can be made there; a folder that is not there yet counts by its nearest parent."""
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        return Finding(name, "problem", f"{path}: {error.strerror}; make it writable or set --data-dir")
    return Finding(name, "ok", f"{path}{'' if place == path else ' (made when first used)'}")


def _disk(path: Path) -> Finding:
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    state: State = "ok" if free >= _LEAST_FREE else "problem"
    return Finding("free disk", state, f"{free // 1_048_576} MiB")


def _programs() -> list[Finding]:
    needed = {"git": "the devops atlas", "npx": "the filesystem atlas", "node": "the filesystem atlas"}
    return [
        Finding(name, "ok", found)
        if (found := shutil.which(name))
        else Finding(name, "note", f"not found; only {use} needs it")
        for name, use in needed.items()
    ]


def _hosts() -> list[Finding]:
    home = Path.home()
    if sys.platform == "darwin":
        desktop = home / "Library/Application Support/Claude/claude_desktop_config.json"
        code = home / "Library/Application Support/Code/User/mcp.json"
    elif sys.platform == "win32":
        roaming = Path(os.environ.get("APPDATA", home / "AppData/Roaming"))
        desktop, code = roaming / "Claude/claude_desktop_config.json", roaming / "Code/User/mcp.json"
    else:
        settings = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
        desktop, code = settings / "Claude/claude_desktop_config.json", settings / "Code/User/mcp.json"
    return [
        _host("Claude Desktop", desktop, "mcpServers"),
        _host("Claude Code", home / ".claude.json", "mcpServers"),
        _host("VS Code", code, "servers"),
    ]


def _host(name: str, path: Path, key: str) -> Finding:
    try:
        content: object = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return Finding(name, "note", f"no configuration at {path}")
    except (OSError, ValueError) as error:
        return Finding(name, "note", f"{path} can't be read ({type(error).__name__})")
    servers = cast("dict[str, Any]", content).get(key) if isinstance(content, dict) else None
    entries = cast("dict[str, Any]", servers) if isinstance(servers, dict) else {}
    ours = [entry for entry, value in entries.items() if "cra-mcp" in orjson.dumps(value).decode()]
    if ours:
        return Finding(name, "ok", f"{path}: {', '.join(ours)}")
    return Finding(name, "note", f"{path} has no cra entry")
