"""Timestamps from the command line: a trace and a proof dated by a real authority, and what is said where one does not hold."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.trace.checkpoint import join_notes, parse_checkpoint
from cra_mcp.trace.keeping import STAMPED, KeptCheckpoints
from cra_mcp.trace.keyfile import KEY_FILE, public_key_of
from cra_mcp.trace.timestamp import add_stamp, stamps_of, without_stamps
from tests.faces.cli.conftest import cra
from tests.faces.cli.test_checkpoints import VERIFIER, node
from tests.trace.authority import Authority, Certificates


def _vkey(data: Path) -> str:
    own = public_key_of(data / KEY_FILE)
    assert own is not None
    return own.encode()


class Dated:
    """An ended session whose checkpoints have timestamps beside them, and copies without any elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.certificates = Certificates(folder / "certificates")
        self.copies = folder / "copies"
        self.copies.mkdir()
        (folder / "asked").mkdir()
        self.authority = Authority(self.certificates, folder / "asked")
        config = RuntimeConfig(
            data_dir=folder / "data",
            checkpoint_to=(f"folder:{self.copies}",),
            timestamp_authority=self.authority.url,
            timestamp_interval_s=0,
        )
        with CRARuntime(config) as runtime:
            self.session = runtime.create_session("ann", "Read what is there").session_id
            runtime.record(self.session, "x.test.note", {"note": 1})
        self.data, self.traces = config.data_path, config.trace_path
        self.root, self.stranger = self.certificates.path("root"), self.certificates.path("stranger")
        self.vkey = _vkey(config.data_path)

    def verify(self, *arguments: str | Path) -> tuple[dict[str, Any], int]:
        done = cra("trace", "verify", self.session, "--data-dir", self.data, "--json", *arguments)
        return json.loads(done.stdout)["traces"][0], done.returncode


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dated]:
    made = Dated(tmp_path_factory.mktemp("dated"))
    yield made
    made.authority.close()


def test_a_trace_is_shown_to_have_existed_at_a_time(dated: Dated) -> None:
    found, code = dated.verify("--tsa-ca", dated.root)
    (stamp,) = found["timestamps"]["verified"]
    assert (code, found["code"], found["timestamps"]["kept"]) == (0, None, 1)
    assert (stamp["size"], stamp["authority"]) == (found["events"], "CN=Test stamper")
    assert found["checkpoints"]["agreeing"] == 1  # the one with the timestamp is that checkpoint, not another


def test_checkpoints_kept_elsewhere_are_dated_by_the_timestamps_beside_the_trace(dated: Dated) -> None:
    outside = ("--checkpoint", dated.copies, "--key", dated.vkey)
    told = cra("trace", "verify", dated.session, "--data-dir", dated.data, *outside, "--tsa-ca", dated.root)
    assert told.returncode == 0
    assert "events existed on" in told.stderr
    assert "within 1.5 s, says CN=Test stamper" in told.stderr
    assert "The runtime itself dated the last of them" in told.stderr


def test_timestamps_nobody_checked_are_said_to_be_so(dated: Dated) -> None:
    done = cra("trace", "verify", dated.session, "--data-dir", dated.data)
    assert done.returncode == 0
    assert "there are timestamps (1), which were not checked; give --tsa-ca" in done.stderr


def test_a_timestamp_that_does_not_hold_is_a_fault_with_a_code(dated: Dated) -> None:
    found, code = dated.verify("--tsa-ca", dated.stranger)
    assert (code, found["ok"], found["code"], found["kind"]) == (1, False, "timestamp_untrusted", None)


def test_the_timestamp_of_another_checkpoint_and_one_that_was_taken_away_are_told(dated: Dated) -> None:
    stamped = KeptCheckpoints(dated.traces, STAMPED)
    kept = stamped.path(dated.session)
    whole = kept.read_bytes()
    signed = parse_checkpoint(stamped.read(dated.session)[0])
    (stamp,) = stamps_of(signed)
    another = without_stamps(signed) + "\u2014 witness.example AAAAAAAA\n".encode()  # signed by someone more, since
    try:
        kept.write_bytes(join_notes([add_stamp(another, stamp.name, stamp.token)]))
        found, code = dated.verify("--tsa-ca", dated.root)
        assert (code, found["code"]) == (1, "timestamp_mismatch")
        kept.unlink()
        found, code = dated.verify("--tsa-ca", dated.root)
        assert (code, found["code"]) == (1, "timestamp_missing")
    finally:
        kept.write_bytes(whole)


def test_a_proof_carries_the_timestamp_and_every_reader_takes_it(dated: Dated, tmp_path: Path) -> None:
    proof = tmp_path / "event.tlog-proof"
    assert cra("trace", "prove", dated.session, "1", "--data-dir", dated.data, "--out", proof).returncode == 0
    checked = cra("trace", "verify-proof", proof, "--key", dated.vkey, "--tsa-ca", dated.root, "--json")
    report = json.loads(checked.stdout)
    assert (checked.returncode, len(report["timestamps"]["verified"])) == (0, 1)
    refused = cra("trace", "verify-proof", proof, "--key", dated.vkey, "--tsa-ca", dated.stranger, "--json")
    assert (refused.returncode, json.loads(refused.stdout)["code"]) == (1, "timestamp_untrusted")
    other_reader = subprocess.run([node(), VERIFIER, proof, dated.vkey], capture_output=True, check=False)
    assert other_reader.returncode == 0, other_reader.stderr
