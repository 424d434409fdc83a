"""``conformance``: the vectors under ``specs/conformance`` against this implementation.

Rule: nothing is decided here; the runner of a vector's ``kind`` answers, and the answer is compared with ``expect`` as JSON.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer

import cra_mcp
from cra_mcp.errors import CRAError, SettingsError
from cra_mcp.faces.cli.exits import ENVIRONMENT, NO, OK
from cra_mcp.faces.cli.options import AsJson
from cra_mcp.faces.cli.output import complain, emit, emit_json, paint, printable, say
from cra_mcp.folders import read_regular

Runner = Callable[[Mapping[str, Any]], object]

_MAX_VECTOR_BYTES = 16_777_216
_RUNNERS = {
    "policy": "conformance_policy",
    "hash-chain": "conformance_chain",
    "canonical": "conformance_chain",
    "checkpoint": "conformance_checkpoint",
    "merkle": "conformance_checkpoint",
    "proof": "conformance_checkpoint",
    "diagnosis": "conformance_checkpoint",
    "atlas": "conformance_schema",
    "resolution": "conformance_carp",
    "golden": "conformance_carp",
}
_PROTOCOLS = {"atlas": "1.0", "carp": "1.0", "trace": "1.0"}


def conformance(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Folder of vectors. Default: those that come with the package."),
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only the vectors in this folder. Can be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the conformance vectors.

    Exit code 1 if one fails, 3 if there are none.
    """
    root = folder if folder is not None else _shipped()
    results = [_run(path) for path in _vectors(root, group or ())]
    failed = [result for result in results if not result["ok"]]
    ok = bool(results) and not failed
    if as_json:
        emit_json(_report(ok=ok, results=results, failed=len(failed)))
    else:
        for result in failed:
            _tell(result)
        say(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    if not results:
        complain(
            f"no vectors under {root}", "give the folder that holds the groups, and --group as one of them is called"
        )
        raise typer.Exit(ENVIRONMENT)
    raise typer.Exit(OK if ok else NO)


def run_vector(vector: Mapping[str, Any]) -> object:
    """What this implementation makes of a vector; comparable with its ``expect``.

    Raises:
        SettingsError: the vector is of no kind known here.
    """
    from importlib import import_module  # noqa: PLC0415 - not for --help

    module = _RUNNERS.get(str(vector.get("kind")))
    if module is None:
        raise SettingsError(
            f"unknown kind of vector: {vector.get('kind')!r}", hint="`cra-mcp docs conformance` lists them"
        )
    runner = cast("Runner", import_module(f"cra_mcp.faces.cli.{module}").run)
    return runner(vector)


def _shipped() -> Path:
    from cra_mcp.faces.cli.shipped import data_folder  # noqa: PLC0415 - not for --help

    return data_folder("conformance")


def _vectors(root: Path, groups: Sequence[str]) -> list[Path]:
    """The vectors of a folder of groups, or of one group's folder."""
    found = sorted([*root.glob("*/*.json"), *root.glob("*.json")])
    return [path for path in found if not groups or path.parent.name in groups]


def _run(path: Path) -> dict[str, object]:
    """One vector's entry in the report; whatever goes wrong with it is its own failure."""
    import orjson  # noqa: PLC0415 - not for --help

    result: dict[str, object] = {"vector": f"{path.parent.name}/{path.stem}", "description": "", "ok": False}
    try:
        vector = cast("dict[str, Any]", orjson.loads(read_regular(path, _MAX_VECTOR_BYTES)))
        result["description"] = vector["description"]
        expected, actual = vector["expect"], run_vector(vector)
    except CRAError as error:
        return {**result, "error": error.code, "message": error.message}
    except Exception as error:  # noqa: BLE001 - a vector may hold anything; the others are run all the same
        return {**result, "error": type(error).__name__, "message": str(error)}
    result["ok"] = _same(actual, expected)
    return result if result["ok"] else {**result, "expected": expected, "actual": actual}


def _same(actual: object, expected: object) -> bool:
    """Equality of JSON values: true is not 1."""
    from cra_mcp.canonical import canonical_bytes  # noqa: PLC0415 - not for --help

    return canonical_bytes(actual) == canonical_bytes(expected)


def _report(*, ok: bool, results: list[dict[str, object]], failed: int) -> dict[str, object]:
    import platform  # noqa: PLC0415 - not for --help

    implementation = {"name": "cra-mcp", "version": cra_mcp.__version__, "python": platform.python_version()}
    return {
        "ok": ok,
        "implementation": implementation,
        "protocols": _PROTOCOLS,
        "total": len(results),
        "passed": len(results) - failed,
        "failed": failed,
        "vectors": results,
    }


def _tell(result: Mapping[str, object]) -> None:
    import orjson  # noqa: PLC0415 - not for --help

    emit(f"{paint('FAILED', 'red')} {printable(str(result['vector']))}: {printable(str(result['description']))}")
    if "error" in result:
        emit(printable(f"  {result['error']}: {result['message']}"))
        return
    emit(f"  expected {orjson.dumps(result['expected']).decode()}")
    emit(f"  actual   {orjson.dumps(result['actual']).decode()}")
