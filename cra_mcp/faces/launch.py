"""The entry point: the command line together with the commands that speak MCP.

Rule: the only place that knows several faces. MCP is imported when a command that speaks it runs, not before.
"""

import gc
import os
import sys
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cra_mcp.errors import SettingsError
from cra_mcp.faces.cli.app import build, run
from cra_mcp.faces.cli.options import (
    AgentId,
    AsJson,
    Atlases,
    DataDir,
    Goal,
    Overlays,
    PolicyFiles,
    Store,
    TraceDir,
    config_of,
)
from cra_mcp.faces.cli.output import emit_json, flush, say

if TYPE_CHECKING:
    from cra_mcp.auth.options import AuthOptions
    from cra_mcp.compose import CRARuntime
    from cra_mcp.faces.mcp.http.serve import Listening
    from cra_mcp.faces.metrics import Metrics
    from cra_mcp.settings import RuntimeConfig

METRICS_PATH = "/metrics"

ControlTools = Literal["none", "default", "all"]

_SERVE_EXAMPLES = (
    "cra-mcp serve --atlas customer-support",
    "cra-mcp serve --atlas ./my-atlas --atlas devops --agent-id ci --control-tools none",
    "cra-mcp serve --atlas customer-support --transport streamable-http --port 8765",
    "cra-mcp serve --atlas customer-support --transport streamable-http --require-key",
    "cra-mcp serve --atlas devops --checkpoint-to folder:/mnt/worm --checkpoint-to https://audit.example/checkpoints",
    "cra-mcp serve --atlas devops --timestamp-authority https://tsa.example/tsr --tsa-ca tsa-root.pem",
    "cra-mcp serve --atlas customer-support --policy ./mine.yaml --overlay ./compliance",
)
_DEMO_EXAMPLES = ("cra-mcp demo", "cra-mcp demo --dir ./demo")


