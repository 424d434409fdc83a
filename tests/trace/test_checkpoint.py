"""Checkpoints as text: what is written, what is read, and everything else refused."""

import base64
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cra_mcp.errors import TraceError
from cra_mcp.trace.checkpoint import (
    MAX_NOTE_BYTES,
    Checkpoint,
    SignerKey,
    VerifierKey,
    join_notes,
    origin_of,
    parse_checkpoint,
    split_notes,
)

SESSION = "01980000-0000-7000-8000-00000000ab01"
NAME = "example.com/agents"
KEY = SignerKey(NAME, bytes(range(32)))
ROOT = hashlib.sha256(b"root").digest()
GOOD = KEY.sign(Checkpoint(origin_of(NAME, SESSION), 17, ROOT))

# A published example of the form: the text of C2SP tlog-checkpoint has its shape, Go's note package its key.
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def code_of(call) -> str:
    with pytest.raises(TraceError) as caught:
        call()
    return caught.value.code


def test_a_checkpoint_is_four_lines_of_text_and_a_signature():
    text, signature = GOOD.decode().split("\n\n")
    assert text.split("\n") == [f"{NAME}/{SESSION}", "17", base64.b64encode(ROOT).decode()]
    dash, name, blob = signature.removesuffix("\n").split(" ")
    assert (dash, name, len(base64.b64decode(blob))) == ("\u2014", NAME, 68)


def test_what_is_written_is_read_and_verified():
    read = parse_checkpoint(GOOD)
    assert read.checkpoint == Checkpoint(f"{NAME}/{SESSION}", 17, ROOT)
    assert read.checkpoint.session_id == SESSION
    assert (read.note, read.text) == (GOOD, GOOD.partition(b"\n\n")[0] + b"\n")
    assert read.verify([KEY.verifier]) == KEY.verifier


def test_a_key_of_another_maker_verifies_a_note_of_its_own():
    key = VerifierKey.decode(GO_VKEY)
    assert key.encode() == GO_VKEY
    text, signature = GO_NOTE.split("\n\n")
    blob = base64.b64decode(signature.split(" ")[2])
    assert blob[:4] == key.key_id
    assert key.has_signed(f"{text}\n".encode(), blob[4:])
    assert not key.has_signed(f"{text}\n\n".encode(), blob[4:])


def test_keys_are_written_and_read_in_the_form_of_signed_notes():
    assert SignerKey.decode(KEY.encode()).verifier == KEY.verifier
    assert VerifierKey.decode(KEY.verifier.encode() + "\n") == KEY.verifier
    assert KEY.encode().startswith(f"PRIVATE+KEY+{NAME}+")
    made = SignerKey.generate()
    assert made.verifier.name.startswith("cra-mcp/")
    assert made.verifier != SignerKey.generate().verifier


def test_a_private_key_is_not_in_what_is_printed_of_it():
    secret = KEY.encode().split("+", 4)[4]
    assert secret not in repr(KEY)
    assert secret not in str(KEY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+00000000+AAAA",
        KEY.verifier.encode().replace("+", "-", 1),
        KEY.verifier.encode()[:-4],
        KEY.verifier.encode() + "AAAA",
        KEY.verifier.encode().replace(NAME, "example.com/other"),
        KEY.verifier.encode().replace(NAME, "example com"),
        KEY.encode(),
        f"{NAME}+{KEY.verifier.key_id.hex()}+{base64.b64encode(bytes([2]) + KEY.verifier.public).decode()}",
    ],
)
def test_a_public_key_in_any_other_form_is_refused(text):
    assert code_of(lambda: VerifierKey.decode(text)) == "invalid_key"


@pytest.mark.parametrize(
    "text",
    [
        "",
        KEY.verifier.encode(),
        KEY.encode()[:-4],
        KEY.encode().replace(NAME, "example.com/other"),
        "PRIVATE+KEY+" + KEY.verifier.encode(),
        "PRIVATE+KEY+++",
    ],
)
def test_a_private_key_in_any_other_form_is_refused_without_being_shown(text):
    with pytest.raises(TraceError) as caught:
        SignerKey.decode(text)
    assert caught.value.code == "invalid_key"
    assert KEY.encode()[-20:] not in caught.value.message


def changed(old: str, new: str) -> bytes:
    assert old in GOOD.decode()
    return GOOD.decode().replace(old, new, 1).encode()


@pytest.mark.parametrize(
    ("what", "note"),
    {
        "empty": b"",
        "no signature": GOOD.partition(b"\n\n")[0] + b"\n\n",
        "no blank line": GOOD.replace(b"\n\n", b"\n"),
        "no final line feed": GOOD[:-1],
        "more after it": GOOD + b"more\n",
        "carriage returns": GOOD.replace(b"\n", b"\r\n"),
        "a tab": changed("17\n", "17\t\n"),
        "not UTF-8": GOOD.replace(b"17", b"\xff"),
        "leading zero": changed("\n17\n", "\n017\n"),
        "signed size": changed("\n17\n", "\n+17\n"),
        "negative size": changed("\n17\n", "\n-17\n"),
        "fraction": changed("\n17\n", "\n17.0\n"),
        "digits of another script": changed("\n17\n", "\n\u0661\u0667\n"),
        "size beyond 63 bits": changed("\n17\n", "\n9223372036854775808\n"),
        "short root": changed(base64.b64encode(ROOT).decode(), base64.b64encode(ROOT[:31]).decode()),
        "root in hex": changed(base64.b64encode(ROOT).decode(), ROOT.hex()),
        "root without padding": changed("=\n", "\n"),
        "root with spare bits": changed(base64.b64encode(ROOT).decode(), base64.b64encode(ROOT).decode()[:-2] + "1="),
        "two lines": changed("\n17\n", "\n"),
        "empty origin": changed(f"{NAME}/{SESSION}\n", "\n"),
        "empty extension": changed("=\n", "=\n\nx\n"),
        "hyphen for the dash": GOOD.replace("\u2014".encode(), b"-"),
        "no space after the dash": GOOD.replace("\u2014 ".encode(), "\u2014".encode()),
        "two spaces": GOOD.replace("\u2014 ".encode(), "\u2014  ".encode()),
        "a plus in the name": GOOD.replace(f"\u2014 {NAME}".encode(), f"\u2014 {NAME}+".encode()),
        "a wide space in the name": GOOD.replace(f"\u2014 {NAME}".encode(), f"\u2014 {NAME}\u3000".encode()),
        "signature without bytes": GOOD.rpartition(b" ")[0] + b" AAAAAA==\n",
        "signature not Base64": GOOD.rpartition(b" ")[0] + b" AAA\n",
        "too many signatures": GOOD + GOOD.split(b"\n\n")[1] * 64,
        "too long": changed("=\n", "=\n" + "x" * MAX_NOTE_BYTES + "\n"),
    }.items(),
)
def test_a_note_in_any_other_form_is_refused(what, note):
    assert code_of(lambda: parse_checkpoint(note)) == "malformed_checkpoint", what


