"""The ids of requests: what a client calls each of its requests, and what we call it.

Rule: a request has a key of ours from when it is read until it is answered, so that two with one id never share anything. Where
nothing but the id tells them apart (a pipe, the SSE transport), the second is refused; over Streamable HTTP each has its POST.
``1`` and ``"1"`` are two ids. Source: JSON-RPC 2.0, section 4; specs/mcp.md, "Ids of requests".
"""

import itertools
from dataclasses import dataclass
from typing import Final, Self

import mcp_types as t

CANCELLED: Final = "notifications/cancelled"
DUPLICATE: Final = "duplicate_request_id"


class RequestKey(str):
    """What we call a request.

    Attributes:
        wire: what its client calls it.
        duplicate: its client has another one under way that nothing tells from this one, which is therefore refused.
    """

    __slots__ = ("duplicate", "wire")
    wire: t.RequestId
    duplicate: bool

    def __new__(cls, number: int, wire: t.RequestId, *, duplicate: bool = False) -> Self:
        """The key of one request."""
        made = super().__new__(cls, number)
        made.wire = wire
        made.duplicate = duplicate
        return made


def wire_id(request_id: t.RequestId) -> t.RequestId:
    """What its client calls a request that may have a key of ours."""
    return request_id.wire if isinstance(request_id, RequestKey) else request_id


def is_duplicate(request_id: t.RequestId | None) -> bool:
    """Whether a request is to be refused for its id."""
    return isinstance(request_id, RequestKey) and request_id.duplicate


@dataclass(frozen=True, slots=True)
class _UnderWay:
    wire: t.RequestId
    token: t.ProgressToken | None


class RequestIds:
    """The requests under way on one connection, or in one MCP session.

    Args:
        alone: nothing but the id tells requests apart: one id, or one progress token, is one request's only.
    """

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone
        self._numbers = itertools.count(1)
        self._under_way: dict[str, _UnderWay] = {}
        self._keys: dict[t.RequestId, list[str]] = {}
        self._tokens: set[t.ProgressToken] = set()

    def take(self, request: t.JSONRPCRequest) -> t.JSONRPCRequest:
        """A request under its key. If its progress token is another's, it does without: nothing could tell whose a report is."""
        wire = request.id
        key = RequestKey(next(self._numbers), wire, duplicate=self._alone and wire in self._keys)
        if not key.duplicate:
            self._keys.setdefault(wire, []).append(key)
        token = _token(request)
        taken = request.model_copy(update={"id": key})
        if self._alone and token is not None:
            if token in self._tokens:
                taken, token = _without_token(taken), None
            else:
                self._tokens.add(token)
        self._under_way[key] = _UnderWay(wire, token if self._alone else None)
        return taken

    def settle(self, key: str) -> t.RequestId | None:
        """A request is answered, or never will be. Its id; None if it was not under way."""
        found = self._under_way.pop(key, None)
        if found is None:
            return None
        self._free(found.wire, key)
        if found.token is not None:
            self._tokens.discard(found.token)
        return found.wire

    def named(self, notification: t.JSONRPCNotification) -> list[str]:
        """The keys of the requests under way that a cancellation may mean."""
        name: object = (notification.params or {}).get("requestId")
        if not isinstance(name, str | int) or isinstance(name, bool):
            return []
        return list(self._keys.get(name, ()))

    def give_up(self, notification: t.JSONRPCNotification, key: str) -> t.JSONRPCNotification:
        """A cancellation, of the request with this key. Its client expects no answer, and may use the id again."""
        found = self._under_way.get(key)
        if found is not None:
            self._free(found.wire, key)
        return notification.model_copy(update={"params": {**(notification.params or {}), "requestId": key}})

    def _free(self, wire: t.RequestId, key: str) -> None:
        keys = self._keys.get(wire, [])
        if key in keys:
            keys.remove(key)
        if not keys:
            self._keys.pop(wire, None)


def answered(message: t.JSONRPCMessage) -> str | None:
    """The key of the request that a message answers; None if it is no answer."""
    if isinstance(message, t.JSONRPCResponse | t.JSONRPCError) and message.id is not None:
        return str(message.id)
    return None


def _token(request: t.JSONRPCRequest) -> t.ProgressToken | None:
    match request.params:
        case {"_meta": {"progressToken": str() | int() as token}} if not isinstance(token, bool):
            return token
        case _:
            return None


def _without_token(request: t.JSONRPCRequest) -> t.JSONRPCRequest:
    params = request.params or {}
    rest = {name: value for name, value in params["_meta"].items() if name != "progressToken"}
    return request.model_copy(update={"params": {**params, "_meta": rest}})
