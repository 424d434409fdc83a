"""``trace prune``: letting old traces go."""

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

import typer

from cra_mcp.errors import SettingsError, TraceUnavailableError
from cra_mcp.faces.cli.options import AsJson, DataDir, Store, TraceDir, config_of
from cra_mcp.faces.cli.output import complain, emit, emit_json, printable, say
from cra_mcp.trace.payloads import number_of
from cra_mcp.words import count_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from cra_mcp.settings import RuntimeConfig
    from cra_mcp.trace.checkpoint import SignerKey
    from cra_mcp.trace.leftovers import Leftovers
    from cra_mcp.trace.statement import Pruning, Rule, Sign

PRUNE_EXAMPLES = (
    "cra-mcp trace prune --keep 30d --dry-run",
    "cra-mcp trace prune --keep 7y --store sqlite:traces.sqlite3 --json",
)

_UNITS_S = {"h": 3_600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_NS = 1_000_000_000
_DIGEST_CHARS = 16
_PERIOD = re.compile(r"([1-9][0-9]{0,4})([hdwy])")


def _seconds(text: str) -> int:
    match = _PERIOD.fullmatch(text)
    if match is None:
        raise typer.BadParameter("must be a number and one of h, d, w, y: 12h, 30d, 7y", param_hint="--keep")
    return int(match[1]) * _UNITS_S[match[2]]


def prune(
    keep: Annotated[str, typer.Option("--keep", metavar="PERIOD", help="What stays: 12h, 30d, 4w, 7y.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; change nothing.")] = False,
    damaged: Annotated[bool, typer.Option("--damaged", help="Let traces that do not verify go as well.")] = False,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Let go the traces of sessions that ended long ago.

    What was kept for their replay only goes with them.

    Of each a signed statement stays, <session>.pruned.json or a row of the table `pruned`: how many events, from when to when, the
    hash of the last, and the last checkpoint. Traces that are being written stay, and so do those that do not verify. Kept atlases
    and policy files go if no trace names them and nothing used them within the period. A SQLite file is pruned while no server has
    it open, and made smaller.
    """
    keep_s = _seconds(keep)
    from cra_mcp.compose import database_of  # noqa: PLC0415 - not for --help
    from cra_mcp.trace.statement import Rule  # noqa: PLC0415 - as said

    config = config_of(data_dir=data_dir, trace_dir=trace_dir, store=store)
    database = database_of(config)
    if config.store == "memory":
        raise SettingsError(
            "traces in memory are not pruned", hint="name a store that is kept, with --store or CRA_STORE"
        )
    before = _size(database)
    found: list[Pruning] = []
    for done in _prune(config, database, Rule(keep_s, damaged=damaged, dry_run=dry_run)):
        found.append(done)
        if not as_json:
            _tell(done, dry_run=dry_run)
    went = {done.session_id for done in found if done.statement is not None}
    if went and not dry_run:
        _forget(config)
    left = _leftovers(config, keep_s, went, dry_run=dry_run)
    if database is not None and went and not dry_run:
        _compact(database)
    given_back = max(0, before - _size(database)) if database is not None else None
    outcome = _Outcome(dry_run, found, left, given_back)
    if as_json:
        emit_json(outcome.to_dict())
    else:
        _tell_rest(outcome)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a run did, or would do. ``given_back``: bytes a database got smaller by; None where there is none."""

    dry_run: bool
    found: "Sequence[Pruning]"
    left: "Leftovers"
    given_back: int | None

    @property
    def statements(self) -> "list[Mapping[str, object]]":
        """Of what went."""
        return [done.statement for done in self.found if done.statement is not None]

    @property
    def traces_bytes(self) -> int:
        """Of what went."""
        return sum(map(_bytes, self.statements))

    def to_dict(self) -> dict[str, object]:
        """For ``--json``."""
        sizes = {"traces": self.traces_bytes, "atlases": sum(atlas.size_bytes for atlas in self.left.removed)}
        kept = [
            {"session_id": each.session_id, "because": each.kept_because} for each in self.found if each.kept_because
        ]
        return {
            "dry_run": self.dry_run,
            "pruned": self.statements,
            "kept": kept,
            "atlases": self.left.to_dict(),
            "size_bytes": {**sizes, "given_back": self.given_back},
        }


def _tell_rest(outcome: _Outcome) -> None:
    """What went besides traces (stdout), and the sums."""
    verb = "would go" if outcome.dry_run else "removed"
    for atlas in outcome.left.removed:
        _line(verb, atlas.digest[:_DIGEST_CHARS], atlas.name or "policy file", atlas.size_bytes)
    if outcome.left.kept_because is not None:
        complain(
            f"kept atlases stay: {outcome.left.kept_because}",
            "delete what names them in .atlases/.databases if they are gone",
        )
    went = len(outcome.statements)
    verb = "would go" if outcome.dry_run else "gone"
    say(
        f"{count_of(went, 'trace')} {verb} ({outcome.traces_bytes:,} bytes), {count_of(len(outcome.found) - went, 'old one')} kept"
    )
    if outcome.given_back:
        say(f"{outcome.given_back:,} bytes given back to the file system")


def _prune(config: "RuntimeConfig", database: "Path | None", rule: "Rule") -> "Iterator[Pruning]":
    key = _key(config)
    sign, keys = (None, ()) if key is None else (None if rule.dry_run else _signing(key), (key.verifier,))
    if database is None:
        from cra_mcp.trace.retention import prune  # noqa: PLC0415 - not for --help

        return prune(config.trace_path, rule, config.clock_ns(), sign=sign, keys=keys)
    from cra_mcp.trace.sqlite_retention import prune_database  # noqa: PLC0415 - not for --help

    return prune_database(database, config.trace_path, rule, config.clock_ns(), sign=sign, keys=keys)


def _leftovers(config: "RuntimeConfig", keep_s: int, without: "Collection[str]", *, dry_run: bool) -> "Leftovers":
    """Remove kept atlases no trace needs.

    Raises:
        TraceUnavailableError: a trace can't be read.
    """
    import sqlite3  # noqa: PLC0415 - not for --help

    from cra_mcp.atlas.archive import FOLDER  # noqa: PLC0415 - not for --help
    from cra_mcp.trace.leftovers import prune_atlases  # noqa: PLC0415 - as said

    root, until_ns = config.trace_path / FOLDER, config.clock_ns() - keep_s * _NS
    try:
        return prune_atlases(config.trace_path, root, until_ns, without=without, dry_run=dry_run)
    except (OSError, sqlite3.Error) as error:
        raise TraceUnavailableError(
            f"can't remove kept atlases: {error}", hint="Look at the disk, and run it again."
        ) from error


def _compact(database: "Path") -> None:
    """Give space back, if that can be done now."""
    from cra_mcp.trace.sqlite_retention import compact  # noqa: PLC0415 - not for --help

    try:
        compact(database)
    except TraceUnavailableError as error:
        complain(
            f"the file stays as large as it is: {error.message}",
            "there must be room for a copy of it; the next run tries again",
        )


def _size(database: "Path | None") -> int:
    """Bytes of a database with its log; 0 where there is none."""
    paths = [database, database.with_name(f"{database.name}-wal")] if database is not None else []
    return sum(path.stat().st_size for path in paths if path.is_file())


def _bytes(statement: "Mapping[str, object]") -> int:
    return sum(cast("int", file["bytes"]) for file in cast("list[dict[str, object]]", statement["files"]))


def _key(config: "RuntimeConfig") -> "SignerKey | None":
    """What signs statements, and did: the key of checkpoints, where there is one."""
    from cra_mcp.trace.keyfile import KEY_FILE, load_key  # noqa: PLC0415 - not for --help

    if config.checkpoint_key is None and not (config.data_path / KEY_FILE).exists():
        return None
    return load_key(config.checkpoint_key, config.data_path, os.environ)


def _signing(key: "SignerKey") -> "Sign":
    from cra_mcp.trace.checkpoint import encode  # noqa: PLC0415 - not for --help
    from cra_mcp.trace.statement import FORM  # noqa: PLC0415 - not for --help

    return lambda data: {"vkey": key.verifier.encode(), "ed25519": encode(key.sign_statement(FORM, data))}


def _forget(config: "RuntimeConfig") -> None:
    """The index must not know what is gone; it is made anew with the next search."""
    from cra_mcp.compose import open_index  # noqa: PLC0415 - not for --help

    index = open_index(config)
    if index is not None:
        index.discard()


def _tell(done: "Pruning", *, dry_run: bool) -> None:
    if done.statement is None:
        emit(f"kept      {done.session_id}  {done.kept_because}")
        if done.kept_because in {"statement_unsigned", "malformed_statement"}:
            complain(
                f"{done.session_id}: a statement that it was pruned is not ours, and not obeyed [{done.kept_because}]",
                "find out who wrote it, and move it away: the next run judges the trace again",
            )
    else:
        events = count_of(number_of(done.statement, "events") or 0, "event")
        what = f"{events} until {done.statement['last_timestamp']}"
        _line("would go" if dry_run else "pruned", done.session_id, what, _bytes(done.statement))


def _line(verb: str, name: str, what: str, size_bytes: int) -> None:
    emit(f"{verb:8}  {name}  {printable(what)}, {size_bytes:,} bytes")