@given(st.binary(max_size=200))
def test_any_bytes_are_a_checkpoint_or_refused(data):
    for note in (data, GOOD + data, GOOD[: len(data)], GOOD[: len(data)] + data):
        try:
            parsed = parse_checkpoint(note)
        except TraceError as error:
            found = error.code
        else:
            found = parsed.note
        assert found in {"malformed_checkpoint", note}


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_change_of_a_byte_leaves_a_checkpoint_that_verifies(place, flip):
    note = bytearray(GOOD)
    note[place] ^= flip
    with pytest.raises(TraceError):
        parse_checkpoint(bytes(note)).verify([KEY.verifier])


def test_lines_of_other_software_are_kept_and_change_nothing():
    checkpoint = Checkpoint(origin_of(NAME, SESSION), 3, ROOT, ("a line", "another"))
    read = parse_checkpoint(KEY.sign(checkpoint))
    assert read.checkpoint == checkpoint
    read.verify([KEY.verifier])


def test_signatures_by_keys_that_are_not_asked_about_do_not_count_for_or_against():
    witness = SignerKey("witness.example", bytes(32))
    note = GOOD + witness.sign(parse_checkpoint(GOOD).checkpoint).split(b"\n\n")[1]
    read = parse_checkpoint(note)
    assert read.verify([KEY.verifier]) == KEY.verifier
    junk = parse_checkpoint(GOOD + b"\xe2\x80\x94 witness.example AAAAAAAA\n")
    assert junk.verify([KEY.verifier]) == KEY.verifier
    assert code_of(lambda: read.verify([])) == "checkpoint_unsigned"


def test_a_key_of_the_same_name_is_another_key():
    forger = SignerKey(NAME, bytes(32))
    note = forger.sign(parse_checkpoint(GOOD).checkpoint)
    assert code_of(lambda: parse_checkpoint(note).verify([KEY.verifier])) == "checkpoint_unsigned"


def test_a_signature_that_only_bears_the_id_of_the_key_is_forged():
    text, _ = GOOD.split(b"\n\n")
    blob = base64.b64encode(KEY.verifier.key_id + bytes(64)).decode()
    note = text + f"\n\n\u2014 {NAME} {blob}\n".encode()
    assert code_of(lambda: parse_checkpoint(note).verify([KEY.verifier])) == "checkpoint_forged"
    beside_a_good_one = GOOD + f"\u2014 {NAME} {blob}\n".encode()
    assert code_of(lambda: parse_checkpoint(beside_a_good_one).verify([KEY.verifier])) == "checkpoint_forged"


@pytest.mark.parametrize(
    "origin", ["example.com/other/" + SESSION, NAME, NAME + "/x", SESSION, NAME + "/" + SESSION + "/"]
)
def test_a_key_only_speaks_for_sessions_of_its_own_name(origin):
    note = KEY.sign(Checkpoint(origin, 17, ROOT))
    assert code_of(lambda: parse_checkpoint(note).verify([KEY.verifier])) == "checkpoint_origin"


def test_notes_of_one_file_are_told_apart_and_a_torn_one_is_not_lost():
    notes = [KEY.sign(Checkpoint(origin_of(NAME, SESSION), size, ROOT)) for size in (1, 2, 3)]
    data = join_notes(notes)
    assert split_notes(data) == (notes, b"")
    assert split_notes(notes[0]) == (notes[:1], b"")
    assert split_notes(b"") == ([], b"")
    for end in range(len(data)):
        found, rest = split_notes(data[:end])
        assert found == notes[: len(found)]
        assert data[:end] in {join_notes(found) + rest, join_notes(found)[:-1] + rest}


def test_openssl_verifies_a_checkpoint_too(tmp_path: Path):
    """Ed25519 of another program; the key in the usual wrapping of a public key (RFC 8410)."""
    openssl = shutil.which("openssl")
    if openssl is None and sys.platform == "win32":
        pytest.skip("Windows comes without it")
    read = parse_checkpoint(GOOD)
    prefix = bytes.fromhex("302a300506032b6570032100")
    (tmp_path / "key").write_bytes(prefix + KEY.verifier.public)
    (tmp_path / "text").write_bytes(read.text)
    (tmp_path / "signature").write_bytes(read.signatures[0].signature)
    arguments = ["-pubin", "-keyform", "DER", "-inkey", "key", "-rawin", "-in", "text", "-sigfile", "signature"]
    done = subprocess.run(
        [str(openssl), "pkeyutl", "-verify", *arguments], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