def serve(
    atlas: Atlases,
    transport: Annotated[
        Literal["stdio", "streamable-http", "sse"],
        typer.Option(help="How the host connects. The two over HTTP start the same server, which speaks both."),
    ] = "stdio",
    host: Annotated[str, typer.Option(help="Name or address to listen on, over HTTP.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on, over HTTP; 0 takes a free one.")
    ] = 8765,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Further name clients reach the server by. Can be repeated."),
    ] = None,
    allowed_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Web origin whose pages may call. Can be repeated."),
    ] = None,
    insecure_allow_anonymous: Annotated[
        bool,
        typer.Option("--insecure-allow-anonymous", help="Answer callers without credentials on any address."),
    ] = False,
    require_key: Annotated[
        bool, typer.Option("--require-key", help="Over HTTP: callers need an API key (`cra-mcp keys`), or a token.")
    ] = False,
    jwt_issuer: Annotated[
        str | None, typer.Option(metavar="URL", help="Over HTTP: issuer whose tokens (JWT) callers may bring.")
    ] = None,
    jwks: Annotated[str | None, typer.Option(metavar="URL|FILE", help="Where that issuer's public keys are.")] = None,
    public_url: Annotated[
        str | None, typer.Option(metavar="URL", help="URL clients know the server by; tokens must name it as audience.")
    ] = None,
    require_scope: Annotated[
        list[str] | None, typer.Option(metavar="SCOPE", help="Scope a token must have. Can be repeated.")
    ] = None,
    agent_id: AgentId = None,
    goal: Goal = "",
    control_tools: Annotated[ControlTools, typer.Option(help="Which cra_ tools the agent gets.")] = "default",
    record: Annotated[
        Literal["none", "hash", "redacted", "full"] | None,
        typer.Option(help="What traces keep of parameters. Default: CRA_RECORDING, or redacted."),
    ] = None,
    record_results: Annotated[
        Literal["none", "hash", "redacted", "full"] | None,
        typer.Option(help="What traces keep of results. Default: CRA_RESULT_RECORDING, or hash."),
    ] = None,
    allow_private_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST[:PORT]",
            help="Host an atlas names whose address may be private. Can be repeated. Default: CRA_ALLOW_PRIVATE_HOSTS.",
        ),
    ] = None,
    export: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TO[#FORMAT]",
            help="Send events, while they are made, to otlp+http://HOST:4318, syslog[+tcp|+tls]://HOST:PORT, file:PATH or "
            "command:PROGRAM. Can be repeated. Formats as of `trace export`. Default: CRA_EXPORT_TO.",
        ),
    ] = None,
    checkpoint_to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TARGET",
            help="Copy checkpoints to folder:PATH, https://HOST/PATH, syslog+udp://HOST, syslog+tcp://HOST, syslog:///dev/log or "
            "command:PROGRAM. Can be repeated. Default: CRA_CHECKPOINT_TO.",
        ),
    ] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(metavar="EVENTS", help="Make one after so many events (1000); 0 turns them off.")
    ] = None,
    checkpoint_interval: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Make one after so long (60), and at the end of a session.")
    ] = None,
    checkpoint_key: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Key that signs them: file:PATH, env:NAME or keyring:SERVICE/NAME. Default: one made in the data folder.",
        ),
    ] = None,
    timestamp_authority: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Have checkpoints dated by this time-stamping authority (RFC 3161; cra-mcp[timestamps]). Default: "
            "CRA_TIMESTAMP_AUTHORITY.",
        ),
    ] = None,
    timestamp_interval: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Ask it at most so often (15), and at the end.")
    ] = None,
    tsa_ca: Annotated[
        Path | None,
        typer.Option(
            "--tsa-ca", metavar="FILE", help="Keep its answers only if these certificates (PEM) vouch for them."
        ),
    ] = None,
    mode: Annotated[
        Literal["enforce", "shadow"] | None,
        typer.Option(
            help="Refuse what policies deny, or in shadow only what the operator denies, recording what would have been decided. "
            "Default: CRA_MODE, or enforce."
        ),
    ] = None,
    policy: PolicyFiles = None,
    overlay: Overlays = None,
    data_dir: DataDir = None,
    trace_dir: TraceDir = None,
    store: Store = None,
    watch: Annotated[
        bool, typer.Option("--watch/--no-watch", help="Load atlases and policies again when their files are edited.")
    ] = True,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Over HTTP: answer /metrics, for Prometheus (cra-mcp[prometheus]).")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every call to stderr.")] = False,
    debug_log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Append to FILE (mode 0600) what logs leave out: tracebacks, messages of other libraries, and what upstreams "
            "write to standard error. It can hold parameters, results and secrets. Default: CRA_DEBUG_LOG, or nowhere.",
        ),
    ] = None,
    insecure_folders: Annotated[
        bool, typer.Option("--insecure-folders", help="Use folders that others than their owner can write to.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Over HTTP: print the addresses on stdout as one line of JSON.")
    ] = False,
) -> None:
    """Serve the actions of atlases to an MCP host.

    A host starts this and speaks to it over standard input and output; in a terminal it waits. Over HTTP it prints its address and
    runs until it is stopped. Log lines go to stderr.
    """
    from cra_mcp.faces import logs  # noqa: PLC0415 - not for --help
    from cra_mcp.faces.cli.shipped import atlas_path  # noqa: PLC0415 - as said

    config = config_of(
        data_dir=data_dir,
        trace_dir=trace_dir,
        store=store,
        recording=record,
        result_recording=record_results,
        agent_id=agent_id,
        allow_private_hosts=tuple(allow_private_host) if allow_private_host else None,
        export_to=tuple(export) if export else None,
        checkpoint_to=tuple(checkpoint_to) if checkpoint_to else None,
        checkpoint_every=checkpoint_every,
        checkpoint_interval_s=checkpoint_interval,
        checkpoint_key=checkpoint_key,
        timestamp_authority=timestamp_authority,
        timestamp_interval_s=timestamp_interval,
        timestamp_ca=tsa_ca,
        policy_files=policy,
        overlays=overlay,
        mode=mode,
        debug_log=debug_log,
        insecure_folders=insecure_folders or None,
    )
    if config.mode == "shadow":
        say(
            "shadow mode: nothing is refused but what the operator's policy files and overlays deny; decisions are only recorded"
        )
    paths = [atlas_path(text) for text in atlas]
    if metrics and transport == "stdio":
        raise SettingsError("metrics are answered over HTTP", hint="add --transport streamable-http")
    logs.to_stderr(verbose=verbose, debug=config.debug_log)
    if transport == "stdio" and sys.stdin.isatty():
        say("waiting for an MCP host on standard input; Ctrl-C ends")

    import anyio  # noqa: PLC0415 - not for --help

    listen = {
        "host": host,
        "port": port,
        "allowed_hosts": tuple(allowed_host or ()),
        "allowed_origins": tuple(allowed_origin or ()),
        "allow_anonymous": insecure_allow_anonymous,
    }
    from cra_mcp.auth.options import AuthOptions  # noqa: PLC0415 - not for --help

    auth = AuthOptions(
        api_keys=require_key,
        issuer=jwt_issuer,
        jwks=jwks,
        public_url=public_url,
        scopes=tuple(require_scope or ()),
        tenant=config.tenant,
    )
    try:
        if transport == "stdio":
            anyio.run(_serve_stdio, config, paths, watch, goal, control_tools)
        else:
            anyio.run(_serve_http, config, paths, watch, goal, control_tools, listen, auth, metrics, as_json)
    finally:
        # Everything is closed. Collecting the thousands of objects of what was imported takes half a second, for nothing.
        gc.freeze()


