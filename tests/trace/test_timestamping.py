"""Timestamps got while checkpoints are made: from a real authority, and what happens where it fails, lies or is slow."""

import logging
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.errors import SettingsError
from cra_mcp.trace import delivery, posting
from cra_mcp.trace.checkpoint import Checkpoint, SignerKey, parse_checkpoint
from cra_mcp.trace.delivery import Delivery
from cra_mcp.trace.keeping import STAMPED, KeptCheckpoints
from cra_mcp.trace.timestamp import read_authorities, stamps_of, verify_stamp, without_stamps
from cra_mcp.trace.timestamping import TimestampAuthority, authority_url
from tests.trace.authority import Authority, Certificates

SESSION = "01980000-0000-7000-8000-00000000ab01"
KEY = SignerKey("example.com/agents", bytes(range(32)))
PATIENCE_S = 20


def note_of(size: int) -> bytes:
    return KEY.sign(Checkpoint(f"example.com/agents/{SESSION}", size, bytes(32)))


def until(holds) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tsa") / "certificates")


@pytest.fixture
def authority(certificates, tmp_path):
    (tmp_path / "asked").mkdir()
    made = Authority(certificates, tmp_path / "asked")
    yield made
    made.close()


@pytest.fixture
def kept(tmp_path) -> KeptCheckpoints:
    return KeptCheckpoints(tmp_path, STAMPED)


@pytest.fixture
def errors(caplog):
    caplog.set_level(logging.WARNING, "cra_mcp.trace")
    return caplog


def sink_at(url: str, kept: KeptCheckpoints, pem: bytes | None = None) -> TimestampAuthority:
    return TimestampAuthority(authority_url(url), kept, read_authorities(pem) if pem else ())


def dates(kept: KeptCheckpoints, pem: bytes, session_id: str = SESSION) -> list[int]:
    """Sizes of the checkpoints that have a timestamp, each checked."""
    found = []
    for note in kept.read(session_id):
        signed = parse_checkpoint(note)
        (stamp,) = stamps_of(signed)
        verify_stamp(stamp.token, without_stamps(signed), read_authorities(pem))
        found.append(signed.checkpoint.size)
    return found


def test_what_is_recorded_is_dated_and_nobody_waited_for_it(authority, certificates, tmp_path):
    config = RuntimeConfig(
        data_dir=tmp_path / "data",
        checkpoint_every=1,
        timestamp_authority=authority.url,
        timestamp_interval_s=0,
        timestamp_ca=certificates.path("root"),
    )
    answers = threading.Event()

    def late(request: bytes) -> bytes:
        assert answers.wait(PATIENCE_S)
        return authority.stamp(request)

    authority.answer = late
    with CRARuntime(config) as runtime:
        session = runtime.create_session("ann", "Read what is there")
        for number in range(5):
            runtime.record(session.session_id, "x.test.note", {"note": number})
        assert not list(
            config.trace_path.glob("*.timestamps")
        )  # all is recorded, and the authority has not answered yet
        answers.set()
    assert runtime.checkpointer is not None
    counts = runtime.checkpointer.counts()
    assert counts.sinks == ()
    assert counts.timestamps is not None
    assert (counts.timestamps.failures, counts.timestamps.waiting) == (0, 0)
    kept = KeptCheckpoints(config.trace_path, STAMPED)
    events = len((config.trace_path / f"{session.session_id}.trace.jsonl").read_bytes().splitlines())
    assert dates(kept, certificates.pem("root"), session.session_id)[-1] == events
    headers, request = authority.asked[0]
    assert headers["content-type"] == "application/timestamp-query"
    assert session.session_id.encode() not in request


def test_an_authority_that_is_down_is_told_once_and_asked_again(authority, certificates, kept, errors, monkeypatch):
    monkeypatch.setattr(delivery, "_FIRST_PAUSE_S", 0.01)
    authority.status = 503
    made = Delivery(sink_at(authority.url, kept), latest_only=True)
    made.offer(SESSION, 1, note_of(1))
    until(lambda: made.counts().failures >= 3)
    made.offer(SESSION, 2, note_of(2))
    made.offer(SESSION, 3, note_of(3))
    assert made.counts().waiting == 1  # to date an older one later than a newer one shows nothing more
    authority.status = 200
    until(lambda: not made.counts().waiting)
    made.close(time.monotonic() + PATIENCE_S)
    assert dates(kept, certificates.pem("root"))[-1] == 3
    told = [record.getMessage() for record in errors.records]
    assert len([text for text in told if "do not reach time-stamping authority" in text and "503" in text]) == 1
    assert len([text for text in told if "again" in text and "trying" not in text]) == 1


