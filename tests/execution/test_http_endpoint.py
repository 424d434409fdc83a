"""Answers, limits, retries and connections: against real services on loopback, most of them bad ones."""

import base64
import gzip
import json
import threading
import time
import tracemalloc
import zlib
from contextlib import suppress

import anyio
import pytest

from cra_mcp.atlas.model import HttpBody, HttpExecutor
from cra_mcp.errors import ExecutionError
from cra_mcp.execution.backend import Result
from cra_mcp.execution.http_endpoint import HttpBackend
from tests.execution.http_service import Handler, Service

pytestmark = pytest.mark.anyio

MIB = 1_048_576
OUTSIDE = HttpBackend(allow_private_hosts=["127.0.0.1"])
"""Never entered: each call has a connection of its own."""


def sender() -> HttpBackend:
    return HttpBackend(allow_private_hosts=["127.0.0.1"])


async def get(kit, service: Service, *, backend: HttpBackend | None = None, fields=None, **options: object) -> Result:
    executor = HttpExecutor(**{"method": "GET", "url": f"{service.url}/x", **options})
    action = kit.action(executor, {"type": "object"}, **(fields or {}))
    return await kit.call(backend or OUTSIDE, action)


async def fails(kit, service: Service, code: str, **options: object) -> ExecutionError:
    with pytest.raises(ExecutionError) as caught:
        await get(kit, service, **options)
    assert caught.value.code == code
    return caught.value


# --- what an answer becomes --------------------------------------------------------------------------------------------


async def test_json_becomes_its_value_and_a_pointer_picks_a_part(kit, service: Service) -> None:
    document = {"data": [{"a/b": {"~": 7}}], "": 1, "big": 2**63}
    service.answer = lambda handler: handler.json(document)
    assert (await get(kit, service)).value == document
    assert (await get(kit, service, result="/data/0/a~1b/~0")).value == 7
    assert (await get(kit, service, result="/")).value == 1
    for missing in ("/none", "/data/1", "/data/-1", "/data/0/a/b", "/data/x"):
        await fails(kit, service, "invalid_result", result=missing)


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/vnd.x+json", "APPLICATION/JSON"])
async def test_every_kind_of_json_is_json(kit, service: Service, kind: str) -> None:
    service.answer = lambda handler: handler.reply(200, b"[1]", content_type=kind)
    assert (await get(kit, service)).value == [1]


@pytest.mark.parametrize("body", [b"{", b"", b"[1] 2", b"\xff", b"NaN"])
async def test_what_only_says_it_is_json_is_an_invalid_result(kit, service: Service, body: bytes) -> None:
    service.answer = lambda handler: handler.reply(200, body, content_type="application/json")
    await fails(kit, service, "invalid_result", result="" if not body else None)


async def test_what_is_nested_too_deep_is_too_large(kit, service: Service) -> None:
    service.answer = lambda handler: handler.reply(200, b"[" * 5_000, content_type="application/json")
    await fails(kit, service, "output_too_large")


async def test_half_a_surrogate_pair_in_json_is_replaced(kit, service: Service) -> None:
    body = b'{"\\udfff": "\\ud83d\\ude00 \\ud800"}'
    service.answer = lambda handler: handler.reply(200, body, content_type="application/json")
    assert (await get(kit, service)).value == {"\ufffd": "\U0001f600 \ufffd"}


async def test_text_is_text_in_its_own_encoding(kit, service: Service) -> None:
    for charset, data in (
        ("iso-8859-1", b"gr\xfc\xdfe \x80"),
        ("utf-8", "grüße €".encode()),
        ("rot13", "grüße €".encode()),
    ):
        kind = f"text/plain; charset={charset}"
        service.answer = lambda handler, kind=kind, data=data: handler.reply(200, data, content_type=kind)
        assert (await get(kit, service)).value == "grüße €"
    await fails(kit, service, "invalid_result", result="/data")


async def test_images_and_other_bytes_become_content(kit, service: Service) -> None:
    for kind, family in (("image/png", "image"), ("audio/wav", "audio"), ("application/pdf", "resource")):
        service.answer = lambda handler, kind=kind: handler.reply(200, b"\x00\xff", content_type=kind)
        (block,) = (await get(kit, service)).content or ()
        assert block["type"] == family
        data = block["data"] if family != "resource" else block["resource"]["blob"]  # type: ignore[index]
        assert base64.b64decode(data) == b"\x00\xff"  # type: ignore[arg-type]


async def test_no_content_is_null_and_head_tells_the_headers(kit, service: Service) -> None:
    service.answer = lambda handler: handler.reply(204)
    assert (await get(kit, service)).value is None
    service.answer = lambda handler: handler.reply(200, x_total="7", set_cookie="a=b")
    value = (await get(kit, service, method="HEAD")).value
    assert value["status"] == 200
    assert value["headers"]["x-total"] == "7"
    assert "set-cookie" not in value["headers"]


