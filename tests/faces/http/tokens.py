"""A server whose callers say who they are by a token, and whose limits a test chooses.

python tokens.py ATLAS DATA_DIR LIMITS(JSON)

SIGUSR1 makes it say how much memory its objects take up.
"""

import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import anyio

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.auth.principal import Principal
from cra_mcp.errors import AuthenticationError, ForbiddenError
from cra_mcp.faces.mcp.http.options import HttpOptions, Limits
from cra_mcp.faces.mcp.http.serve import Listening, serve_http
from cra_mcp.faces.mcp.server import ServeOptions


class Tokens:
    """``Bearer <subject>`` or ``Bearer <subject>/<tenant>`` is that principal."""

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind != "Bearer" or not token:
            raise AuthenticationError("no token", challenge='Bearer realm="test"')
        if token == "nobody":  # noqa: S105 - a name
            raise ForbiddenError("none of your roles may call")
        if token == "broken":  # noqa: S105 - a name
            raise RuntimeError("secret of the key store")
        subject, _, tenant = token.partition("/")
        return Principal(subject, tenant=tenant or "default", agent_id=f"agent-of-{subject}", credential="api_key")


def tell_what_is_held(*_: object) -> None:
    """Say how many blocks of memory Python objects take up: what the process keeps of the system's is the allocator's."""
    sys.stdout.write(json.dumps({"blocks": sys.getallocatedblocks()}) + "\n")
    sys.stdout.flush()


def announce(listening: Listening) -> None:
    sys.stdout.write(json.dumps(listening.to_dict()) + "\n")
    sys.stdout.flush()


async def main(atlas: str, data: str, limits: str) -> None:
    runtime = CRARuntime(RuntimeConfig(data_dir=Path(data)))
    runtime.load_atlas(atlas)
    http = HttpOptions(port=0, limits=Limits(**json.loads(limits)))
    async with runtime:
        await serve_http(runtime, ServeOptions(control_tools="all"), http, authenticator=Tokens(), on_ready=announce)


signal.signal(signal.SIGUSR1, tell_what_is_held)
anyio.run(main, *sys.argv[1:4])
