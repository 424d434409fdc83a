"""Brings a headless Chromium for the tests of the trace page.

On Linux x86-64 it is the one of the npm package ``@sparticuz/chromium`` (package.json pins it; install.py installs it): a
program with the libraries and a font it needs, so that neither root nor the system's packages are asked. Elsewhere, or where
the environment variable ``CRA_TEST_CHROMIUM`` names one, an installed Chromium or Chrome is used.
"""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
_UNPACKED = HERE / ".chromium"
_PACKAGE = "@sparticuz/chromium"
_INSTALLED = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome", "msedge")
_MACOS = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
_UNPACK = """
const [from, to] = process.argv.slice(1);
const { readFileSync, writeFileSync } = require("node:fs");
const { brotliDecompressSync } = require("node:zlib");
for (const name of ["chromium", "al2023.tar", "fonts.tar"]) {
  writeFileSync(`${to}/${name}`, brotliDecompressSync(readFileSync(`${from}/${name}.br`)));
}
"""
_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{fonts}</dir><dir>/usr/share/fonts</dir><cachedir>{cache}</cachedir></fontconfig>
"""


@dataclass(frozen=True)
class Browser:
    """A browser program, and what its environment must hold besides."""

    program: Path
    environment: dict[str, str] = field(default_factory=dict)


def chromium() -> Browser:
    """The browser, unpacked or found.

    Raises:
        RuntimeError: there is none, and none can be brought here.
    """
    named = os.environ.get("CRA_TEST_CHROMIUM")
    if named:
        return Browser(Path(named))
    if sys.platform == "linux" and platform.machine() == "x86_64":
        return _unpacked()
    found = next((path for name in _INSTALLED if (path := shutil.which(name))), None)
    if found is None and _MACOS.exists():
        found = str(_MACOS)
    if found is None:
        raise RuntimeError("install Chromium or Chrome, or name one in CRA_TEST_CHROMIUM")
    return Browser(Path(found))


def _unpacked() -> Browser:
    npm = _npm()
    npm.ready()
    source = npm.package_file(_PACKAGE, "bin")
    stamp = npm.package_file(_PACKAGE, "package.json").read_bytes()
    if not _is_current(stamp):
        with npm.lock():
            if not _is_current(stamp):
                _unpack(npm.node(), source, stamp)
    return Browser(
        _UNPACKED / "chromium",
        {"LD_LIBRARY_PATH": str(_UNPACKED / "lib"), "FONTCONFIG_FILE": str(_UNPACKED / "fonts.conf")},
    )


def _is_current(stamp: bytes) -> bool:
    try:
        return (_UNPACKED / "stamp").read_bytes() == stamp
    except FileNotFoundError:
        return False


def _unpack(node: Path, source: Path, stamp: bytes) -> None:
    shutil.rmtree(_UNPACKED, ignore_errors=True)
    _UNPACKED.mkdir()
    subprocess.run([str(node), "-e", _UNPACK, str(source), str(_UNPACKED)], check=True)
    for name in ("al2023.tar", "fonts.tar"):
        with tarfile.open(_UNPACKED / name) as archive:
            if hasattr(tarfile, "data_filter"):  # Python 3.11.4 and newer; the package is pinned
                archive.extractall(_UNPACKED, filter="data")
            else:
                archive.extractall(_UNPACKED)  # noqa: S202 - as said
        (_UNPACKED / name).unlink()
    fonts = _FONTS.format(fonts=_UNPACKED / "fonts", cache=_UNPACKED / "font-cache")
    (_UNPACKED / "fonts.conf").write_text(fonts)
    (_UNPACKED / "chromium").chmod(0o755)
    (_UNPACKED / "stamp").write_bytes(stamp)


def _npm() -> ModuleType:
    """install.py: tests are no package, so it is loaded by its place."""
    spec = importlib.util.spec_from_file_location("cra_clients_install", HERE / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    print(chromium().program)  # noqa: T201