async def test_an_error_says_its_status_and_the_beginning_of_its_body(kit, service: Service) -> None:
    service.answer = lambda handler: handler.reply(404, b"n" * 9_000, content_type="text/html")
    result = await get(kit, service)
    assert result.is_error
    assert result.value == {"error": "HTTP 404 Not Found", "status": 404, "body": "n" * 2_000 + " [cut]"}
    service.answer = lambda handler: handler.reply(599, b"\x00" * 100, content_type="image/png")
    assert (await get(kit, service)).value == {"error": "HTTP 599", "status": 599}


# --- limits ------------------------------------------------------------------------------------------------------------


async def test_an_answer_up_to_its_limit_is_read_and_no_further(kit, service: Service) -> None:
    service.answer = lambda handler: handler.reply(200, b"x" * 1_000, content_type="text/plain")
    assert (await get(kit, service, max_response_bytes=1_000)).value == "x" * 1_000
    await fails(kit, service, "output_too_large", max_response_bytes=999)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("status", [200, 500])
async def test_an_endless_answer_is_left(kit, service: Service, packed: bool, status: int) -> None:
    ended = threading.Event()

    def answer(handler: Handler) -> None:
        packer = zlib.compressobj(0, wbits=31) if packed else None
        handler.raw(f"HTTP/1.1 {status} X\r\ncontent-type: text/plain\r\n".encode())
        handler.raw(b"content-encoding: gzip\r\n\r\n" if packed else b"\r\n")
        with suppress(OSError):
            while True:
                data = b"y" * 65_536
                handler.wfile.write(data if packer is None else packer.compress(data))
        ended.set()

    service.answer = answer
    if status == 500:
        assert (await get(kit, service)).value["status"] == 500
    else:
        await fails(kit, service, "output_too_large")
    assert await anyio.to_thread.run_sync(ended.wait, 10)


async def test_a_gzip_bomb_is_never_unpacked_beyond_the_limit(kit, service: Service) -> None:
    bomb = gzip.compress(b"\0" * (100 * MIB), compresslevel=9)
    assert len(bomb) < MIB
    service.answer = lambda handler: handler.reply(200, bomb, content_type="text/plain", content_encoding="gzip")
    await get(kit, service, method="HEAD")  # what is loaded once is loaded before it is measured
    tracemalloc.start()
    try:
        await fails(kit, service, "output_too_large")
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


async def test_packed_members_without_content_end_too(kit, service: Service) -> None:
    empty = gzip.compress(b"") * 50_000
    service.answer = lambda handler: handler.reply(200, empty, content_type="text/plain", content_encoding="gzip")
    await fails(kit, service, "invalid_result")


async def test_packed_answers_are_unpacked(kit, service: Service) -> None:
    parts = gzip.compress(b"one ") + gzip.compress(b"two")
    service.answer = lambda handler: handler.reply(200, parts, content_type="text/plain", content_encoding="gzip")
    assert (await get(kit, service)).value == "one two"
    assert service.asked[0].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("br", b"x"), ("gzip, gzip", gzip.compress(b"x")), ("gzip", b"no gzip"), ("gzip", gzip.compress(b"x" * 999)[:-9])],
    ids=["brotli", "packed twice", "not packed", "cut"],
)
async def test_what_is_packed_otherwise_is_an_invalid_result(kit, service: Service, encoding: str, body: bytes) -> None:
    service.answer = lambda handler: handler.reply(200, body, content_type="text/plain", content_encoding=encoding)
    await fails(kit, service, "invalid_result")


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
BROKEN = {
    "nothing": b"",
    "no http": b"SSH-2.0-OpenSSH_9.6\r\n",
    "half a head": b"HTTP/1.1 200 O",
    "half a body": HEAD + b"content-length: 10\r\n\r\nhalf",
    "chunks of garbage": HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n",
    "a chunk too short": HEAD + b"transfer-encoding: chunked\r\n\r\n10\r\nhello",
    "no last chunk": HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "two lengths": HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\nxx",
    "a bad length": HEAD + b"content-length: -1\r\n\r\nx",
    "a head without end": HEAD + b"x: " + b"y" * 300_000,
    "headers without end": HEAD + b"a: b\r\n" * 60_000,
    "other protocol": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
}


@pytest.mark.parametrize("what", BROKEN)
async def test_a_service_that_breaks_http_ends_its_own_call_only(kit, service: Service, what: str) -> None:
    def answer(handler: Handler) -> None:
        with suppress(OSError):
            handler.raw(BROKEN[what])

    async with sender() as backend:
        service.answer = answer
        error = await fails(kit, service, "upstream_lost", backend=backend)
        assert "\n" not in error.message
        service.answer = lambda handler: handler.json("next")
        assert (await get(kit, service, backend=backend)).value == "next"


# --- time --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before the head", "in the body"])
async def test_the_end_of_a_slow_call_closes_its_connection(kit, service: Service, when: str) -> None:
    closed, waiting = threading.Event(), threading.Event()

    def answer(handler: Handler) -> None:
        if when == "in the body":
            handler.raw(HEAD + b"content-length: 100\r\n\r\nslow")
        waiting.set()
        if handler.closed_by_client():
            closed.set()

    service.answer = answer
    async with sender() as backend:
        async with kit.started(lambda: get(kit, service, backend=backend)) as scope:
            assert await anyio.to_thread.run_sync(waiting.wait, 10)
            before = time.monotonic()
            scope.cancel()
        assert time.monotonic() - before < 2
        assert await anyio.to_thread.run_sync(closed.wait, 10)
        service.answer = lambda handler: handler.json("next")
        assert (await get(kit, service, backend=backend)).value == "next"


