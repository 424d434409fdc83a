"""The composition root: a configuration becomes a runtime.

Rule: concrete stores and back ends are named here and nowhere else; a new one is one line.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cra_mcp.approval.ledger import SCHEMA, ApprovalLedger
from cra_mcp.atlas.archive import FOLDER, AtlasArchive
from cra_mcp.atlas.registry import Catalogue
from cra_mcp.auth import keys
from cra_mcp.auth.keys import KeyStore
from cra_mcp.errors import SettingsError
from cra_mcp.execution.backend import Backend
from cra_mcp.execution.command import CommandBackend
from cra_mcp.execution.http_endpoint import HttpBackend
from cra_mcp.execution.mcp_upstream import McpBackend
from cra_mcp.execution.python_callable import PythonBackend
from cra_mcp.folders import check_private
from cra_mcp.gate.binding import Bindings
from cra_mcp.gate.gate import Gate
from cra_mcp.policy.counters import Counters
from cra_mcp.runtime import Runtime
from cra_mcp.settings import SQLITE, RuntimeConfig
from cra_mcp.state import counters, freezes
from cra_mcp.state.counters import StoredCounters
from cra_mcp.state.database import Database
from cra_mcp.state.freezes import Freezes
from cra_mcp.trace.chainfile import Bounds
from cra_mcp.trace.checkpointing import CheckpointCounts, Checkpointer
from cra_mcp.trace.delivery import Delivery, Sink
from cra_mcp.trace.detect.detectors import Detectors
from cra_mcp.trace.detect.key import TokenKey
from cra_mcp.trace.detect.own import load_patterns
from cra_mcp.trace.detect.rules import EMAIL
from cra_mcp.trace.file import FileStore
from cra_mcp.trace.index import TraceIndex
from cra_mcp.trace.index_source import FileSource, SqliteSource
from cra_mcp.trace.keeping import STAMPED, KeptCheckpoints
from cra_mcp.trace.keyfile import is_kept, load_key
from cra_mcp.trace.memory import MemoryStore
from cra_mcp.trace.redacting import Added, RedactingStore
from cra_mcp.trace.sqlite import SqliteStore
from cra_mcp.trace.store import TraceStore
from cra_mcp.trace.taps import Taps

if TYPE_CHECKING:
    from cra_mcp.trace.export.live import LiveExport


class CRARuntime(Runtime):
    """A runtime with the stores and back ends its configuration asks for.

    Args:
        config: settings; None means the defaults: traces in files under the per-user data folder.
        backends: what carries out actions, by type of executor, in the place of the usual ones; of a type not in it, nothing does.

    Raises:
        AtlasInvalidError: a policy file or an overlay of the configuration can't be loaded.
        AtlasConflictError: two of them have one name.
    """

    def __init__(self, config: RuntimeConfig | None = None, *, backends: Mapping[str, Backend] | None = None) -> None:
        if config is not None and not isinstance(config, RuntimeConfig):  # pyright: ignore[reportUnnecessaryIsInstance]
            message = f"config must be a RuntimeConfig, not {type(config).__name__}"
            raise SettingsError(message, hint='CRARuntime(RuntimeConfig(store="memory"))')
        config = config or RuntimeConfig()
        check_folders(config)
        stored = open_store(config)
        self.checkpointer = open_checkpointer(config, stored)
        """Makes checkpoints of what is recorded; None where that is turned off."""
        self.exports = open_exports(config)
        """Where what is recorded is exported to meanwhile."""
        if self.exports:
            stored.tap = Taps([*([stored.tap] if stored.tap is not None else []), *self.exports])
        detectors = open_detectors(config)

        def added(action_id: str | None) -> frozenset[str]:
            return gate.catalogue.detectors(action_id)

        def known(action_id: str) -> bool:
            return gate.catalogue.find(action_id) is not None

        store = RedactingStore(stored, detectors, added, known)
        ledger = open_ledger(config, detectors, added)
        gate = Gate(
            catalogue=Catalogue(shadow=config.mode == "shadow"),
            bindings=Bindings(open_backends(config) if backends is None else backends),
            store=store,
            counters=open_counters(config),
            ledger=ledger,
            config=config,
            freezes=open_freezes(config),
        )
        super().__init__(config=config, store=store, ledger=ledger, gate=gate, archive=open_archive(config))
        for path in config.policy_files:
            self.load_policy_file(path)
        for path in config.overlays:
            self.load_overlay(path)

    def checkpoint_counts(self) -> CheckpointCounts | None:
        """See ``Runtime.checkpoint_counts``."""
        return self.checkpointer.counts() if self.checkpointer is not None else None

    def close(self) -> None:
        """End all sessions, flush, make the last checkpoints, deliver what is being exported and close. Safe to call twice."""
        try:
            super().close()
        finally:
            if self.checkpointer is not None:
                self.checkpointer.close()
            for export in self.exports:
                export.close()


def check_folders(config: RuntimeConfig) -> None:
    """Refuse folders that others than their owner can write to.

    Raises:
        SettingsError: ``insecure_folder``: one is, and ``insecure_folders`` is not set.
    """
    if config.store == "memory":
        return
    database = database_of(config)
    folders = [config.data_path, config.trace_path, config.trace_path / FOLDER, config.data_path / "exports"]
    check_private(*folders, *([database.parent] if database is not None else []), allowed=config.insecure_folders)


def open_backends(config: RuntimeConfig) -> dict[str, Backend]:
    """What carries out actions, by type of executor. Starts nothing."""
    backends: list[Backend] = [
        PythonBackend(max_threads=config.max_concurrency),
        CommandBackend(),
        McpBackend(debug_log=config.debug_log),
        HttpBackend(allow_private_hosts=config.allow_private_hosts, ca_bundle=config.http_ca_bundle),
    ]
    return {backend.executor_type: backend for backend in backends}


def open_store(config: RuntimeConfig) -> TraceStore:
    """The trace store of a configuration. Touches nothing until it is used."""
    if config.store == "memory":
        return MemoryStore(clock_ns=config.clock_ns, new_id=config.new_id)
    path = database_of(config)
    if path is not None:
        return SqliteStore(path, clock_ns=config.clock_ns, new_id=config.new_id, insecure=config.insecure_folders)
    return FileStore(
        config.trace_path,
        clock_ns=config.clock_ns,
        new_id=config.new_id,
        flush_interval_s=config.flush_interval_s,
        bounds=Bounds(config.segment_bytes, config.segment_age_s, config.max_unflushed_bytes),
        insecure=config.insecure_folders,
    )


def open_archive(config: RuntimeConfig) -> AtlasArchive | None:
    """Where atlases are kept for replay: beside the traces that name them. Touches nothing until it is used."""
    return None if config.store == "memory" else AtlasArchive(config.trace_path / FOLDER, database_of(config))


def open_checkpointer(config: RuntimeConfig, store: TraceStore) -> Checkpointer | None:
    """What makes the checkpoints of ``store``; None where none are kept: in memory, or by setting.

    Raises:
        SettingsError: they can't be copied to where the settings say, or not be timestamped.
    """
    if config.checkpoint_every == 0 and config.timestamp_authority:
        raise SettingsError(
            "there is nothing to timestamp: checkpoints are turned off",
            hint="unset timestamp_authority (CRA_TIMESTAMP_AUTHORITY), or let checkpoint_every be above 0",
        )
    if config.checkpoint_every == 0 or config.store == "memory":
        return None
    source = config.checkpoint_key
    checkpointer = Checkpointer(
        store=store,
        key=lambda: load_key(source, config.data_path, os.environ),
        is_kept=lambda key: is_kept(source, config.data_path, key),
        kept=KeptCheckpoints(config.trace_path),
        sinks=open_sinks(config) if config.checkpoint_to else (),
        timestamps=open_timestamps(config) if config.timestamp_authority else None,
        every=config.checkpoint_every,
        interval_s=config.checkpoint_interval_s,
    )
    store.tap = checkpointer
    return checkpointer


def open_sinks(config: RuntimeConfig) -> list[Sink]:
    """Where a configuration has checkpoints copied.

    Raises:
        SettingsError: one can't be used.
    """
    from cra_mcp.trace.sinks import sink_of  # noqa: PLC0415 - loads HTTP and TLS, for those who want copies

    source = config.checkpoint_key or ""
    hidden = frozenset({source.removeprefix("env:")} if source.startswith("env:") else ())
    return [sink_of(text, os.environ, hidden=hidden) for text in config.checkpoint_to]


def open_timestamps(config: RuntimeConfig) -> Delivery:
    """What has checkpoints timestamped by the authority a configuration names.

    Raises:
        SettingsError: it can't be asked; ``missing_extra``; ``timestamp_ca``: its certificates can't be read.
    """
    from cra_mcp.trace import timestamping  # noqa: PLC0415 - loads HTTP and TLS, for those who want timestamps

    url = timestamping.authority_url(config.timestamp_authority or "")
    authorities = timestamping.load_authorities(config.timestamp_ca) if config.timestamp_ca is not None else ()
    authority = timestamping.TimestampAuthority(url, KeptCheckpoints(config.trace_path, STAMPED), authorities)
    return Delivery(authority, latest_only=True, rest_s=config.timestamp_interval_s)


def open_exports(config: RuntimeConfig) -> "tuple[LiveExport, ...]":
    """Where a configuration has events exported while they are made. Threads run from here on until they are closed.

    Raises:
        SettingsError: one can't be used.
    """
    if not config.export_to:
        return ()
    from cra_mcp.trace.export.live import LiveExport  # noqa: PLC0415 - for those who export
    from cra_mcp.trace.export.sinks import sink_of  # noqa: PLC0415 - as said

    sinks = [sink_of(text, os.environ) for text in config.export_to]
    folder = config.data_path / "exports"
    return tuple(LiveExport(sink, folder / f"{number}.dead.trace.jsonl") for number, sink in enumerate(sinks))


def open_detectors(config: RuntimeConfig) -> Detectors:
    """What hides secrets in what is recorded.

    Raises:
        SettingsError: the patterns of the configuration can't be used.
    """
    path = None if config.store == "memory" else config.data_path / "redaction.key"
    own = load_patterns(config.redact_patterns) if config.redact_patterns is not None else {}
    return Detectors(config.detectors, own=own, key=TokenKey(path).get)


def open_index(config: RuntimeConfig) -> TraceIndex | None:
    """The index of the traces of a configuration; None where they are in memory. Touches nothing until it is used."""
    if config.store == "memory":
        return None
    path = database_of(config)
    source = SqliteSource(path) if path is not None else FileSource(config.trace_path)
    return TraceIndex(source, config.data_path)


def database_of(config: RuntimeConfig) -> Path | None:
    """The SQLite file of a configuration's traces; None where they are kept otherwise."""
    if not config.store.startswith(SQLITE):
        return None
    return Path(config.store.removeprefix(SQLITE)).expanduser()