async def _serve_stdio(
    config: "RuntimeConfig", paths: Sequence[Path], watch: bool, goal: str, control_tools: ControlTools
) -> None:
    async with _running(config, paths, watch) as runtime:
        from cra_mcp.faces.mcp.server import ServeOptions  # noqa: PLC0415 - a bad atlas is told before this second of imports
        from cra_mcp.faces.mcp.stdio import serve_stdio  # noqa: PLC0415 - as said
        from cra_mcp.faces.mcp.stopping import ignore_termination  # noqa: PLC0415 - as said

        try:
            await serve_stdio(runtime, ServeOptions(goal=goal, control_tools=control_tools))
        finally:
            ignore_termination()


async def _serve_http(
    config: "RuntimeConfig",
    paths: Sequence[Path],
    watch: bool,
    goal: str,
    control_tools: ControlTools,
    listen: dict[str, Any],
    auth: "AuthOptions",
    metrics: bool,
    as_json: bool,
) -> None:
    def announce(listening: "Listening") -> None:
        say(f"serving MCP at {listening.url}/mcp and {listening.url}/sse; Ctrl-C ends")
        if as_json:
            emit_json(listening.to_dict(), indent=False)
            flush()

    async with _running(config, paths, watch) as runtime:
        from cra_mcp.compose import open_keys  # noqa: PLC0415 - a bad atlas is told before this second of imports
        from cra_mcp.faces.mcp.http.options import HttpOptions, limits_from_environment  # noqa: PLC0415 - as said
        from cra_mcp.faces.mcp.http.serve import serve_http  # noqa: PLC0415 - as said
        from cra_mcp.faces.mcp.server import ServeOptions  # noqa: PLC0415 - as said

        with closing(open_keys(config)) as keys:
            await serve_http(
                runtime,
                ServeOptions(goal=goal, control_tools=control_tools),
                HttpOptions(**listen, limits=limits_from_environment(os.environ)),
                authenticator=auth.authenticator(keys),
                resource=auth.resource,
                protected={METRICS_PATH: _metrics(runtime)} if metrics else {},
                on_ready=announce,
            )


def _metrics(runtime: "CRARuntime") -> "Metrics":
    from cra_mcp.faces.metrics import Metrics  # noqa: PLC0415 - only where they are wanted

    return Metrics(runtime, runtime.exports)


@asynccontextmanager
async def _running(config: "RuntimeConfig", paths: Sequence[Path], watch: bool) -> AsyncGenerator["CRARuntime"]:
    """A runtime with its atlases, loaded again when they are edited."""
    import asyncio  # noqa: PLC0415 - not for --help

    from cra_mcp.compose import CRARuntime  # noqa: PLC0415 - not for --help
    from cra_mcp.faces.reloading import Reloader, look_at  # noqa: PLC0415 - as said

    governing = (*config.policy_files, *config.overlays)
    looks = {path: look_at(path) for path in (*governing, *paths)}
    runtime = CRARuntime(config)
    if runtime.checkpointer is not None:
        runtime.checkpointer.prepare()  # a key that can't be used is told now
    overlays = {overlay.overlay_id: path for overlay, path in zip(runtime.overlays(), governing, strict=True)}
    loaded = {runtime.load_atlas(path).atlas_id: path for path in paths}
    async with runtime:
        # On a thread of its own: it reads whole traces, and nobody waits for it.
        threading.Thread(target=runtime.end_abandoned, name="cra-abandoned", daemon=True).start()
        watching = asyncio.create_task(Reloader(runtime, loaded, looks, overlays=overlays).run()) if watch else None
        try:
            yield runtime
        finally:
            if watching is not None:
                watching.cancel()
                await asyncio.wait({watching})


def demo(
    folder: Annotated[
        Path | None,
        typer.Option("--dir", help="Keep database, traces and approvals here. Default: a temporary folder."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Watch a governed agent: allowed, denied, approved, recorded.

    Starts the real server as a process of its own and drives it with a real MCP client, as a host would. Needs no network;
    takes a few seconds. Exit code 1 if anything is not as expected.
    """
    from cra_mcp.faces.demo import play  # noqa: PLC0415 - not for --help

    raise typer.Exit(play(folder, as_json=as_json))


app = build(((demo, _DEMO_EXAMPLES), (serve, _SERVE_EXAMPLES)))


def main() -> None:
    """Run the command line."""
    run(app)
