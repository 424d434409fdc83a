"""What is posted: one JSON-RPC message.

Rule: what is refused is refused before anything is begun, and never repeated.
"""

from typing import Final

import mcp_types as t
import orjson
from starlette.requests import Request

from cra_mcp.faces.mcp.half_pairs import call_with_half_pairs
from cra_mcp.faces.mcp.http.answers import Refusal, RefusedError

_WRONG_TYPE: Final = Refusal(415, "wrong_content_type", "a message is JSON", "send application/json")
_NOT_A_MESSAGE: Final = Refusal(
    400,
    "not_a_message",
    "the body is not one JSON-RPC 2.0 message of plain JSON, its id a text or a whole number",
    "send one message a request",
)


async def posted(request: Request) -> t.JSONRPCMessage:
    """The message of a POST.

    Raises:
        RefusedError: there is none.
    """
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise RefusedError(_WRONG_TYPE)
    return _message(await request.body())


def _message(body: bytes) -> t.JSONRPCMessage:
    try:
        message = t.jsonrpc_message_adapter.validate_json(body, by_name=False)
        # A request whose id has a wrong type reads as a notification, which nobody would ever answer.
        if isinstance(message, t.JSONRPCNotification) and b'"id"' in body and "id" in orjson.loads(body):
            raise RefusedError(_NOT_A_MESSAGE)
    except ValueError:
        call = call_with_half_pairs(body)
        if call is None:
            raise RefusedError(_NOT_A_MESSAGE) from None
        return call
    return message
