"""``keys``: API keys for callers over HTTP."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cra_mcp.faces.cli.exits import CODES, epilog
from cra_mcp.faces.cli.options import AsJson, DataDir, GroupHelp, config_of
from cra_mcp.faces.cli.output import emit, emit_json, printable, say, table

if TYPE_CHECKING:
    from cra_mcp.auth.keys import ApiKey, KeyStore

_UNITS = {"m": 60, "h": 3_600, "d": 86_400}
_LIFETIME = re.compile(r"([1-9][0-9]{0,5})([mhd])")
_ROLES = ("admin", "operator", "approver", "agent", "auditor")

app = typer.Typer(name="keys", no_args_is_help=True)


@app.callback(epilog=CODES)
def _group(_help: GroupHelp = False) -> None:
    """API keys for callers over HTTP.

    A server that is started with --require-key takes them; its data folder is where they are kept, as digests.
    """


@app.command(
    epilog=epilog(
        "cra-mcp keys create ann --role agent --expires 30d",
        "cra-mcp keys create ci --tenant acme --role agent --role auditor --json",
    )
)
def create(
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="Who the key is for.")],
    role: Annotated[
        list[str], typer.Option("--role", metavar="ROLE", help=f"What it may do: {', '.join(_ROLES)}. Can be repeated.")
    ],
    tenant: Annotated[str | None, typer.Option(help="Whom it belongs to. Default: CRA_TENANT, or default.")] = None,
    agent_id: Annotated[str | None, typer.Option(help="Agent that policies see. Default: the subject.")] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="Lifetime, such as 12h or 30d. Default: until it is revoked.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once.

    Nobody can read it again: what is kept is its digest.
    """
    from cra_mcp.auth.roles import roles_of  # noqa: PLC0415 - not for --help

    known = roles_of(role)
    unknown = [name for name in role if name not in known]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is no role; there are {', '.join(_ROLES)}", param_hint="--role")
    lifetime_s = _seconds(expires) if expires is not None else None
    with _store(data_dir) as (store, own_tenant):
        text, key = store.create(
            subject,
            tenant=tenant or own_tenant,
            roles=sorted(known),
            agent_id=agent_id or subject,
            lifetime_s=lifetime_s,
        )
    if as_json:
        emit_json({"key": text, **key.to_dict()})
    else:
        emit(text)
    say(
        f"key {key.key_id} for {printable(subject)}; it is shown this once. `cra-mcp keys revoke {key.key_id}` takes it back"
    )


@app.command("list", epilog=epilog("cra-mcp keys list", "cra-mcp keys list --json"))
def list_keys(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List keys, revoked and expired ones included, the oldest first."""
    with _store(data_dir) as (store, _):
        found = store.all()
    if as_json:
        emit_json({"keys": [key.to_dict() for key in found]})
        return
    if not found:
        say("there are no keys")
        return
    rows = [
        (
            key.key_id,
            key.principal.tenant,
            key.principal.subject,
            ",".join(sorted(key.principal.roles)),
            _state(key),
            key.used_on or "never",
        )
        for key in found
    ]
    table(("KEY", "TENANT", "SUBJECT", "ROLES", "STATE", "USED"), rows, colours={"revoked": "red", "expired": "yellow"})


@app.command(epilog=epilog("cra-mcp keys revoke 4fJq0aXb81Zk"))
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="Id of the key, as `cra-mcp keys list` shows it.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Take a key back. Running servers refuse it from their next request on."""
    with _store(data_dir) as (store, _):
        key = store.revoke(key_id)
    if as_json:
        emit_json(key.to_dict())
    say(f"revoked: {key.key_id} of {printable(key.principal.subject)}")


@contextmanager
def _store(data_dir: Path | None) -> Generator[tuple["KeyStore", str]]:
    from cra_mcp.compose import open_keys  # noqa: PLC0415 - not for --help

    config = config_of(data_dir=data_dir)
    store = open_keys(config)
    try:
        yield store, config.tenant
    finally:
        store.close()


def _seconds(text: str) -> int:
    match = _LIFETIME.fullmatch(text)
    if match is None:
        raise typer.BadParameter("give a number and m, h or d, such as 12h or 30d", param_hint="--expires")
    return int(match[1]) * _UNITS[match[2]]


def _state(key: "ApiKey") -> str:
    import time  # noqa: PLC0415 - not for --help

    if key.revoked_at_us is not None:
        return "revoked"
    if not key.is_good_at(time.time_ns() // 1_000):
        return "expired"
    if key.expires_at_us is None:
        return "good"
    from datetime import UTC, datetime  # noqa: PLC0415 - not for --help

    return "good until " + datetime.fromtimestamp(key.expires_at_us / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M")
