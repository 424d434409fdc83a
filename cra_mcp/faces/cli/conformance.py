"""``conformance``: the vectors under ``specs/conformance`` against this implementation."""

import importlib
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import orjson
import typer

import cra_mcp
from cra_mcp.errors import SettingsError
from cra_mcp.faces.cli.options import AsJson, reporting
from cra_mcp.faces.cli.output import NO, OK, complain, emit, emit_json, paint, say
from cra_mcp.faces.cli.shipped import data_folder

Runner = Callable[[Mapping[str, Any]], object]

_RUNNERS = {
    "policy": "conformance_policy",
    "hash-chain": "conformance_chain",
    "canonical": "conformance_chain",
    "atlas": "conformance_schema",
    "resolution": "conformance_carp",
    "golden": "conformance_carp",
}


def conformance(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of vectors. Default: those that come with the package.")
    ] = None,
    group: Annotated[list[str] | None, typer.Option(help="Only this group (a folder name). Can be repeated.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run conformance vectors and report each result. Exit code 1 if one fails, or if there are none.

    Examples:

      cra-mcp conformance

      cra-mcp conformance --group policy --json
    """
    with reporting():
        root = folder or data_folder("conformance")
        paths = sorted(path for path in root.glob("*/*.json") if not group or path.parent.name in group)
        results = [_run(path) for path in paths]
    failed = [result for result in results if not result["ok"]]
    ok = bool(results) and not failed
    if as_json:
        emit_json(
            {
                "ok": ok,
                "implementation": {
                    "name": "cra-mcp",
                    "version": cra_mcp.__version__,
                    "python": platform.python_version(),
                },
                "passed": len(results) - len(failed),
                "failed": len(failed),
                "vectors": results,
            }
        )
    else:
        for result in failed:
            emit(f"{paint('FAILED', 'red')} {result['vector']}: {result['description']}")
            emit(f"  expected {orjson.dumps(result['expected']).decode()}")
            emit(f"  actual   {orjson.dumps(result['actual']).decode()}")
        say(f"{len(results) - len(failed)} passed, {len(failed)} failed")
        if not results:
            complain(f"no vectors under {root}", "give the folder that holds the groups")
    raise typer.Exit(OK if ok else NO)


def run_vector(vector: Mapping[str, Any]) -> object:
    """What this implementation makes of a vector; comparable with its ``expect``.

    Raises:
        SettingsError: the vector is of no kind known here.
    """
    module = _RUNNERS.get(str(vector.get("kind")))
    if module is None:
        raise SettingsError(f"unknown kind of vector: {vector.get('kind')!r}", hint="see specs/conformance/README.md")
    runner = cast("Runner", importlib.import_module(f"cra_mcp.faces.cli.{module}").run)
    return runner(vector)


def _run(path: Path) -> dict[str, object]:
    try:
        vector = cast("dict[str, Any]", orjson.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise SettingsError(f"can't read vector {path}: {type(error).__name__}") from None
    actual = run_vector(vector)
    expected = vector["expect"]
    return {
        "vector": f"{path.parent.name}/{path.stem}",
        "description": vector["description"],
        "ok": actual == expected,
        **({} if actual == expected else {"expected": expected, "actual": actual}),
    }
