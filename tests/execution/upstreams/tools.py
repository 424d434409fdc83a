"""The actions of the contract tests: as functions, as coroutines, and as a command line (``tools.py NAME text=TEXT``)."""

import asyncio
import os
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parent.parent if "_cra_atlas_" in __name__ else Path.cwd()


def echo(text: str) -> str:
    return text


def fail(text: str = "") -> str:
    from cra_mcp.errors import ActionError  # noqa: PLC0415 - the command needs no such thing

    raise ActionError("it went wrong")


def hang(text: str = "") -> None:
    (FOLDER / "started").write_text(f"{os.getpid()}\n")
    while not (FOLDER / "release").exists():
        time.sleep(0.01)


async def async_echo(text: str) -> str:
    await asyncio.sleep(0)
    return text


async def async_fail(text: str = "") -> str:
    return fail(text)


async def async_hang(text: str = "") -> None:
    (FOLDER / "started").write_text(f"{os.getpid()}\n")
    await asyncio.Event().wait()


def broken(text: str = "") -> None:
    raise ValueError("several\nlines")


async def async_broken(text: str = "") -> None:
    raise ValueError("several\nlines")


# "break" is a word of the language, but a fine name for an action.
globals()["break"] = broken
globals()["async_break"] = async_broken


if __name__ == "__main__":
    text = sys.argv[2].removeprefix("text=") if len(sys.argv) > 2 else ""
    match sys.argv[1]:
        case "echo":
            sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape") + b"\n")
        case "fail":
            print("it went wrong")  # noqa: T201
            sys.exit(1)
        case "hang":
            hang()
