"""Brings programs of Debian's archive for the tests, unpacked into a folder here: nothing is installed, and root is not needed.

``python tests/clients/debian.py`` fetches what is missing. What is fetched is what the machine's own apt sources have, and apt
accepts only what their keys have signed; no version is written down here, because an archive keeps none but its newest. Where a
program is installed, or named by ``CRA_TEST_RSYSLOGD`` or ``CRA_TEST_OPENSSL``, that one is used. Several processes may run this
at the same time.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

HERE = Path(__file__).resolve().parent
_UNPACKED = HERE / ".debian"
_PACKAGES = {
    "rsyslogd": ("rsyslog", "libestr0", "libfastjson4", "liblognorm5"),
    "openssl": ("openssl", "libssl3|libssl3t64"),
}
"""By program: packages of Debian and Ubuntu; of names between bars, the first that the archive has."""
_ELSEWHERE = os.pathsep.join(("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"))
_PATIENCE_S = 300


@dataclass(frozen=True)
class Program:
    """A program, what its environment must hold besides, and where its modules are if not where it expects them."""

    path: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    modules: Path | None = None


def program(name: str) -> Program:
    """A program: the one that is named, installed, or else unpacked.

    Raises:
        RuntimeError: there is none, and none can be brought here.
    """
    named = os.environ.get(f"CRA_TEST_{name.upper()}")
    found = named or shutil.which(name) or shutil.which(name, path=_ELSEWHERE)
    if found:
        return Program(Path(found))
    folder = _unpacked(name)
    path = next((each for each in folder.glob(f"usr/*bin/{name}")), None)
    libraries = next(iter(folder.glob("usr/lib/*-linux-gnu*")), None)
    if path is None or libraries is None:
        raise RuntimeError(f"the packages {', '.join(_PACKAGES[name])} hold no {name}")
    return Program(path, {"LD_LIBRARY_PATH": str(libraries)}, libraries / "rsyslog")


def _unpacked(name: str) -> Path:
    folder, wanted = _UNPACKED / name, " ".join(_PACKAGES[name])
    _UNPACKED.mkdir(exist_ok=True)
    with FileLock(_UNPACKED / f"{name}.lock"):
        if not _is_current(folder, wanted):
            shutil.rmtree(folder, ignore_errors=True)
            _fetch(name, folder)
            (folder / "stamp").write_text(wanted)
    return folder


def _is_current(folder: Path, wanted: str) -> bool:
    try:
        return (folder / "stamp").read_text() == wanted
    except FileNotFoundError:
        return False


def _fetch(name: str, folder: Path) -> None:
    """Download and unpack the packages of a program: by the system's lists, or by lists of our own where those don't serve."""
    if shutil.which("apt-get") is None:
        raise RuntimeError(f"install {name}, or name one in CRA_TEST_{name.upper()}: there is no apt to fetch it with")
    import pwd  # noqa: PLC0415 - not on Windows

    print(f"fetching {name} with apt", file=sys.stderr)  # noqa: T201
    for part in ("lists/partial", "cache/archives/partial", "packages"):
        (folder / part).mkdir(parents=True)
    settings = {"Dir::Cache": folder / "cache", "APT::Sandbox::User": pwd.getpwuid(os.getuid()).pw_name}
    try:
        _download(_PACKAGES[name], settings, folder / "packages")
    except RuntimeError:
        settings["Dir::State::lists"] = folder / "lists"
        _run("apt-get", *_options(settings), "-qq", "update", folder=folder)
        _download(_PACKAGES[name], settings, folder / "packages")
    for package in sorted((folder / "packages").iterdir()):
        _run("dpkg-deb", "-x", str(package), str(folder), folder=folder)
    for part in ("lists", "cache", "packages"):
        shutil.rmtree(folder / part)


def _download(packages: Sequence[str], settings: Mapping[str, object], folder: Path) -> None:
    for package in packages:
        *others, last = package.split("|")
        for name in others:
            try:
                _run("apt-get", *_options(settings), "-qq", "download", name, folder=folder)
                break
            except RuntimeError:
                continue  # this archive has it under another name
        else:
            _run("apt-get", *_options(settings), "-qq", "download", last, folder=folder)


def _options(settings: Mapping[str, object]) -> list[str]:
    return [part for setting, value in settings.items() for part in ("-o", f"{setting}={value}")]


def _run(*argv: str, folder: Path) -> None:
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, timeout=_PATIENCE_S)
    if done.returncode != 0:
        raise RuntimeError(f"{argv[0]} failed ({done.returncode}):\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    if sys.platform == "linux":
        for each in _PACKAGES:
            program(each)
