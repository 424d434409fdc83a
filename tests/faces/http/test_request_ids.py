"""Requests that share an id: over HTTP an answer belongs to its POST; on the SSE transport only the id tells them apart."""

import http.client
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.faces.http.conftest import HttpServer
from tests.faces.http.test_front_door import ACCEPT, META

CLIENT = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"elicitation": {}},
    "clientInfo": {"name": "t", "version": "1"},
}
APPROVE = {"action": "accept", "content": {"approve": True}}


@dataclass
class Stream:
    """What comes back on one POST, or on one SSE connection."""

    answer: http.client.HTTPResponse
    ends_at: float = field(default_factory=lambda: time.monotonic() + 60)
    """What is not here by then doesn't come: the server's pings would keep a reader waiting for ever."""

    def next(self) -> dict[str, Any]:
        """The next message; the end of the stream is a failure."""
        for line in self._lines():
            if line.startswith(b"data: {"):
                return json.loads(line[6:])
        raise AssertionError("the stream has ended")

    def rest(self) -> list[dict[str, Any]]:
        """All that is still to come on a POST."""
        return [json.loads(line[6:]) for line in self._lines() if line.startswith(b"data: {")]

    def _lines(self) -> Iterator[bytes]:
        while line := self.answer.readline():
            assert time.monotonic() < self.ends_at, "the stream goes on, and holds no message"
            yield line


@dataclass
class Session:
    """One MCP session of the 2025 era, by hand."""

    port: int
    session_id: str | None = None

    @contextmanager
    def post(self, message: object, **headers: str) -> Iterator[http.client.HTTPResponse]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            sent = {"Content-Type": "application/json", "Accept": ACCEPT, **headers}
            if self.session_id is not None:
                sent["Mcp-Session-Id"] = self.session_id
            body = message if isinstance(message, bytes) else json.dumps(message).encode()
            connection.request("POST", "/mcp", body, sent)
            yield connection.getresponse()

    @contextmanager
    def call(self, name: str, arguments: object, request_id: object = 1, **more: object) -> Iterator[Stream]:
        with self.post(called(name, arguments, request_id, **more)) as answer:
            assert answer.status == 200
            yield Stream(answer)

    def tell(self, message: object) -> tuple[int, bytes]:
        with self.post(message) as answer:
            return answer.status, answer.read()

    def settle(self, question: dict[str, Any]) -> None:
        assert self.tell({"jsonrpc": "2.0", "id": question["id"], "result": APPROVE})[0] == 202


def called(name: str, arguments: object, request_id: object = 1, **more: object) -> dict[str, Any]:
    params = {"name": name, "arguments": arguments, **more}
    return {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}


def cancelled(request_id: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}}


def begin(server: HttpServer) -> Session:
    session = Session(server.port)
    with session.post({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": CLIENT}) as answer:
        assert Stream(answer).next()["id"] == 1
        session.session_id = answer.headers["Mcp-Session-Id"]
    assert session.tell({"jsonrpc": "2.0", "method": "notifications/initialized"})[0] == 202
    return session


@pytest.fixture
def session(shared: HttpServer) -> Session:
    return begin(shared)


def echoed(answer: dict[str, Any]) -> Any:
    return json.loads(answer["result"]["content"][0]["text"])["echo"]


def test_two_posts_with_one_id_get_their_own_question_and_their_own_answer(session: Session) -> None:
    with session.call("tool_pay", {"to": "ann"}) as first, session.call("tool_pay", {"to": "bob"}) as second:
        questions = first.next(), second.next()
        assert questions[0]["id"] != questions[1]["id"]
        assert ["ann" in str(question) for question in questions] == [True, False]
        session.settle(questions[1])
        answer = second.next()
        assert (answer["id"], echoed(answer)) == (1, {"to": "bob"})
        session.settle(questions[0])
        answer = first.next()
        assert (answer["id"], echoed(answer)) == (1, {"to": "ann"})
        assert first.rest() == second.rest() == []


def test_two_posts_with_one_id_and_one_progress_token_get_their_own_progress(session: Session) -> None:
    token = {"_meta": {"progressToken": 1}}
    with session.call("tool_steps", {}, **token) as first, session.call("tool_steps", {}, **token) as second:
        for stream in (first, second):
            said = stream.rest()
            assert [each["params"]["progress"] for each in said[:-1]] == [1, 2, 3]
            assert said[-1]["id"] == 1


@pytest.mark.parametrize("era", ["2025", "2026"])
def test_many_posts_with_one_id_each_get_their_own_answer(session: Session, shared: HttpServer, era: str) -> None:
    def ask(number: int) -> Any:
        if era == "2025":
            with session.call("tool_echo", {"number": number}) as stream:
                said = stream.rest()
                assert len(said) == 1
                return said[0]
        message = called("tool_echo", {"number": number}, _meta=META)
        headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "tool_echo"}
        with Session(shared.port).post(message, **headers) as answer:
            return json.loads(answer.read())

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(48)))
    assert [echoed(answer) for answer in answers] == [{"number": number} for number in range(48)]
    assert {answer["id"] for answer in answers} == {1}


