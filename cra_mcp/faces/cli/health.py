"""What ``doctor`` looks at."""

import os
import platform
import shutil
import sqlite3
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import cra_mcp
from cra_mcp.errors import SettingsError
from cra_mcp.faces.cli.hosts import Entry, Host, known_hosts, our_entries
from cra_mcp.faces.cli.shipped import atlas_path
from cra_mcp.folders import OTHERS_WRITE
from cra_mcp.settings import RuntimeConfig

State = Literal["ok", "note", "problem"]

_PACKAGES = (
    "anyio",
    "jsonschema",
    "jsonschema-rs",
    "mcp",
    "orjson",
    "platformdirs",
    "pydantic",
    "rfc8785",
    "structlog",
    "typer",
    "uuid-utils",
)
_PROGRAMS = {"git": "the devops atlas", "node": "the filesystem atlas", "npx": "the filesystem atlas"}
_OTHERS_READ = 0o055
_LEAST_FREE = 100 * 1_048_576
_WAL_FIXED = (3, 51, 3)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. A ``note`` is worth knowing and stops nothing."""

    name: str
    state: State
    detail: str


def examine(config: RuntimeConfig) -> list[Finding]:
    """Look at everything. Changes nothing, but for a file that is made and removed in each folder."""
    return [
        *_versions(),
        _folder("data folder", config.data_path),
        _folder("trace folder", config.trace_path),
        *_private(config),
        _disk(config.trace_path),
        *_programs(),
        *(finding for host in known_hosts(Path.home(), os.environ) for finding in _host(host, config)),
    ]


def _versions() -> Iterator[Finding]:
    yield Finding("cra-mcp", "ok", cra_mcp.__version__)
    yield Finding("python", "ok", f"{platform.python_version()} ({sys.executable})")
    yield Finding("system", "ok", platform.platform())
    for package in _PACKAGES:
        try:
            yield Finding(package, "ok", version(package))
        except PackageNotFoundError:
            yield Finding(package, "problem", "not installed; install cra-mcp again")
    fixed = sqlite3.sqlite_version_info >= _WAL_FIXED
    note = (
        "" if fixed else "; before 3.51.3 its WAL mode can corrupt a database with several writers, so it is not used"
    )
    yield Finding("sqlite", "ok", sqlite3.sqlite_version + note)


def _folder(name: str, path: Path) -> Finding:
    """Whether files can be made there; a folder that is not there yet counts by its nearest parent."""
    place = _nearest(path)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        return Finding(name, "problem", f"{path}: {error.strerror}; make it writable, or give another")
    return Finding(name, "ok", f"{path}{'' if place == path else ' (made when first used)'}")


def _private(config: RuntimeConfig) -> Iterator[Finding]:
    """Folders and files that others can write to or read; nothing of those that are as they should be."""
    from cra_mcp.compose import database_of  # noqa: PLC0415 - only here

    database = database_of(config)
    folders = [config.data_path, config.trace_path, config.trace_path / ".atlases", config.trace_path / ".locks"]
    folders += [config.data_path / "exports", *([database.parent] if database is not None else [])]
    files = [config.data_path / name for name in ("state.sqlite3", "checkpoint.key", "redaction.key", "freeze")]
    files += [config.trace_path / "index.sqlite3", *([database] if database is not None else [])]
    for path in dict.fromkeys([*folders, *files]):
        try:
            mode = path.stat().st_mode
        except OSError:
            continue
        advice = f"{path}; chmod {'700' if stat.S_ISDIR(mode) else '600'} {path}"
        if mode & OTHERS_WRITE and os.name != "nt":
            yield Finding("private", "problem", f"others can write to {advice}")
        elif mode & _OTHERS_READ and os.name != "nt":
            yield Finding("private", "problem" if path in files else "note", f"others can read {advice}")


def _disk(path: Path) -> Finding:
    try:
        free = shutil.disk_usage(_nearest(path)).free
    except OSError as error:
        return Finding("free disk", "problem", f"{path}: {error.strerror}")
    mebibytes = f"{free // 1_048_576} MiB"
    if free < _LEAST_FREE:
        return Finding("free disk", "problem", f"{mebibytes}; calls are refused when events can't be stored")
    return Finding("free disk", "ok", mebibytes)


def _nearest(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _programs() -> Iterator[Finding]:
    for name, use in _PROGRAMS.items():
        found = shutil.which(name)
        if found:
            yield Finding(name, "ok", found)
        else:
            yield Finding(name, "note", f"not found; only {use} needs it")


def _host(host: Host, config: RuntimeConfig) -> Iterator[Finding]:
    try:
        entries = our_entries(host)
    except FileNotFoundError:
        yield Finding(host.name, "note", f"no configuration at {host.path}")
        return
    except (OSError, ValueError) as error:
        yield Finding(host.name, "note", f"{host.path} can't be read ({type(error).__name__})")
        return
    if not entries:
        yield Finding(host.name, "note", f"{host.path} has no cra entry; `cra-mcp demo` prints one")
    for entry in entries:
        problems = list(_entry_problems(entry))
        name = f"{host.name}: {entry.name}"
        if problems:
            yield Finding(name, "problem", f"{host.path}: {'; '.join(problems)}")
        else:
            yield Finding(name, "ok", f"{host.path}{_elsewhere(entry, config)}")


def _entry_problems(entry: Entry) -> Iterator[str]:
    """Why a host could not start us: it has neither the PATH nor the folder of a shell."""
    if not Path(entry.command).is_absolute():
        yield f"command {entry.command!r} is not an absolute path, and a desktop app has no PATH of a shell"
    elif not Path(entry.command).is_file():
        yield f"command {entry.command!r} does not exist"
    for atlas in entry.atlases:
        try:
            path = atlas_path(atlas)
        except SettingsError:
            yield f"there is no atlas at {atlas}"
        else:
            if not path.is_absolute():
                yield f"atlas {atlas} is not an absolute path"


def _elsewhere(entry: Entry, config: RuntimeConfig) -> str:
    """A reminder where the server's approvals and traces are, if not where this command looked."""
    if entry.data_dir is None or Path(entry.data_dir).expanduser() == config.data_path:
        return ""
    return f" (its data folder is {entry.data_dir}: give --data-dir to read its traces and approve its calls)"
