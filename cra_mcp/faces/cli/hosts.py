"""MCP hosts on this machine: where they keep their configuration, and what of it is about us.

Rule: read only. Hosts rewrite these files as they like, so nothing here is a source of truth.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import orjson


@dataclass(frozen=True, slots=True)
class Host:
    """A host: its name, its configuration file and the key that holds the servers."""

    name: str
    path: Path
    key: str = "mcpServers"


@dataclass(frozen=True, slots=True)
class Entry:
    """A server entry that starts us."""

    name: str
    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def atlases(self) -> list[str]:
        """What follows each ``--atlas``."""
        return [value for flag, value in zip(self.args, self.args[1:], strict=False) if flag == "--atlas"]

    @property
    def data_dir(self) -> str | None:
        """The data folder it is given, by flag or environment."""
        given = [value for flag, value in zip(self.args, self.args[1:], strict=False) if flag == "--data-dir"]
        return given[-1] if given else self.env.get("CRA_DATA_DIR")


def known_hosts(home: Path, environ: Mapping[str, str], platform: str = sys.platform) -> list[Host]:
    """The hosts we know, Claude Desktop first, with the file each reads on this platform."""
    if platform == "darwin":
        settings = home / "Library/Application Support"
    elif platform == "win32":
        settings = Path(environ.get("APPDATA") or home / "AppData/Roaming")
    else:
        settings = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    hosts = [Host("Claude Desktop", settings / "Claude/claude_desktop_config.json")]
    if platform == "win32":  # installed from the store, it has a file system view of its own
        packages = Path(environ.get("LOCALAPPDATA") or home / "AppData/Local") / "Packages"
        store = packages / "Claude_pzs8sxrjxfjjc/LocalCache/Roaming/Claude/claude_desktop_config.json"
        hosts.append(Host("Claude Desktop (store)", store))
    codex = Path(environ.get("CODEX_HOME") or home / ".codex")
    return [
        *hosts,
        Host("Claude Code", home / ".claude.json"),
        Host("VS Code", settings / "Code/User/mcp.json", "servers"),
        Host("Cursor", home / ".cursor/mcp.json"),
        Host("Windsurf", home / ".codeium/windsurf/mcp_config.json"),
        Host("Gemini CLI", home / ".gemini/settings.json"),
        Host("Codex", codex / "config.toml", "mcp_servers"),
    ]


def our_entries(host: Host) -> list[Entry]:
    """The entries of a host that start us.

    Raises:
        OSError: the file can't be read.
        ValueError: it is not what it should be.
    """
    data = host.path.read_bytes()
    content: object
    if host.path.suffix == ".toml":
        import tomllib  # noqa: PLC0415 - one host of many

        content = tomllib.loads(data.decode())
    else:
        content = orjson.loads(data) if data.strip() else {}
    if not isinstance(content, dict):
        raise ValueError("not an object")
    servers = cast("Mapping[str, Any]", content).get(host.key)
    if not isinstance(servers, dict):
        return []
    found = [_entry(name, value) for name, value in cast("Mapping[str, Any]", servers).items()]
    return [entry for entry in found if entry is not None and _is_ours(entry)]


def own_entry(*atlases: str) -> dict[str, Any]:
    """The entry that starts this installation: absolute paths, because a desktop app has neither a shell's PATH nor its folder."""
    script = Path(sys.executable).parent / ("cra-mcp.exe" if os.name == "nt" else "cra-mcp")
    arguments = ["serve", *(part for atlas in atlases for part in ("--atlas", atlas))]
    if script.is_file():
        return {"command": str(script), "args": arguments}
    return {"command": sys.executable, "args": ["-m", "cra_mcp", *arguments]}


def _entry(name: str, value: object) -> Entry | None:
    if not isinstance(value, dict):
        return None
    given = cast("Mapping[str, Any]", value)
    args, env = given.get("args"), given.get("env")
    return Entry(
        name,
        str(given.get("command", "")),
        tuple(str(part) for part in cast("list[Any]", args)) if isinstance(args, list) else (),
        {key: str(text) for key, text in cast("Mapping[str, Any]", env).items()} if isinstance(env, dict) else {},
    )


def _is_ours(entry: Entry) -> bool:
    words = (entry.command, *entry.args)
    return any(word == "cra_mcp" or Path(word).stem == "cra-mcp" for word in words)
