"""Old chains go whole, and what is said of them stays."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cra_mcp.canonical import canonical_bytes
from cra_mcp.errors import TraceUnavailableError, UnknownTraceError
from cra_mcp.trace import file as file_module
from cra_mcp.trace.chainfile import Bounds
from cra_mcp.trace.checkpoint import Checkpoint, SignerKey, encode, join_notes
from cra_mcp.trace.event import Draft
from cra_mcp.trace.file import FileStore
from cra_mcp.trace.merkle import leaf_hash, root_of
from cra_mcp.trace.retention import prune
from cra_mcp.trace.statement import FORM, Rule, Sign, fingerprint_of, with_signature
from cra_mcp.trace.timestamp import add_stamp

SESSION = "01980000-0000-7000-8000-00000000ab01"
YOUNG = "01980000-0000-7000-8000-00000000ab02"
TRACE = "01980000-0000-7000-8000-000000000004"
NOTE = Draft("x.test.note", {"note": "a" * 40}, TRACE)
DAY_S = 86_400
START_NS = 1_767_323_045_000_000_000
NOW_NS = START_NS + 40 * DAY_S * 1_000_000_000
MONTH = Rule(30 * DAY_S)
KEY = SignerKey("example.com/agents", bytes(range(32)))


def signing(key: SignerKey) -> Sign:
    return lambda data: {"vkey": key.verifier.encode(), "ed25519": encode(key.sign_statement(FORM, data))}


SIGN = signing(KEY)


def make(folder: Path, session: str = SESSION, *, age_days: int = 40) -> FileStore:
    """A chain of five events in three files, last written to so long before now."""
    at_ns = NOW_NS - age_days * DAY_S * 1_000_000_000
    store = FileStore(folder, bounds=Bounds(segment_bytes=901), clock_ns=lambda: at_ns)
    store.begin(session, TRACE)
    for _ in range(5):
        store.append(session, [NOTE])
    store.close()
    for path in folder.rglob("*.jsonl"):
        if session in str(path):
            os.utime(path, ns=(at_ns, at_ns))
    return store


def age(path: Path) -> None:
    os.utime(path, ns=(START_NS, START_NS))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_old_chain_goes_whole_and_a_statement_says_what_went(tmp_path):
    store = make(tmp_path)
    make(tmp_path, YOUNG, age_days=29)
    head, before = store.head(SESSION), everything(tmp_path)
    (done,) = prune(tmp_path, MONTH, NOW_NS)
    statement = json.loads((tmp_path / f"{SESSION}.pruned.json").read_bytes())
    assert statement == done.statement
    assert (statement["events"], statement["first_sequence"], statement["last_sequence"]) == (5, 0, 4)
    assert statement["head_hash"] == head.event_hash
    assert statement["first_timestamp"] == statement["last_timestamp"] == head.timestamp
    assert (statement["code"], statement["signature"]) == (None, None)
    assert {file["name"]: file["sha256"] for file in statement["files"]} == {
        name: hashlib.sha256(data).hexdigest() for name, data in before.items() if SESSION in name
    }
    assert sorted(everything(tmp_path)) == sorted(
        [*(name for name in before if YOUNG in name), f"{SESSION}.pruned.json"]
    )
    assert len(FileStore(tmp_path).read(YOUNG)) == 5
    assert list(prune(tmp_path, MONTH, NOW_NS)) == []


def test_a_chain_that_went_is_known_as_such_and_not_begun_again(tmp_path):
    store = make(tmp_path)
    list(prune(tmp_path, MONTH, NOW_NS))
    assert store.sessions() == []
    store = FileStore(tmp_path)
    with pytest.raises(UnknownTraceError, match="pruned"):
        store.read(SESSION)
    with pytest.raises(TraceUnavailableError, match="pruned"):
        store.begin(SESSION, TRACE)


def test_a_dry_run_says_the_same_and_changes_nothing(tmp_path):
    make(tmp_path)
    before = everything(tmp_path)
    (would,) = prune(tmp_path, Rule(30 * DAY_S, dry_run=True), NOW_NS)
    assert everything(tmp_path) == before
    (done,) = prune(tmp_path, MONTH, NOW_NS)
    assert {**would.statement, "signature": None} == done.statement


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_chain_that_is_written_stays(tmp_path, dry_run):
    store = make(tmp_path)
    store = FileStore(tmp_path)
    store.begin(SESSION, TRACE)
    before = everything(tmp_path)
    (done,) = prune(tmp_path, Rule(30 * DAY_S, dry_run=dry_run), NOW_NS)
    assert (done.statement, done.kept_because) == (None, "live")
    assert everything(tmp_path) == before
    store.close()


def test_a_damaged_chain_stays_unless_it_is_asked_for(tmp_path):
    make(tmp_path)
    path = tmp_path / f"{SESSION}.trace.jsonl"
    path.write_bytes(path.read_bytes().replace(b"aaaa", b"aaab", 1))
    aside = tmp_path / f"{SESSION}.torn-1"
    aside.write_bytes(b"torn")
    age(path)
    (done,) = prune(tmp_path, MONTH, NOW_NS)
    assert (done.statement, done.kept_because) == (None, "hash_mismatch")
    (done,) = prune(tmp_path, Rule(30 * DAY_S, damaged=True), NOW_NS)
    assert (done.statement["code"], done.statement["events"], done.statement["head_hash"]) == ("hash_mismatch", 0, None)
    assert f"{SESSION}.torn-1" in {file["name"] for file in done.statement["files"]}
    assert list(everything(tmp_path)) == [f"{SESSION}.pruned.json"]


def test_a_chain_with_young_events_in_old_files_stays(tmp_path):
    make(tmp_path, age_days=5)
    for path in tmp_path.rglob("*.jsonl"):
        age(path)
    assert list(prune(tmp_path, MONTH, NOW_NS)) == []
    assert len(FileStore(tmp_path).read(SESSION)) == 5


def test_an_interrupted_run_is_finished_by_the_next_and_never_deletes_what_has_no_statement(tmp_path, monkeypatch):
    make(tmp_path)
    unlink = Path.unlink
    for left in range(4):
        calls = [left]

        def stop(path: Path, *args: object, calls: list[int] = calls, **more: object) -> None:
            if path.suffix == ".jsonl":
                assert (tmp_path / f"{SESSION}.pruned.json").exists()
                if calls[0] == 0:
                    raise OSError(5, "Input/output error")
                calls[0] -= 1
            unlink(path)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "unlink", stop)
            if left < 3:
                with pytest.raises(TraceUnavailableError):
                    list(prune(tmp_path, MONTH, NOW_NS, sign=SIGN, keys=[KEY.verifier]))
        if left < 3:  # of files with two, two and one events, the last goes first
            assert len(FileStore(tmp_path).read(SESSION)) == (5, 4, 2)[left]
        list(prune(tmp_path, MONTH, NOW_NS, sign=SIGN, keys=[KEY.verifier]))
        assert list(everything(tmp_path)) == [f"{SESSION}.pruned.json"]
        unlink(tmp_path / f"{SESSION}.pruned.json")
        make(tmp_path)


def test_a_statement_deletes_nothing_but_files_of_its_session_as_they_were(tmp_path):
    make(tmp_path)
    other = tmp_path / "other"
    other.write_text("precious")
    path = tmp_path / f"{SESSION}.trace.jsonl"
    names = ["other", f"../{tmp_path.name}/other", f"{SESSION}.x/../other", path.name]
    sha256 = hashlib.sha256(b"precious").hexdigest()
    files = [{"name": name, "bytes": 8, "sha256": sha256} for name in names]
    (tmp_path / f"{SESSION}.pruned.json").write_text(json.dumps({"session_id": SESSION, "files": files}))
    list(prune(tmp_path, MONTH, NOW_NS))
    assert other.exists()
    assert path.exists()


def test_a_statement_is_signed_where_there_is_a_key(tmp_path):
    make(tmp_path)
    signed: list[bytes] = []

    def sign(data: bytes) -> dict[str, str]:
        signed.append(data)
        return {"key": "k", "value": "v"}

    (done,) = prune(tmp_path, MONTH, NOW_NS, sign=sign)
    statement = dict(done.statement)
    assert statement.pop("signature") == {"key": "k", "value": "v"}
    assert signed == [canonical_bytes(statement)]
    stored = (tmp_path / f"{SESSION}.pruned.json").read_bytes()
    assert stored == canonical_bytes(dict(done.statement)) + b"\n"
    assert statement["statement"] == FORM


def test_a_folder_that_is_not_there_has_nothing_to_prune(tmp_path):
    assert list(prune(tmp_path / "none", MONTH, NOW_NS)) == []


def sign(folder: Path, lines: list[bytes]) -> Path:
    """A checkpoint of these lines beside the chain."""
    key = SignerKey.generate()
    note = key.sign(
        Checkpoint(f"{key.verifier.name}/{SESSION}", len(lines), root_of([leaf_hash(line) for line in lines]))
    )
    path = folder / f"{SESSION}.checkpoints"
    path.write_bytes(join_notes([note]))
    age(path)
    return path


def test_a_statement_takes_the_place_of_the_checkpoints_beside_a_chain(tmp_path):
    lines = make(tmp_path).read(SESSION)
    path = sign(tmp_path, lines)
    note = path.read_bytes()
    stamped = path.with_suffix(".timestamps")
    stamped.write_bytes(add_stamp(note.removesuffix(b"\n"), "tsa.example", b"a token") + b"\n")
    last = stamped.read_bytes()
    (done,) = prune(tmp_path, MONTH, NOW_NS)
    assert list(everything(tmp_path)) == [f"{SESSION}.pruned.json"]
    assert done.statement["root"] == encode(root_of([leaf_hash(line) for line in lines]))
    assert done.statement["checkpoint"].encode() + b"\n" == note
    assert done.statement["timestamped"].encode() + b"\n" == last
    assert [file["name"] for file in done.statement["files"][-2:]] == [path.name, stamped.name]


def test_a_chain_that_was_cut_after_it_was_signed_stays_unless_it_is_asked_for(tmp_path):
    sign(tmp_path, make(tmp_path).read(SESSION))
    max(tmp_path.rglob("*.trace.d/*")).unlink()
    (done,) = prune(tmp_path, MONTH, NOW_NS)
    assert (done.statement, done.kept_because) == (None, "truncated")
    (done,) = prune(tmp_path, Rule(30 * DAY_S, damaged=True), NOW_NS)
    assert (done.statement["code"], done.statement["events"]) == ("truncated", 4)


@pytest.mark.parametrize(("change", "code"), [(b"\n04\n", "malformed_checkpoint"), (b"\n4\n", "checkpoint_mismatch")])
def test_a_chain_its_checkpoint_is_not_of_stays(tmp_path, change, code):
    lines = make(tmp_path).read(SESSION)
    path = sign(tmp_path, [*lines[:3], b"other"])
    path.write_bytes(path.read_bytes().replace(b"\n4\n", change))
    (done,) = prune(tmp_path, MONTH, NOW_NS)
    assert (done.statement, done.kept_because) == (None, code)


HOLD = """
import sys, pathlib
from cra_mcp.trace.file import FileStore
from cra_mcp.trace.merkle import leaf_hash, root_of
store = FileStore(pathlib.Path(sys.argv[1]))
store.begin(sys.argv[2], sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
"""


def test_a_chain_another_process_goes_on_writing_stays_until_that_is_over(tmp_path):
    make(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), SESSION],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        before = everything(tmp_path)
        for dry_run in (True, False):
            (done,) = prune(tmp_path, Rule(30 * DAY_S, dry_run=dry_run), NOW_NS)
            assert (done.statement, done.kept_because) == (None, "live")
        assert everything(tmp_path) == before
        process.kill()
    (done,) = prune(tmp_path, MONTH, NOW_NS)
    assert done.statement["events"] == 5


def test_a_chain_that_goes_while_a_writer_waits_for_it_is_not_begun_again(tmp_path, monkeypatch):
    make(tmp_path)
    claim = file_module.claim_chain

    def claim_after_pruning(*arguments):
        list(prune(tmp_path, MONTH, NOW_NS))
        return claim(*arguments)

    monkeypatch.setattr(file_module, "claim_chain", claim_after_pruning)
    with pytest.raises(TraceUnavailableError, match="pruned"):
        FileStore(tmp_path).begin(SESSION, TRACE)
    assert list(everything(tmp_path)) == [f"{SESSION}.pruned.json"]


# --- statements that are not ours ----------------------------------------------------------------------------------


def stated(folder: Path, sign: Sign | None = None) -> dict[str, object]:
    """What would be said of the chain of ``SESSION``, all of whose files are still there."""
    done = next(each for each in prune(folder, Rule(30 * DAY_S, dry_run=True), NOW_NS) if each.session_id == SESSION)
    return with_signature({name: done.statement[name] for name in done.statement if name != "signature"}, sign)


def forge(folder: Path, text: bytes) -> None:
    (folder / f"{SESSION}.pruned.json").write_bytes(text)


def naming(folder: Path, session: str) -> dict[str, object]:
    """A statement of ``SESSION`` that names another session, and its files as they are."""
    statement = {name: value for name, value in stated(folder).items() if name != "signature"}  # none is signed over
    files = [fingerprint_of(folder, path) for path in sorted(folder.rglob("*.jsonl")) if session in str(path)]
    return {**statement, "session_id": session, "files": files}


NOT_OURS = {
    "no JSON": lambda _: b"{",
    "nothing": lambda _: b"",
    "not UTF-8": lambda _: b"\xff\xfe",
    "a list": lambda _: b"[]",
    "a number": lambda _: b"5",
    "deep": lambda _: b"[" * 100_000,
    "no files": lambda folder: canonical_bytes({n: v for n, v in stated(folder, SIGN).items() if n != "files"}),
    "files of an odd type": lambda folder: canonical_bytes({**stated(folder, SIGN), "files": 5}),
    "odd files": lambda folder: canonical_bytes({**stated(folder, SIGN), "files": [5, None, {"name": []}]}),
    "of another session, unsigned": lambda folder: canonical_bytes(with_signature(naming(folder, YOUNG), None)),
    "of another session, signed": lambda folder: canonical_bytes(with_signature(naming(folder, YOUNG), SIGN)),
    "another's files, unsigned": lambda folder: canonical_bytes(
        {**naming(folder, YOUNG), "session_id": SESSION, "signature": None}
    ),
    "another's key": lambda folder: canonical_bytes(stated(folder, signing(SignerKey.generate(KEY.verifier.name)))),
    "changed after it was signed": lambda folder: canonical_bytes({**stated(folder, SIGN), "events": 4}),
    "unsigned, and not what is there": lambda folder: canonical_bytes({**stated(folder), "head_hash": "0" * 64}),
}


@pytest.mark.parametrize("name", NOT_OURS)
def test_a_statement_that_is_not_ours_deletes_nothing_and_stops_nothing(tmp_path, name):
    make(tmp_path)
    make(tmp_path, YOUNG, age_days=35)
    live = FileStore(tmp_path)
    live.begin(YOUNG, TRACE)
    text = NOT_OURS[name](tmp_path)
    if name == "another's key":  # what it says is true: it is obeyed once the chain says the same
        text = text.replace(b'"events":5', b'"events":6')
    forge(tmp_path, text)
    before = everything(tmp_path)
    for rule in (Rule(30 * DAY_S, dry_run=True), MONTH, Rule(30 * DAY_S, damaged=True)):
        found = {each.session_id: each for each in prune(tmp_path, rule, NOW_NS, sign=SIGN, keys=[KEY.verifier])}
        assert (found[SESSION].statement, found[YOUNG].kept_because) == (None, "live")
        assert found[SESSION].kept_because in {"statement_unsigned", "malformed_statement"}
    assert everything(tmp_path) == before
    live.close()
    os.unlink(tmp_path / f"{SESSION}.pruned.json")
    assert {each.session_id for each in prune(tmp_path, MONTH, NOW_NS, sign=SIGN) if each.statement} == {SESSION, YOUNG}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such links or pipes")
@pytest.mark.parametrize("what", ["folder", "pipe", "link", "large"])
def test_what_is_no_file_in_the_place_of_a_statement_stops_nothing(tmp_path, what):
    make(tmp_path / "t")
    make(tmp_path / "t", YOUNG)
    path, other = tmp_path / "t" / f"{SESSION}.pruned.json", tmp_path / "other"
    other.write_bytes(canonical_bytes(stated(tmp_path / "t", SIGN)) if what == "link" else b"")
    if what == "large":
        path.touch()
        os.truncate(path, 2**40)
    else:
        {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "link": lambda: path.symlink_to(other)}[what]()
    found = {each.session_id: each for each in prune(tmp_path / "t", MONTH, NOW_NS, sign=SIGN, keys=[KEY.verifier])}
    assert found[SESSION].kept_because == "malformed_statement"
    assert found[YOUNG].statement is not None
    assert len(FileStore(tmp_path / "t").read(SESSION)) == 5


@pytest.mark.parametrize("sign", [None, SIGN], ids=["unsigned", "signed"])
def test_a_statement_of_ours_or_one_that_the_chain_bears_out_is_obeyed(tmp_path, sign):
    make(tmp_path)
    forge(
        tmp_path,
        canonical_bytes(
            {**stated(tmp_path), "pruned_at": None, "signature": None} if sign is None else stated(tmp_path, sign)
        ),
    )
    (done,) = prune(tmp_path, MONTH, NOW_NS, sign=SIGN, keys=[KEY.verifier])
    assert done.statement is not None
    assert list(everything(tmp_path)) == [f"{SESSION}.pruned.json"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such links")
def test_a_chain_that_can_not_be_read_stays_and_the_others_go(tmp_path):
    for session in (SESSION, YOUNG, "01980000-0000-7000-8000-00000000ab03"):
        make(tmp_path / "t", session)
    (tmp_path / "t" / f"{SESSION}.checkpoints").symlink_to(tmp_path / "nowhere")
    other = tmp_path / "t" / f"{YOUNG}.trace.jsonl"
    other.rename(tmp_path / "elsewhere")
    other.symlink_to(tmp_path / "elsewhere")
    os.utime(tmp_path / "elsewhere", ns=(START_NS, START_NS))
    found = {each.session_id[-4:]: each for each in prune(tmp_path / "t", MONTH, NOW_NS, sign=SIGN)}
    assert found["ab01"].kept_because in {"unreadable", "trace_unavailable"}
    assert found["ab02"].kept_because == "unreadable"
    assert found["ab03"].statement is not None
    assert (tmp_path / "elsewhere").exists()
