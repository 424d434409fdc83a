"""The pinned requirements: each file installs as a whole on the day one of its packages publishes a new release.

pip takes ``package[extra]`` for a thing of its own while it resolves. Where a file pins ``package`` alone, pip 23.2, which Python
3.11 and 3.12 bring, looks for the newest release of ``package[extra]``, finds no hash for it, and refuses the file.
"""

import base64
import hashlib
import json
import re
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.clients.environments import NAMES, interpreter

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120
LOCKS = {
    "requirements.lock": None,
    "requirements-dev.lock": None,
    **{f"tests/clients/python/{name}.txt": name for name in NAMES},
}
"""Each file of pinned requirements, and the environment that is made of it; None: the one the tests run in."""


@dataclass(frozen=True)
class Pin:
    """One line of a file of pinned requirements."""

    name: str
    extras: str
    version: str


def pins(lock: Path) -> Iterator[Pin]:
    """What a file pins for this platform."""
    for line in lock.read_text().splitlines():
        found = re.match(r"([\w.-]+)(\[[^]]+\])?==(\S+)(?: ; (.+))?(?: \\)?$", line)
        if found is None:
            assert not line or line.startswith((" ", "#")), line
            continue
        name, extras, version, marker = found.groups()
        if marker is None or Marker(marker.removesuffix(" \\")).evaluate():
            yield Pin(canonicalize_name(name), extras or "", version)


def installed(environment: str | None) -> dict[str, Distribution]:
    """What an environment holds, by name."""
    if environment is None:
        found = distributions()
    else:
        (site,) = interpreter(environment).parents[1].glob("[Ll]ib/**/site-packages")
        found = distributions(path=[str(site)])
    return {canonicalize_name(each.metadata["Name"]): each for each in found}


def wheel(folder: Path, distribution: Distribution, version: str) -> Path:
    """An empty wheel that needs what a distribution needs."""
    name = canonicalize_name(distribution.metadata["Name"]).replace("-", "_")
    head = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"]
    head += [f"Requires-Dist: {each}\n" for each in distribution.requires or []]
    head += [f"Provides-Extra: {each}\n" for each in distribution.metadata.get_all("Provides-Extra") or []]
    files = {
        f"{name}-{version}.dist-info/METADATA": "".join(head).encode(),
        f"{name}-{version}.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for path, data in files.items()
    )
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, data in {**files, f"{name}-{version}.dist-info/RECORD": record.encode()}.items():
            archive.writestr(file, data)
    return path


@pytest.mark.parametrize("lock", LOCKS)
def test_a_new_release_of_anything_does_not_break_a_lock(lock: str, tmp_path: Path) -> None:
    """Resolved by the real pip 23.2 from an index in which every package has a newer release."""
    here = installed(LOCKS[lock])
    lines = []
    for pin in pins(ROOT / lock):
        distribution = here[pin.name]
        pinned = wheel(tmp_path, distribution, pin.version)
        wheel(tmp_path, distribution, "99999")
        lines.append(
            f"{pin.name}{pin.extras}=={pin.version} --hash=sha256:{hashlib.sha256(pinned.read_bytes()).hexdigest()}\n"
        )
    assert lines
    (tmp_path / "lock.txt").write_text("".join(lines))
    done = subprocess.run(
        [
            *(
                str(interpreter("pip")),
                "-m",
                "pip",
                "--isolated",
                "install",
                "--dry-run",
                "--ignore-installed",
                "--no-index",
            ),
            *(
                "--disable-pip-version-check",
                "--find-links",
                str(tmp_path),
                "--require-hashes",
                "-r",
                str(tmp_path / "lock.txt"),
            ),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    assert "99999" not in done.stdout


def test_every_file_of_pins_is_tried() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    pinning = {
        name
        for name in tracked
        if name.endswith((".txt", ".lock")) and (ROOT / name).exists() and "--hash=sha256:" in (ROOT / name).read_text()
    }
    assert pinning == set(LOCKS)


def test_npm_packages_are_pinned_by_their_hashes_and_name_no_registry() -> None:
    """Which registry they come from is the machine's business; what comes is not."""
    text = (ROOT / "tests/clients/package-lock.json").read_text()
    packages = {name: entry for name, entry in json.loads(text)["packages"].items() if name}
    assert packages
    assert [name for name, entry in packages.items() if not entry["integrity"].startswith("sha512-")] == []
    assert [name for name, entry in packages.items() if "resolved" in entry] == []
    wanted = json.loads((ROOT / "tests/clients/package.json").read_text())["dependencies"]
    assert json.loads(text)["packages"][""]["dependencies"] == wanted


def test_what_the_package_needs_is_pinned() -> None:
    """An extra of ours that a requirement names can be installed from the lock beside it."""
    names = {pin.name for pin in pins(ROOT / "requirements.lock")}
    requires = [Requirement(each) for each in installed(None)["cra-mcp"].requires or []]
    needed = {
        canonicalize_name(each.name) for each in requires if each.marker is None or each.marker.evaluate({"extra": ""})
    }
    assert needed <= names