async def test_connections_are_used_again_inside_the_context_only(kit, service: Service) -> None:
    async with sender() as backend:
        for _ in range(5):
            await get(kit, service, backend=backend)
        assert service.connections == 1
    for _ in range(2):
        await get(kit, service, backend=backend)
    assert service.connections == 3


async def test_many_calls_at_once_each_get_their_own_answer(kit, service: Service) -> None:
    service.answer = lambda handler: handler.json(handler.path)
    answers: dict[str, object] = {}

    async with sender() as backend:

        async def one(number: int) -> None:
            result = await get(kit, service, backend=backend, url=f"{service.url}/{number}")
            answers[f"/{number}"] = result.value

        async with anyio.create_task_group() as tasks:
            for number in range(110):
                tasks.start_soon(one, number)
    assert answers == {f"/{number}": f"/{number}" for number in range(110)}


# --- retries -----------------------------------------------------------------------------------------------------------


def failing(*statuses: int, **headers: str):
    """Answers with these statuses in turn, then with what came."""
    left = list(statuses)

    def answer(handler: Handler) -> None:
        status = left.pop(0) if left else 200
        handler.json({"status": status}, status=status, **(headers if status != 200 else {}))

    return answer


AGAIN = {"idempotent": True}


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_an_idempotent_action_is_tried_again(kit, service: Service, status: int) -> None:
    service.answer = failing(status, status)
    before = time.monotonic()
    assert (await get(kit, service, fields=AGAIN)).value == {"status": 200}
    assert len(service.asked) == 3
    assert time.monotonic() - before >= 0.7  # 0.25 s, then 0.5 s


async def test_it_is_tried_no_more_often_than_it_says(kit, service: Service) -> None:
    service.answer = failing(*[503] * 9)
    for retries in (0, 1):
        service.asked.clear()
        assert (await get(kit, service, fields=AGAIN, retries=retries)).value["status"] == 503
        assert len(service.asked) == retries + 1


@pytest.mark.parametrize("status", [400, 401, 404, 408, 409, 500, 501])
async def test_other_errors_are_final(kit, service: Service, status: int) -> None:
    service.answer = failing(status)
    assert (await get(kit, service, fields=AGAIN)).value["status"] == status
    assert len(service.asked) == 1


async def test_an_action_that_is_not_idempotent_is_never_tried_again(kit, service: Service) -> None:
    service.answer = failing(503)
    assert (await get(kit, service, method="POST", body=HttpBody({}), retries=5)).value["status"] == 503
    assert len(service.asked) == 1


async def test_a_call_that_may_have_been_carried_out_is_never_tried_again(kit, service: Service) -> None:
    service.answer = lambda handler: handler.raw(b"")
    await fails(kit, service, "upstream_lost", fields=AGAIN)
    assert len(service.asked) == 1


async def test_a_service_that_comes_up_late_is_reached(kit, service: Service) -> None:
    attempts: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        attempts.append(host)
        if len(attempts) < 3:
            raise OSError
        return ["127.0.0.1"]

    backend = HttpBackend(allow_private_hosts=["a.test"], resolve=resolve)
    assert (await get(kit, service, backend=backend, url=service.at("a.test"), fields=AGAIN)).value == {"ok": True}
    attempts.clear()
    await fails(kit, service, "upstream_unavailable", backend=backend, url=service.at("a.test"))
    assert len(attempts) == 1


async def test_a_service_may_ask_for_patience_within_the_time_there_is(kit, service: Service) -> None:
    service.answer = failing(429, retry_after="1")
    before = time.monotonic()
    assert (await get(kit, service, fields=AGAIN)).value == {"status": 200}
    assert time.monotonic() - before >= 1
    service.asked.clear()
    service.answer = failing(503, retry_after="20")
    before = time.monotonic()
    with anyio.fail_after(10):
        assert (await get(kit, service, fields=AGAIN)).value["status"] == 503
    assert time.monotonic() - before < 5
    assert len(service.asked) == 1


@pytest.mark.parametrize("asked", ["Sat, 21 Nov 2015 00:00:00 GMT", "soon", "-5", "1e9"])
async def test_any_retry_after_is_understood_or_ignored(kit, service: Service, asked: str) -> None:
    service.answer = failing(503, retry_after=asked)
    assert (await get(kit, service, fields=AGAIN)).value == {"status": 200}


async def test_every_attempt_of_a_change_has_the_same_key(kit, service: Service) -> None:
    service.answer = failing(503)
    await get(kit, service, method="PUT", body=HttpBody({"a": 1}), fields=AGAIN)
    assert [asked.headers["idempotency-key"] for asked in service.asked] == ["execution", "execution"]
    assert [json.loads(asked.body) for asked in service.asked] == [{"a": 1}, {"a": 1}]
    await get(kit, service)
    assert "idempotency-key" not in service.asked[-1].headers
