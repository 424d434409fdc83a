"""Python programs of other makers or other times, each in an environment of its own, installed once.

``python tests/clients/environments.py [NAME]...`` makes those, or all, and prints the Python of each. What is in one is in
``python/<name>.txt``, every file of it by its hash; ``just lock`` resolves it again.
Several processes may run this at the same time.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

HERE = Path(__file__).resolve().parent
NAMES = tuple(sorted(path.stem for path in (HERE / "python").glob("*.txt")))


def interpreter(name: str) -> Path:
    """The Python of an environment, which is made first where it is missing or out of date.

    Raises:
        RuntimeError: it can't be made; what uv said is in the message.
    """
    folder = HERE / ".environments" / name
    requirements = HERE / "python" / f"{name}.txt"
    stamp = folder / "installed"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    program = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if _text(stamp) == wanted:
        return program
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if _text(stamp) != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            _uv("venv", "--quiet", "--python", sys.executable, str(folder))
            _uv("pip", "install", "--quiet", "--python", str(program), "--require-hashes", "-r", str(requirements))
            stamp.write_text(wanted)
    return program


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def _uv(*arguments: str) -> None:
    from uv import find_uv_bin  # noqa: PLC0415 - only where something is to be installed

    done = subprocess.run([find_uv_bin(), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"uv {arguments[0]} failed ({done.returncode}):\n{done.stderr}")


if __name__ == "__main__":
    for each in sys.argv[1:] or NAMES:
        print(interpreter(each))  # noqa: T201
