"""Prometheus metrics of a runtime.

Rule: labels come from fixed lists (statuses, codes), so that their number is bounded whatever callers do: no agent, no session, no
tool, nothing that was sent. Source: specs/observability.md, "Metrics".
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response

import cra_mcp
from cra_mcp.auth.principal import Principal
from cra_mcp.auth.roles import may
from cra_mcp.errors import CRAError, SettingsError
from cra_mcp.runtime import Runtime
from cra_mcp.runtime.observing import Observation
from cra_mcp.trace.checkpointing import CheckpointCounts
from cra_mcp.trace.export.live import LiveExport

if TYPE_CHECKING:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from starlette.types import Receive, Scope, Send

_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_STORE_AGE_S: Final = 10.0


class Metrics:
    """The ASGI app at ``/metrics``. Measures from when it is made until it is closed.

    Raises:
        SettingsError: ``missing_extra``: the package that writes the format is not installed.
    """

    def __init__(self, runtime: Runtime, exports: Sequence[LiveExport] = ()) -> None:
        try:
            import prometheus_client  # noqa: PLC0415 - an extra
        except ModuleNotFoundError as error:
            raise SettingsError(
                "metrics need a package that is not installed",
                code="missing_extra",
                hint="install cra-mcp[prometheus]",
            ) from error
        self._client = prometheus_client
        self._registry = prometheus_client.CollectorRegistry()
        self._calls = prometheus_client.Counter(
            "cra_calls", "Calls of actions that have ended, by outcome.", ["status", "code"], registry=self._registry
        )
        self._seconds = prometheus_client.Histogram(
            "cra_call_duration_seconds",
            "From the gate's door to its answer, waiting for people included.",
            ["status"],
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        prometheus_client.Info("cra", "What runs.", registry=self._registry).info({"version": cra_mcp.__version__})
        self._registry.register(_Exporting(exports))  # pyright: ignore[reportArgumentType] - as below
        self._registry.register(_Standing(runtime))  # pyright: ignore[reportArgumentType] - it has collect(), which is what counts
        self._end: Callable[[], None] = runtime.observe(self._observe)

    def close(self) -> None:
        """Measure no more."""
        self._end()

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer one scrape."""
        request = Request(scope, receive)
        if request.method not in {"GET", "HEAD"}:
            await Response(status_code=405, headers={"allow": "GET, HEAD"})(scope, receive, send)
            return
        if not _may_see(scope):
            await Response("none of your roles may see metrics\n", 403)(scope, receive, send)
            return
        # Reading the store and the approvals may wait for a disk.
        page = await anyio.to_thread.run_sync(
            self._client.generate_latest, self._registry, limiter=anyio.CapacityLimiter(1)
        )
        response = Response(
            page, headers={"content-type": self._client.CONTENT_TYPE_LATEST, "cache-control": "no-store"}
        )
        await response(scope, receive, send)

    def _observe(self, observation: Observation) -> None:
        self._calls.labels(observation.status, observation.code).inc()
        self._seconds.labels(observation.status).observe(observation.duration_s)


def _may_see(scope: "Scope") -> bool:
    """Totals are of all tenants' calls: of callers with a credential, only operators may see them."""
    principal = scope.get("cra.principal")
    if not isinstance(principal, Principal) or principal.credential in {"anonymous", "local"}:
        return True
    return may(principal, "read_metrics")


class _Exporting:
    """What became of exported events; sinks are named by their place in the operator's list and their kind."""

    def __init__(self, exports: Sequence[LiveExport]) -> None:
        self._exports = exports

    def describe(self) -> "list[GaugeMetricFamily]":
        """Nothing is collected when the collector is registered."""
        return []

    def collect(self) -> "Iterator[GaugeMetricFamily | CounterMetricFamily]":
        """The counters of all sinks, and how much waits for each."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415 - an extra

        if not self._exports:
            return
        ended = CounterMetricFamily("cra_export_events", "Events an export is done with.", labels=["sink", "result"])
        waiting = GaugeMetricFamily("cra_export_waiting", "Events that wait for an export.", labels=["sink"])
        for number, export in enumerate(self._exports):
            sink = f"{number}:{export.name.partition(':')[0]}"
            for result, count in (("sent", export.sent), ("dead_letter", export.dead), ("dropped", export.dropped)):
                ended.add_metric([sink, result], count)
            waiting.add_metric([sink], export.waiting)
        yield ended
        yield waiting


class _Standing:
    """What stands at the time of a scrape; the store is looked through every ten seconds at most."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lock = threading.Lock()
        self._store: tuple[float, int, int] = (0.0, 0, 0)
        self._looked = False

    def describe(self) -> "list[GaugeMetricFamily]":
        """Nothing is collected when the collector is registered."""
        return []

    def collect(self) -> "Iterator[GaugeMetricFamily]":
        """The gauges. One that can't be read is left out: its absence is what to alert on."""
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415 - an extra

        runtime = self._runtime
        gauges: tuple[tuple[str, str, Callable[[], int]], ...] = (
            ("cra_sessions_active", "Sessions that have not ended.", runtime.active_sessions),
            ("cra_atlases", "Loaded atlases.", lambda: len(runtime.atlases())),
            (
                "cra_actions",
                "Actions of the loaded atlases.",
                lambda: sum(len(each.actions) for each in runtime.atlases()),
            ),
            ("cra_approvals_pending", "Approvals nobody has settled yet.", lambda: len(runtime.pending_approvals())),
            ("cra_store_traces", "Traces in the store.", lambda: self._look()[1]),
            ("cra_store_bytes", "Size of the traces in the store.", lambda: self._look()[2]),
        )
        for name, text, read in gauges:
            try:
                yield GaugeMetricFamily(name, text, value=read())
            except CRAError:
                continue

        counts = runtime.checkpoint_counts()
        if counts is not None:
            for name, text, value in _of_checkpoints(counts):
                yield GaugeMetricFamily(name, text, value=value)

    def _look(self) -> tuple[float, int, int]:
        with self._lock:
            if not self._looked or time.monotonic() - self._store[0] > _STORE_AGE_S:
                traces = self._runtime.list_traces()
                self._store = (time.monotonic(), len(traces), sum(info.size_bytes for info in traces))
                self._looked = True
            return self._store


def _of_checkpoints(counts: CheckpointCounts) -> tuple[tuple[str, str, int], ...]:
    """Sums over all sinks: their names are the operator's, and no label."""
    sinks, stamps = counts.sinks, counts.timestamps
    stamped = (
        (
            ("cra_checkpoint_timestamps", "Timestamps the authority gave.", stamps.delivered),
            ("cra_checkpoint_timestamps_failed", "Attempts to get one that failed.", stamps.failures),
            ("cra_checkpoint_timestamps_waiting", "Sessions whose last checkpoint has none yet.", stamps.waiting),
        )
        if stamps is not None
        else ()
    )
    return (
        *stamped,
        ("cra_checkpoints_signed", "Checkpoints made since the start.", counts.signed),
        ("cra_checkpoints_failed", "Attempts to make one that failed.", counts.failures),
        ("cra_checkpoint_copies_delivered", "Copies that arrived.", sum(sink.delivered for sink in sinks)),
        ("cra_checkpoint_copies_failed", "Attempts to deliver one that failed.", sum(sink.failures for sink in sinks)),
        (
            "cra_checkpoint_copies_dropped",
            "Copies given up because a queue was full.",
            sum(sink.dropped for sink in sinks),
        ),
        ("cra_checkpoint_copies_waiting", "Copies that have not arrived yet.", sum(sink.waiting for sink in sinks)),
    )