@pytest.mark.parametrize("name", ["root", "stranger"])
def test_where_its_root_is_known_only_what_it_vouches_for_is_kept(authority, certificates, kept, name):
    sink = sink_at(authority.url, kept, certificates.pem(name))
    if name == "root":
        sink.deliver(SESSION, 1, note_of(1))
        assert dates(kept, certificates.pem("root")) == [1]
    else:
        with pytest.raises(OSError, match="timestamp_untrusted"):
            sink.deliver(SESSION, 1, note_of(1))
        assert kept.read(SESSION) == []


def test_an_answer_given_before_is_not_kept(authority, kept):
    sink = sink_at(authority.url, kept)
    sink.deliver(SESSION, 1, note_of(1))
    earlier = authority.asked[0][1]
    authority.answer = lambda _: authority.stamp(earlier)
    with pytest.raises(OSError, match="timestamp_nonce"):
        sink.deliver(SESSION, 1, note_of(1))
    with pytest.raises(OSError, match="timestamp_mismatch"):
        sink.deliver(SESSION, 2, note_of(2))
    assert len(kept.read(SESSION)) == 1


def test_an_answer_without_end_is_not_read_to_the_end(authority, kept):
    authority.answer = lambda _: bytes(10_000_000)
    with pytest.raises(OSError, match="more than 32768 bytes"):
        sink_at(authority.url, kept).deliver(SESSION, 1, note_of(1))


def test_an_answer_that_trickles_is_given_up(kept, monkeypatch):
    monkeypatch.setattr(posting, "TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def trickle() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 30000\r\n\r\n")
                try:
                    for _ in range(10_000):
                        connection.sendall(b"0")
                        time.sleep(0.01)
                except OSError:
                    pass

        answering = threading.Thread(target=trickle)
        answering.start()
        with pytest.raises(TimeoutError, match="in time"):
            sink_at(f"http://127.0.0.1:{listener.getsockname()[1]}/", kept).deliver(SESSION, 1, note_of(1))
        answering.join()


def test_it_is_asked_only_so_often_and_at_the_end(authority, certificates, kept):
    made = Delivery(sink_at(authority.url, kept), latest_only=True, rest_s=600)
    made.offer(SESSION, 1, note_of(1))
    until(lambda: made.counts().delivered == 1)
    for size in (2, 3, 4):
        made.offer(SESSION, size, note_of(size))
    assert (len(authority.asked), made.counts().waiting) == (1, 1)
    made.close(time.monotonic() + PATIENCE_S)
    assert dates(kept, certificates.pem("root")) == [1, 4]


@pytest.mark.parametrize(
    "text",
    [
        "tsa.example",
        "ftp://tsa.example/",
        "https://",
        "https://me:s3cret@tsa.example/",
        "https://tsa.example/#x",
        "https://tsa.example:0/",
        "https://[::1/",
        "https://tsa example/",
        "https://tsa+example/",
        f"https://{'a' * 201}/",
    ],
)
def test_what_is_no_address_of_an_authority_is_refused_before_serving(text):
    with pytest.raises(SettingsError) as caught:
        authority_url(text)
    assert "s3cret" not in str(caught.value) + (caught.value.hint or "")


def test_an_address_may_be_plain_http_and_its_query_is_not_told(kept):
    assert authority_url("http://tsa.example/tsr").scheme == "http"
    sink = TimestampAuthority(urlsplit("https://tsa.example/tsr?key=s3cret"), kept)
    assert "s3cret" not in sink.name


def test_timestamps_without_checkpoints_and_certificates_that_are_not_there_are_refused(authority, tmp_path: Path):
    for more in ({"checkpoint_every": 0}, {"timestamp_ca": tmp_path / "missing.pem"}, {"timestamp_interval_s": -1.0}):
        with pytest.raises(SettingsError):
            CRARuntime(RuntimeConfig(data_dir=tmp_path, timestamp_authority=authority.url, **more))
