"""``trace key``, ``trace prove`` and ``trace verify-proof``: the key of checkpoints, and what they prove."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cra_mcp.errors import SettingsError, TraceError
from cra_mcp.faces.cli.exits import epilog
from cra_mcp.faces.cli.options import AsJson, DataDir, config_of
from cra_mcp.faces.cli.output import emit, emit_json, say
from cra_mcp.faces.cli.verifying import app

if TYPE_CHECKING:
    from cra_mcp.trace.checkpoint import VerifierKey


@app.command(
    epilog=epilog(
        "cra-mcp trace key",
        "cra-mcp trace key --make",
        "cra-mcp trace key --make --file ~/keys/agents.key --name example.com/agents",
    )
)
def key(
    make: Annotated[bool, typer.Option("--make", help="Make a key if there is none.")] = False,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --make: what the key is called; no spaces, no plus sign.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Key in this file, instead of the one in the data folder.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Print the public key that checkpoints are verified with.

    Keep what this prints where the traces are not: with it and a copy of a checkpoint, `trace verify` shows whether a trace was cut
    off or written anew. `serve` makes a key by itself on its first run. The private key is never printed.
    """
    from cra_mcp.trace.keyfile import KEY_FILE  # noqa: PLC0415 - not for --help

    path = file.expanduser() if file is not None else config_of(data_dir=data_dir).data_path / KEY_FILE
    if name is not None and not make:
        raise typer.BadParameter("goes with --make", param_hint="--name")
    public = _make(path, name) if make else _read(path)
    if as_json:
        emit_json({"name": public.name, "key_id": public.key_id.hex(), "vkey": public.encode(), "file": str(path)})
    else:
        emit(public.encode())


def _make(path: Path, name: str | None) -> "VerifierKey":
    from cra_mcp.trace.keyfile import make_key  # noqa: PLC0415 - not for --help

    known = path.exists()
    try:
        made = make_key(path, name).verifier
    except TraceError as error:
        raise typer.BadParameter(error.message, param_hint="--name") from None
    say(f"there is a key in {path}; it stays as it is" if known else f"made a key in {path}; nobody else may read it")
    return made


def _read(path: Path) -> "VerifierKey":
    from cra_mcp.trace.keyfile import public_key_of  # noqa: PLC0415 - not for --help

    found = public_key_of(path)
    if found is None:
        raise SettingsError(
            f"there is no key in {path}",
            code="checkpoint_key",
            hint="`cra-mcp trace key --make` makes one; `serve` does so too",
        )
    return found
