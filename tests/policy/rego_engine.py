"""Rego's engine as a program of its own: a line of JSON in, a line of JSON out, until its input ends.

Rule: it is not imported beside the CEL library. Both bring libraries of C++ that name the same things, and one process that
loads both writes over its own memory.
"""

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path


class RegoEngine:
    """Asks the program. ``process`` runs this file."""

    def __init__(self, process):
        self._process = process
        self._loaded = ""

    def query(self, module, asked):
        """The value of ``data.cra`` for an input."""
        line = {"input": asked} if module == self._loaded else {"module": module, "input": asked}
        self._loaded = module
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())["expressions"][0]


@contextmanager
def running_rego_engine():
    """The program, for as long as it is needed."""
    command = [sys.executable, str(Path(__file__))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as process:
        yield RegoEngine(process)


def _serve():
    import regopy  # noqa: PLC0415 - here and nowhere else

    engine = regopy.Interpreter()
    for line in sys.stdin:
        asked = json.loads(line)
        if "module" in asked:
            engine = regopy.Interpreter()
            engine.add_module("cra", asked["module"])
        engine.set_input(asked["input"])
        sys.stdout.write(json.dumps(json.loads(str(engine.query("data.cra")))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
