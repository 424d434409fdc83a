"""Asks the validators of the TypeScript SDKs, in one Node process, what they make of schemas and patterns."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.clients import install

SCRIPT = Path(__file__).with_name("judge.mjs")


class Judge:
    """One process; use it as a context manager."""

    def __enter__(self) -> "Judge":
        install.ready()
        command = [str(install.node()), str(SCRIPT), str(install.MODULES)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def schema(self, schema: object, instances: Sequence[object]) -> dict[str, list[bool]]:
        """Which instances each validator takes."""
        return self._asked({"schema": schema, "instances": instances})

    def pattern(self, pattern: str, strings: Sequence[str]) -> list[bool]:
        """Which strings ``new RegExp(pattern, "u")`` finds a match in."""
        return self._asked({"pattern": pattern, "strings": strings})["matches"]

    def _asked(self, question: dict[str, object]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, (question, answer)
        return answer
