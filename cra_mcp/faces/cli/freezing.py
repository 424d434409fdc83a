"""``freeze`` and ``unfreeze``: the kill switch of every server with the same data folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cra_mcp.faces.cli.approvals import who
from cra_mcp.faces.cli.exits import NO
from cra_mcp.faces.cli.options import AsJson, DataDir, TraceDir, config_of, runtime_of
from cra_mcp.faces.cli.output import emit_json, printable, say, table

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cra_mcp.compose import CRARuntime
    from cra_mcp.state.freezes import Freeze, Kind

FREEZE_EXAMPLES = (
    'cra-mcp freeze --all --reason "looking into it"',
    "cra-mcp freeze --agent bot",
    "cra-mcp freeze --atlas com.example.payments",
    "cra-mcp freeze --list",
)

_MAX_NAME = 256
_MAX_REASON = 500

FrozenAgent = Annotated[str | None, typer.Option("--agent", metavar="ID", help="Every call of this agent.")]
FrozenAtlas = Annotated[
    str | None, typer.Option("--atlas", metavar="ID", help="Every action of this atlas, by its id.")
]
FrozenAll = Annotated[bool, typer.Option("--all", help="Every call.")]


def freeze(
    agent: FrozenAgent = None,
    atlas: FrozenAtlas = None,
    everything: FrozenAll = False,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Told with every refusal.")] = "",
    show: Annotated[bool, typer.Option("--list", help="List what is frozen, and change nothing.")] = False,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    as_json: AsJson = False,
) -> None:
    """Refuse calls at once, in every running server.

    Every server with the same data folder is meant, those started later too. Calls under way end as they were decided.
    It holds until `cra-mcp unfreeze`.
    """
    if show:
        _list(data_dir, trace_dir, as_json=as_json)
        return
    kind, name = _what(agent, atlas, everything=everything)
    if len(reason) > _MAX_REASON:
        raise typer.BadParameter(f"at most {_MAX_REASON} characters", param_hint="--reason")
    with _runtime(data_dir, trace_dir) as runtime:
        made = runtime.freeze(kind, name, reason=reason, by=who())
    if as_json:
        emit_json({"frozen": made.to_dict()})
    say(f"{_named(kind, name)} is frozen; `cra-mcp unfreeze` lets it go on")


def unfreeze(
    agent: FrozenAgent = None,
    atlas: FrozenAtlas = None,
    everything: FrozenAll = False,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    as_json: AsJson = False,
) -> None:
    """Let calls go on that were frozen. Exit code 1 if they were not.

    Each freeze is lifted by itself: --all lifts the one of everything, and leaves those of agents and atlases.
    """
    kind, name = _what(agent, atlas, everything=everything)
    with _runtime(data_dir, trace_dir) as runtime:
        lifted = runtime.unfreeze(kind, name, by=who())
    if as_json:
        emit_json({"lifted": lifted})
    say(f"{_named(kind, name)} {'goes on' if lifted else 'was not frozen'}")
    if not lifted:
        raise typer.Exit(NO)


def _runtime(data_dir: Path | None, trace_dir: Path | None) -> "AbstractContextManager[CRARuntime]":
    """One without policies: a broken policy file must not keep anybody from pulling the brake."""
    return runtime_of(config_of(data_dir=data_dir, trace_dir=trace_dir, policy_files=(), overlays=()), ())


def _what(agent: str | None, atlas: str | None, *, everything: bool) -> "tuple[Kind, str]":
    given: list[tuple[Kind, str]] = []
    if agent is not None:
        given.append(("agent", agent))
    if atlas is not None:
        given.append(("atlas", atlas))
    if everything:
        given.append(("all", ""))
    if len(given) != 1:
        raise typer.BadParameter("say one of them: what is meant?", param_hint="--agent, --atlas or --all")
    kind, name = given[0]
    if kind != "all" and not 1 <= len(name) <= _MAX_NAME:
        raise typer.BadParameter(f"must have 1 to {_MAX_NAME} characters", param_hint=f"--{kind}")
    return given[0]


def _list(data_dir: Path | None, trace_dir: Path | None, *, as_json: bool) -> None:
    with _runtime(data_dir, trace_dir) as runtime:
        found = runtime.freezes()
    if as_json:
        emit_json({"frozen": [each.to_dict() for each in found]})
    elif found:
        table(("FROZEN", "BY", "SINCE", "REASON"), [_row(each) for each in found])
    else:
        say("nothing is frozen")


def _row(each: "Freeze") -> tuple[str, str, str, str]:
    from cra_mcp.trace.event import format_timestamp  # noqa: PLC0415 - not for --help

    return (
        _named(each.kind, each.name),
        printable(each.frozen_by),
        format_timestamp(each.frozen_at_us * 1_000),
        printable(each.reason),
    )


def _named(kind: str, name: str) -> str:
    return "everything" if kind == "all" else f"{kind} {printable(name)}"
