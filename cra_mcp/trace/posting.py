"""One POST to a service the operator named.

Rule: each silence is bounded, and so are size and time of what is read of an answer; no redirect is followed, and nothing that is
not 2xx is a success.
"""

import http.client
import ssl
import time
from collections.abc import Mapping
from contextlib import closing
from urllib.parse import SplitResult

TIMEOUT_S = 10.0
"""Of the connection, of each silence, and of reading an answer's content as a whole."""

_PART_BYTES = 4_096


def post(url: SplitResult, body: bytes, headers: Mapping[str, str], *, max_answer_bytes: int = 0) -> bytes:
    """Post ``body`` and read the answer's content, which is left unread where ``max_answer_bytes`` is 0.

    Raises:
        OSError: it can't be reached, takes too long, answers with anything but 2xx, or with more than was allowed.
    """
    host = url.hostname or ""
    if url.scheme == "https":
        connection = http.client.HTTPSConnection(
            host, url.port, timeout=TIMEOUT_S, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(host, url.port, timeout=TIMEOUT_S)
    with closing(connection):
        try:
            connection.request("POST", (url.path or "/") + (f"?{url.query}" if url.query else ""), body, dict(headers))
            with closing(connection.getresponse()) as response:
                if not http.client.OK <= response.status < http.client.MULTIPLE_CHOICES:
                    raise OSError(f"answered {response.status}")
                return read_answer(response, max_answer_bytes) if max_answer_bytes else b""
        except http.client.HTTPException as error:
            raise OSError(f"no HTTP answer ({type(error).__name__})") from error


def read_answer(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    """The content of an answer.

    Raises:
        OSError: it is longer, or takes too long.
    """
    deadline = time.monotonic() + TIMEOUT_S
    data = b""
    while part := response.read1(_PART_BYTES):
        data += part
        if len(data) > max_bytes:
            raise OSError(f"answered with more than {max_bytes} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("did not end its answer in time")
    response.close()  # some versions of Python do so themselves; else the connection takes no further request
    return data
