"""Settings of a runtime, read once and passed down as values.

Rule: the environment is read here and nowhere else below the faces. Names begin ``CRA_``.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, fields
from pathlib import Path
from typing import Literal, cast

from uuid_utils import uuid7

from cra_mcp.errors import SettingsError

Recording = Literal["none", "hash", "redacted", "full"]
Durability = Literal["atlas", "risk", "durable"]
Mode = Literal["enforce", "shadow"]

_RECORDINGS: tuple[Recording, ...] = ("none", "hash", "redacted", "full")
_STORES = ("file", "memory")
SQLITE = "sqlite:"
"""What the setting of a store in one SQLite file begins with; its path follows."""

_MODES: tuple[Mode, ...] = ("enforce", "shadow")
_DURABILITIES: tuple[Durability, ...] = ("atlas", "risk", "durable")
DETECTORS = ("private_key", "secret", "named", "card", "email", "entropy")
"""What can be found in recorded texts (specs/trace.md, "Detectors")."""

_ROLES = ("admin", "operator", "approver", "agent", "auditor")
_MAX_NAME = 256
_DAY_S = 86_400


def new_uuid7() -> str:
    """A new UUIDv7, lower-case, 36 characters (RFC 9562)."""
    return str(uuid7())


def default_data_dir() -> Path:
    """The per-user data folder of this platform."""
    import platformdirs  # noqa: PLC0415 - only where no folder is given

    return platformdirs.user_data_path("cra-mcp", appauthor=False)


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """How a runtime behaves.

    Attributes:
        data_dir: folder of everything that is kept; None means the platform's per-user data folder.
        trace_dir: folder of traces; None means ``data_dir/traces``.
        store: ``file`` (default), ``sqlite:PATH`` (one file) or ``memory`` (nothing outlives the process, approvals included).
        agent_id: who calls, where the caller does not say.
        tenant: whom this process belongs to, and whom calls are counted for in limits of scope ``tenant``.
        subject: who runs this process: the principal of what comes over standard input (specs/identity.md).
        roles: what that principal may do.
        ttl_seconds: life of a resolution, 1-86400; cut at the next boundary of a time window.
        recording: what traces keep of parameters: ``none``, ``hash``, ``redacted`` (default) or ``full``.
        result_recording: the same of results; ``hash`` is the default.
        detectors: what is hidden in recorded texts and values; ``("none",)`` turns it off.
        export_to: where events go while they are made: ``otlp+http:``, ``syslog:``, ``file:`` or ``command:``, with ``#FORMAT``.
        redact_patterns: JSON file of further patterns (names and RE2 expressions) to hide.
        max_parameters_bytes: canonical size of one call's parameters; larger ones are refused.
        max_recorded_bytes: canonical size up to which a trace keeps parameters and results; of larger ones only the hash is kept.
        max_result_bytes: size of a result handed on; larger ones are cut with a marker.
        max_binary_bytes: the same of its images, sounds and other binary blocks together, which don't count there.
        max_concurrency: actions running at once; further ones wait within their timeout.
        approval_ttl_s: seconds a pending or granted approval stays usable.
        max_pending_approvals: calls of one principal that can wait for approval at a time; 0: any number.
        elicitation_timeout_s: seconds an asked client has to answer before the call fails closed.
        allow_self_approval: whether a principal whose role may approve may settle approvals of its own calls too.
        allow_private_hosts: ``HOST`` or ``HOST:PORT`` that requests of atlases may be sent to at private addresses.
        http_ca_bundle: file of certificates (PEM) trusted in requests besides the operating system's.
        durability: which calls have what approves them on disk before they run: as their ``atlas`` says (default); at least those
            of high and critical risk and those a person approved, whatever an atlas says (``risk``); all (``durable``).
        mode: ``enforce`` (default), or ``shadow``: nothing but what the operator denies is refused; what the policies would have
            decided is recorded (specs/policy.md, "Shadow mode").
        policy_files: files of the operator's policies, which govern every action and only tighten (specs/policy.md, "Overlays").
        overlays: atlases whose policies govern every action likewise.
        flush_interval_s: seconds a stored event may wait for the disk; what a power cut can take.
        max_unflushed_bytes: of one trace; the event that makes it more waits for the disk itself.
        segment_bytes: a trace goes on in another file once one has so many bytes;
        segment_age_s: or once its first event is so many seconds old.
        checkpoint_every: events of a session after which a signed checkpoint is made; 0: none are made.
        checkpoint_interval_s: seconds after which one is made if there were fewer.
        checkpoint_to: where copies go: ``folder:``, ``https:``, ``syslog+udp:``, ``syslog+tcp:``, ``syslog:`` or ``command:``.
        timestamp_authority: URL of a time-stamping authority (RFC 3161) that is asked to date checkpoints.
        timestamp_interval_s: seconds between two requests to it; of a session's checkpoints made meanwhile, the last is dated.
        timestamp_ca: file of certificates (PEM) its answers must hold against before they are kept.
        checkpoint_key: ``file:PATH``, ``env:NAME`` or ``keyring:SERVICE/NAME``; None: a file in the data folder, made if needed.
        debug_log: file, mode 0600, for what logs leave out because it can hold secrets; None: it is written nowhere.
        insecure_folders: whether folders that others can write to are used all the same.
        clock_ns: wall clock, nanoseconds since the epoch.
        new_id: source of identifiers.
        storage: another name of ``store``, when a configuration is made.

    Paths may be given as texts, and lists for tuples.
    """

    data_dir: Path | None = None
    trace_dir: Path | None = None
    store: str = "file"
    agent_id: str = "local"
    tenant: str = "default"
    subject: str = "local"
    roles: tuple[str, ...] = ("agent",)
    ttl_seconds: int = 300
    recording: Recording = "redacted"
    result_recording: Recording = "hash"
    detectors: tuple[str, ...] = DETECTORS
    redact_patterns: Path | None = None
    export_to: tuple[str, ...] = ()
    max_parameters_bytes: int = 1_048_576
    max_recorded_bytes: int = 65_536
    max_result_bytes: int = 524_288
    max_binary_bytes: int = 10_485_760
    max_concurrency: int = 32
    approval_ttl_s: int = 600
    max_pending_approvals: int = 50
    elicitation_timeout_s: float = 120.0
    allow_self_approval: bool = False
    allow_private_hosts: tuple[str, ...] = ()
    http_ca_bundle: Path | None = None
    durability: Durability = "atlas"
    mode: Mode = "enforce"
    policy_files: tuple[Path, ...] = ()
    overlays: tuple[Path, ...] = ()
    flush_interval_s: float = 1.0
    max_unflushed_bytes: int = 4_194_304
    segment_bytes: int = 67_108_864
    segment_age_s: float = 86_400.0
    checkpoint_every: int = 1_000
    checkpoint_interval_s: float = 60.0
    checkpoint_to: tuple[str, ...] = ()
    checkpoint_key: str | None = None
    timestamp_authority: str | None = None
    timestamp_interval_s: float = 15.0
    timestamp_ca: Path | None = None
    debug_log: Path | None = None
    insecure_folders: bool = False
    clock_ns: Callable[[], int] = time.time_ns
    new_id: Callable[[], str] = new_uuid7
    storage: InitVar[str | None] = None

    def __post_init__(self, storage: str | None) -> None:
        """Take paths that are given as texts, and refuse values that can't work.

        Raises:
            SettingsError: the first of them, by name.
        """
        if storage is not None:
            _require(self.store in {"file", storage}, "storage", "is another name of store: give one of them")
            object.__setattr__(self, "store", storage)
        for each in fields(self):
            value: object = getattr(self, each.name)
            if each.name in _VARIABLES and (value is not None or each.default is not None):
                object.__setattr__(self, each.name, _typed(each.name, value, _VARIABLES[each.name]))
        known = self.store in _STORES or (self.store.startswith(SQLITE) and self.store != SQLITE)
        _require(known, "store", f"must be one of {', '.join(_STORES)}, {SQLITE}PATH")
        for name in ("recording", "result_recording"):
            _require(getattr(self, name) in _RECORDINGS, name, f"must be one of {', '.join(_RECORDINGS)}")
        _require(self.mode in _MODES, "mode", f"must be one of {', '.join(_MODES)}")
        _require(self.durability in _DURABILITIES, "durability", f"must be one of {', '.join(_DURABILITIES)}")
        known = self.detectors == ("none",) or (bool(self.detectors) and set(self.detectors) <= set(DETECTORS))
        _require(known, "detectors", f"must be none, or some of {', '.join(DETECTORS)}")
        _require(1 <= len(self.agent_id) <= _MAX_NAME, "agent_id", "must have 1 to 256 characters")
        _require(1 <= len(self.tenant) <= _MAX_NAME, "tenant", "must have 1 to 256 characters")
        _require(1 <= len(self.subject) <= _MAX_NAME, "subject", "must have 1 to 256 characters")
        _require(bool(self.roles) and set(self.roles) <= set(_ROLES), "roles", f"must be some of {', '.join(_ROLES)}")
        _require(1 <= self.ttl_seconds <= _DAY_S, "ttl_seconds", "must be 1 to 86400")
        for name in (
            "max_parameters_bytes",
            "max_result_bytes",
            "max_binary_bytes",
            "max_concurrency",
            "approval_ttl_s",
            "max_unflushed_bytes",
            "segment_bytes",
        ):
            _require(cast("int", getattr(self, name)) >= 1, name, "must be at least 1")
        for name in ("max_recorded_bytes", "checkpoint_every", "max_pending_approvals"):
            _require(cast("int", getattr(self, name)) >= 0, name, "must not be negative")
        for name in ("elicitation_timeout_s", "flush_interval_s", "segment_age_s", "checkpoint_interval_s"):
            _require(cast("float", getattr(self, name)) > 0, name, "must be above 0")
        _require(self.timestamp_interval_s >= 0, "timestamp_interval_s", "must not be negative")

    @property
    def data_path(self) -> Path:
        """The data folder in use."""
        return self.data_dir if self.data_dir is not None else default_data_dir()

    @property
    def trace_path(self) -> Path:
        """The trace folder in use."""
        return self.trace_dir if self.trace_dir is not None else self.data_path / "traces"


def from_environment(environ: Mapping[str, str]) -> RuntimeConfig:
    """A configuration from ``CRA_*`` variables; unset or empty ones keep their default.

    Raises:
        SettingsError: a variable has a value that can't be used; the message names the variable.
    """
    values: dict[str, object] = {}
    for name, read in _VARIABLES.items():
        text = environ.get(f"CRA_{name.upper()}", "")
        if not text:
            continue
        try:
            values[name] = read(text)
        except ValueError:
            raise SettingsError(
                f"CRA_{name.upper()} has a value that can't be used", hint=f"give it a {read.__name__} or unset it"
            ) from None
    return RuntimeConfig(**values)  # pyright: ignore[reportArgumentType] - __post_init__ checks the values


class List(tuple[str, ...]):
    """Texts between commas."""

    __slots__ = ()

    def __new__(cls, text: str) -> "List":
        """Read them."""
        return super().__new__(cls, (part.strip() for part in text.split(",") if part.strip()))


class Flag(int):
    """``1`` or ``true``, ``0`` or ``false``; nothing else, so that no slip turns something on."""

    __slots__ = ()

    def __new__(cls, text: str) -> "Flag":
        """Read it."""
        words = {"1": True, "true": True, "0": False, "false": False}
        if text.lower() not in words:
            raise ValueError(text)
        return super().__new__(cls, words[text.lower()])


class Paths(tuple[Path, ...]):
    """Paths between commas."""

    __slots__ = ()

    def __new__(cls, text: str) -> "Paths":
        """Read them."""
        return super().__new__(cls, (Path(part) for part in List(text)))


_VARIABLES: dict[str, type[int] | type[float] | type[str] | type[Path] | type[List] | type[Flag] | type[Paths]] = {
    "data_dir": Path,
    "trace_dir": Path,
    "store": str,
    "agent_id": str,
    "tenant": str,
    "subject": str,
    "roles": List,
    "ttl_seconds": int,
    "recording": str,
    "result_recording": str,
    "detectors": List,
    "redact_patterns": Path,
    "export_to": List,
    "max_parameters_bytes": int,
    "max_recorded_bytes": int,
    "max_result_bytes": int,
    "max_binary_bytes": int,
    "max_concurrency": int,
    "approval_ttl_s": int,
    "max_pending_approvals": int,
    "elicitation_timeout_s": float,
    "allow_self_approval": Flag,
    "allow_private_hosts": List,
    "http_ca_bundle": Path,
    "durability": str,
    "mode": str,
    "policy_files": Paths,
    "overlays": Paths,
    "flush_interval_s": float,
    "max_unflushed_bytes": int,
    "segment_bytes": int,
    "segment_age_s": float,
    "checkpoint_every": int,
    "checkpoint_interval_s": float,
    "checkpoint_to": List,
    "checkpoint_key": str,
    "timestamp_authority": str,
    "timestamp_interval_s": float,
    "timestamp_ca": Path,
    "debug_log": Path,
    "insecure_folders": Flag,
}


def _typed(name: str, value: object, read: type) -> object:
    """A setting in the type it is kept in.

    Raises:
        SettingsError: it has another, from which it can't be told what was meant.
    """
    if read in {List, Paths}:
        _require(isinstance(value, list | tuple), name, f"must be a list of {_MEANT[read]}, not {_kind(value)}")
        items = cast("Sequence[object]", value)
        return tuple(_typed(name, item, Path if read is Paths else str) for item in items)
    if read is Path and isinstance(value, str):
        return Path(value)
    good = isinstance(value, _TAKEN[read]) and (read is Flag or not isinstance(value, bool))
    _require(good, name, f"must be {_MEANT[read]}, not {_kind(value)}")
    return value


def _kind(value: object) -> str:
    return type(value).__name__


_TAKEN: Mapping[type, tuple[type, ...]] = {
    int: (int,), float: (int, float), str: (str,), Path: (Path,), Flag: (bool, int),
}  # fmt: skip
_MEANT: Mapping[type, str] = {
    int: "a whole number", float: "a number", str: "a text", Path: "a path", Flag: "true or false", List: "texts", Paths: "paths",
}  # fmt: skip


def _require(ok: bool, name: str, message: str) -> None:
    if not ok:
        raise SettingsError(f"{name} {message}", hint=f"set {name} or CRA_{name.upper()} to an allowed value")