def test_a_number_and_a_text_are_two_ids(session: Session) -> None:
    with session.call("tool_pay", {"to": "ann"}, 1) as first, session.call("tool_pay", {"to": "bob"}, "1") as second:
        question = first.next()
        second.next()
        assert session.tell(cancelled("1"))[0] == 202
        assert second.rest()[-1]["id"] == "1"
        session.settle(question)
        answer = first.next()
        assert (answer["id"], echoed(answer)) == (1, {"to": "ann"})


def test_a_cancellation_that_could_mean_several_is_refused_and_cancels_none(session: Session) -> None:
    with session.call("tool_pay", {"to": "ann"}) as first, session.call("tool_pay", {"to": "bob"}) as second:
        questions = first.next(), second.next()
        status, body = session.tell(cancelled(1))
        assert (status, json.loads(body)["error"]["data"]["error"]) == (409, "ambiguous_request_id")
        for stream, question in zip((first, second), questions, strict=True):
            session.settle(question)
            assert stream.next()["result"]["isError"] is False
    assert session.tell(cancelled(1))[0] == 202, "what is over can't be cancelled, and need not"


def test_a_cancellation_can_not_name_a_request_by_our_key_for_it(session: Session) -> None:
    with session.call("tool_pay", {"to": "ann"}, "mine") as stream:
        question = stream.next()
        for number in range(20):
            assert session.tell(cancelled(number))[0] == 202
            assert session.tell(cancelled(str(number)))[0] == 202
        session.settle(question)
        assert echoed(stream.next()) == {"to": "ann"}


@pytest.mark.parametrize("path", ["/mcp", "/messages/?session_id=0"])
@pytest.mark.parametrize("request_id", ["null", "1.5", "1.0", "true", "{}", "[]"])
def test_an_id_that_is_none_is_refused(session: Session, path: str, request_id: str) -> None:
    body = json.dumps(called("tool_mark", {}, "ID")).replace('"ID"', request_id).encode()
    with closing(http.client.HTTPConnection("127.0.0.1", session.port, timeout=30)) as connection:
        headers = {"Content-Type": "application/json", "Accept": ACCEPT, "Mcp-Session-Id": session.session_id or ""}
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        said = json.loads(answer.read())
    assert (answer.status, said["error"]["data"]["error"], said["id"]) == (400, "not_a_message", None)


@pytest.mark.parametrize("request_id", [0, -1, 2**53 + 1, 10**40, "", "x" * 10_000, "1 ", "\u2028", '"'])
def test_an_id_comes_back_as_it_was(session: Session, request_id: object) -> None:
    with session.call("tool_echo", {"n": 1}, request_id) as stream:
        answer = stream.next()
    assert answer["id"] == request_id
    assert type(answer["id"]) is type(request_id)


def errors(server: HttpServer) -> list[str]:
    """The codes of all errors recorded so far, by other tests on this server too."""
    events = server.place.events()
    return sorted(event["payload"]["error_code"] for event in events if event["event_type"] == "error.occurred")


def test_on_the_sse_transport_the_second_request_of_an_id_is_refused_and_recorded(shared: HttpServer) -> None:
    before = errors(shared)
    with closing(http.client.HTTPConnection("127.0.0.1", shared.port, timeout=30)) as connection:
        connection.request("GET", "/sse", headers={"Accept": "text/event-stream"})
        stream = Stream(connection.getresponse())
        while not (line := stream.answer.readline()).startswith(b"data: /"):
            pass
        path = line[6:].decode().strip()

        def say(message: object) -> None:
            with closing(http.client.HTTPConnection("127.0.0.1", shared.port, timeout=30)) as posting:
                posting.request("POST", path, json.dumps(message), {"Content-Type": "application/json"})
                assert posting.getresponse().status == 202

        say({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": CLIENT})
        assert stream.next()["id"] == 1
        say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        say(called("tool_pay", {"to": "ann"}))
        question = stream.next()
        say(called("tool_echo", {"secret": "of another"}))
        refused = stream.next()
        assert (refused["id"], refused["error"]["data"]["error"]) == (1, "duplicate_request_id")
        say({"jsonrpc": "2.0", "id": question["id"], "result": APPROVE})
        answer = stream.next()
        assert (answer["id"], echoed(answer)) == (1, {"to": "ann"})
    assert errors(shared) == sorted([*before, "duplicate_request_id"])