def open_keys(config: RuntimeConfig) -> KeyStore:
    """The API keys of a configuration. Touches nothing until it is used. Raises as ``check_folders``."""
    check_folders(config)
    path = None if config.store == "memory" else config.data_path / "state.sqlite3"
    return KeyStore(Database(path, keys.SCHEMA), lambda: config.clock_ns() // 1_000)


def open_freezes(config: RuntimeConfig) -> Freezes:
    """The kill switch of a configuration. Touches nothing until it is used. Raises as ``check_folders``."""
    check_folders(config)
    path, marker = (
        (None, None) if config.store == "memory" else (config.data_path / "state.sqlite3", config.data_path / "freeze")
    )
    return Freezes(Database(path, freezes.SCHEMA), marker, lambda: config.clock_ns() // 1_000)


def open_counters(config: RuntimeConfig) -> Counters:
    """The counters of a configuration. Touches nothing until it is used."""
    if config.store == "memory":
        return Counters()
    return StoredCounters(Database(config.data_path / "state.sqlite3", counters.SCHEMA))


def open_ledger(
    config: RuntimeConfig, detectors: Detectors | None = None, added: Added = lambda _: frozenset()
) -> ApprovalLedger:
    """The approvals of a configuration. Touches nothing until it is used.

    ``detectors`` hide secrets in the parameters it keeps; e-mail addresses stay, since whoever approves must see them.
    ``added`` says what atlases have hidden besides. Raises as ``check_folders``.
    """
    check_folders(config)
    path = None if config.store == "memory" else config.data_path / "state.sqlite3"
    shown = detectors.without_emails() if detectors is not None and config.recording != "full" else None

    def redact(parameters: object, action_id: str) -> object:
        return parameters if shown is None else shown.adding(added(action_id) - {EMAIL}).value(parameters)[0]

    return ApprovalLedger(Database(path, SCHEMA), lambda: config.clock_ns() // 1_000, redact=redact)
