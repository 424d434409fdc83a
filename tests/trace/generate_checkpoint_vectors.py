"""Writes specs/conformance/checkpoint: ``python tests/trace/generate_checkpoint_vectors.py [folder]``.

Shares no code with the package: trees by the recursive definition of RFC 6962, notes put together here and signed by
``cryptography`` with keys that are published. Running it again gives the same bytes.
"""

import base64
import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FOLDER = Path(__file__).parents[2] / "specs" / "conformance" / "checkpoint"
NAME = "example.com/agents"


def _chains() -> ModuleType:
    spec = importlib.util.spec_from_file_location("chain_vectors", Path(__file__).with_name("generate_vectors.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CHAINS = _chains()
SESSION, OTHER_SESSION = CHAINS.SESSION, CHAINS.OTHER_SESSION
VECTORS: list[tuple[str, dict[str, Any]]] = []


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Key:
    """A signer whose private key is public: test vectors only."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.public = b"\x01" + self.private.public_key().public_bytes_raw()
        self.id = hashlib.sha256(name.encode() + b"\n" + self.public).digest()[:4]
        self.vkey = f"{name}+{self.id.hex()}+{b64(self.public)}"

    def line(self, text: str) -> str:
        return f"\u2014 {self.name} {b64(self.id + self.private.sign(text.encode()))}\n"

    def note(
        self, size: int, root: bytes, *, session: str = SESSION, extra: str = "", origin: str | None = None
    ) -> str:
        text = f"{origin or f'{self.name}/{session}'}\n{size}\n{b64(root)}\n{extra}"
        return f"{text}\n{self.line(text)}"


KEY, OTHER_KEY, SAME_NAME = Key(NAME, 1), Key("example.com/other", 2), Key(NAME, 3)


def leaf(line: str) -> bytes:
    return hashlib.sha256(b"\x00" + line.encode()).digest()


def split(size: int) -> int:
    part = 1
    while part * 2 < size:
        part *= 2
    return part


def root(leaves: list[bytes]) -> bytes:
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    at = split(len(leaves))
    return hashlib.sha256(b"\x01" + root(leaves[:at]) + root(leaves[at:])).digest()


def path(index: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) < 2:
        return []
    at = split(len(leaves))
    if index < at:
        return [*path(index, leaves[:at]), root(leaves[at:])]
    return [*path(index - at, leaves[at:]), root(leaves[:at])]


def subproof(old: int, leaves: list[bytes], known: bool) -> list[bytes]:
    if old == len(leaves):
        return [] if known else [root(leaves)]
    at = split(len(leaves))
    if old <= at:
        return [*subproof(old, leaves[:at], known), root(leaves[at:])]
    return [*subproof(old - at, leaves[at:], False), root(leaves[:at])]


def add(name: str, description: str, kind: str, given: dict[str, Any], expect: dict[str, Any]) -> None:
    VECTORS.append((name, {"description": description, "kind": kind, "input": given, "expect": expect}))


def merkle() -> None:
    for size in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9):
        lines = [f"line {number}" for number in range(size)]
        leaves = [leaf(line) for line in lines]
        add(
            f"tree-of-{size}",
            f"Root and every proof of a tree of {size} leaves.",
            "merkle",
            {"lines": lines},
            {
                "root": root(leaves).hex(),
                "inclusion": [[each.hex() for each in path(index, leaves)] for index in range(size)],
                "consistency": [[each.hex() for each in subproof(old, leaves, True)] for old in range(1, size + 1)],
            },
        )
    lines = ["", "\x01", "größer, 日本"]
    leaves = [leaf(line) for line in lines]
    add(
        "tree-of-odd-lines",
        "Leaves are hashed with a zero byte in front, nodes with a one: an empty line is a leaf like others.",
        "merkle",
        {"lines": lines},
        {
            "root": root(leaves).hex(),
            "inclusion": [[each.hex() for each in path(index, leaves)] for index in range(3)],
            "consistency": [[each.hex() for each in subproof(old, leaves, True)] for old in range(1, 4)],
        },
    )


LINES: list[str] = CHAINS.lines_of(CHAINS.chain())
LEAVES = [leaf(line) for line in LINES]
ROOT = root(LEAVES)
GOOD = KEY.note(6, ROOT)
LOOSE = f"{b64(ROOT)[:-2]}{chr(ord(b64(ROOT)[-2]) + 1)}="  # the same bytes, with a spare bit set
ELSEWHERE = KEY.note(6, ROOT, session=OTHER_SESSION)


def checkpoints() -> None:
    expect = {"origin": f"{NAME}/{SESSION}", "session_id": SESSION, "size": 6, "root": ROOT.hex(), "signer": NAME}

    def note(name: str, description: str, text: str, result: dict[str, Any], keys: tuple[Key, ...] = (KEY,)) -> None:
        add(name, description, "checkpoint", {"note": text, "keys": [key.vkey for key in keys]}, result)

    def error(name: str, description: str, text: str, code: str, keys: tuple[Key, ...] = (KEY,)) -> None:
        note(f"refused-{name}", description, text, {"error": code}, keys)

    body = GOOD.partition("\n\n")[0] + "\n"
    note("signed", "A checkpoint signed by the key that is trusted.", GOOD, expect)
    note("one-of-two-keys", "Of several trusted keys, one has to have signed.", GOOD, expect, (OTHER_KEY, KEY))
    note("two-signatures", "Signatures by other keys don't count, for or against.", GOOD + OTHER_KEY.line(body), expect)
    note("junk-signature", "A signature by an unknown key may be anything.", f"{GOOD}\u2014 witness AAAAAAAA\n", expect)
    extended = KEY.note(6, ROOT, extra="an extension\n")
    note("extension-line", "Extension lines are signed, and mean nothing here.", extended, expect)
    note(
        "empty-tree",
        "A tree without leaves has the hash of nothing as its root.",
        KEY.note(0, root([])),
        {**expect, "size": 0, "root": root([]).hex()},
    )
    error("unknown-key", "Signed by a key that isn't trusted.", OTHER_KEY.note(6, ROOT), "checkpoint_unsigned")
    error("no-key", "Where no key is trusted, nothing is signed.", GOOD, "checkpoint_unsigned", ())
    error("same-name", "A key of the same name is another key.", SAME_NAME.note(6, ROOT), "checkpoint_unsigned")
    forged = f"{body}\n\u2014 {NAME} {b64(KEY.id + bytes(64))}\n"
    error("forged", "The name and id of a trusted key, and no signature of it.", forged, "checkpoint_forged")
    error(
        "forged-beside",
        "A forged signature beside a good one.",
        GOOD + forged.partition("\n\n")[2],
        "checkpoint_forged",
    )
    error(
        "changed-size", "The size was changed after it was signed.", GOOD.replace("\n6\n", "\n7\n"), "checkpoint_forged"
    )
    error(
        "other-origin",
        "A key only speaks for sessions under its own name.",
        KEY.note(6, ROOT, origin=f"example.com/x/{SESSION}"),
        "checkpoint_origin",
    )
    error("no-session", "An origin that names no session.", KEY.note(6, ROOT, origin=NAME), "checkpoint_origin")
    stripped = body + "\n"
    for name, description, text in (
        ("stripped", "Without its signature.", stripped),
        ("no-line-feed", "Without the last line feed.", GOOD[:-1]),
        ("carriage-returns", "Lines end in a line feed only.", GOOD.replace("\n", "\r\n")),
        ("hyphen", "The dash is U+2014.", GOOD.replace("\u2014", "-")),
        ("leading-zero", "The size has no leading zeros.", GOOD.replace("\n6\n", "\n06\n")),
        ("signed-size", "The size has no sign.", GOOD.replace("\n6\n", "\n+6\n")),
        ("size-of-another-script", "Digits are ASCII.", GOOD.replace("\n6\n", "\n\u0666\n")),
        ("huge-size", "A size is below 2^63.", GOOD.replace("\n6\n", "\n9223372036854775808\n")),
        ("short-root", "A root has 32 bytes.", GOOD.replace(b64(ROOT), b64(ROOT[:31]))),
        ("loose-base64", "Base64 has one form: no spare bits.", GOOD.replace(b64(ROOT), LOOSE)),
        ("unpadded", "Base64 has its padding.", GOOD.replace(b64(ROOT), b64(ROOT)[:-1])),
        ("empty-origin", "No line of the text is empty.", GOOD.replace(f"{NAME}/{SESSION}\n", "\n", 1)),
        ("two-lines", "The text has three lines at least.", GOOD.replace("\n6\n", "\n", 1)),
        ("text-after", "Nothing follows the signatures.", f"{GOOD}more\n"),
        ("empty", "Nothing at all.", ""),
    ):  # fmt: skip
        error(f"form-{name}", description, text, "malformed_checkpoint")


def inclusion(index: int, leaves: list[bytes] | None = None, *, line: str | None = None, note: str = GOOD) -> str:
    hashes = "".join(f"{b64(each)}\n" for each in path(index, leaves or LEAVES))
    text = LINES[index] if line is None else line
    return f"c2sp.org/tlog-proof@v1\nextra {b64(text.encode())}\nindex {index}\n{hashes}\n{note}"


def consistency(old: int, new: int, *, first: str | None = None, second: str | None = None) -> str:
    hashes = "".join(f"{b64(each)}\n" for each in subproof(old, LEAVES[:new], True))
    before = first or KEY.note(old, root(LEAVES[:old]))
    after = second or KEY.note(new, root(LEAVES[:new]))
    return f"cra.dev/consistency-proof@v1\n{hashes}\n{before}\n{after}"


def proofs() -> None:
    keys = [KEY.vkey]

    def proof(name: str, description: str, text: str, result: dict[str, Any]) -> None:
        add(name, description, "proof", {"proof": text, "keys": keys}, result)

    events = CHAINS.chain()
    for index in range(6):
        proof(
            f"inclusion-{index}",
            f"Event {index} of six.",
            inclusion(index),
            {"kind": "inclusion", "index": index, "event_hash": events[index]["event_hash"], "signer": NAME},
        )
    alone = KEY.note(1, root(LEAVES[:1]))
    proof(
        "inclusion-alone",
        "The only event of a session: no hashes are needed.",
        inclusion(0, LEAVES[:1], note=alone),
        {"kind": "inclusion", "index": 0, "event_hash": events[0]["event_hash"], "signer": NAME},
    )
    good = inclusion(2)
    hashes = [b64(each) for each in path(2, LEAVES)]
    for name, description, text in (
        ("other-event", "Another event than was signed.", inclusion(2, line=LINES[2].replace("default", "another"))),
        ("other-index", "Another place than the event's.", good.replace("index 2\n", "index 3\n")),
        ("beyond-the-end", "An index beyond the end.", good.replace("index 2\n", "index 6\n")),
        ("hash-missing", "A hash too few.", good.replace(f"{hashes[-1]}\n", "", 1)),
        ("hash-added", "A hash too many.", good.replace(f"{hashes[-1]}\n", f"{hashes[-1]}\n{hashes[-1]}\n", 1)),
        ("hash-changed", "A changed hash.", good.replace(hashes[0], b64(bytes(32)))),
        ("hashes-swapped", "Hashes in another order.", good.replace(f"{hashes[0]}\n{hashes[1]}\n", f"{hashes[1]}\n{hashes[0]}\n")),
        ("of-another-session", "An event of another session than the origin's.", inclusion(2, note=ELSEWHERE)),
        ("not-its-place", "An event signed at a place that is not its sequence.",
         inclusion(1, [LEAVES[0], LEAVES[2]], line=LINES[2], note=KEY.note(2, root([LEAVES[0], LEAVES[2]])))),
        ("consistency-broken", "A newer checkpoint of another history.",
         consistency(3, 6, second=KEY.note(6, root([leaf("x"), *LEAVES[1:]])))),
        ("consistency-backwards", "The older one is the newer one.",
         consistency(3, 6, first=KEY.note(6, ROOT), second=KEY.note(3, root(LEAVES[:3])))),
        ("consistency-of-two-sessions", "Checkpoints of two sessions.",
         consistency(3, 6, second=ELSEWHERE)),
    ):  # fmt: skip
        proof(f"failed-{name}", description, text, {"error": "proof_failed"})
    unsigned = inclusion(2, note=OTHER_KEY.note(6, ROOT))
    proof("failed-unsigned", "Signed by a key that isn't trusted.", unsigned, {"error": "checkpoint_unsigned"})
    proof("failed-forged", "A signature that is none.", good.replace("\n6\n", "\n7\n"), {"error": "checkpoint_forged"})
    proof("failed-stripped", "Without its signature.", good.rpartition("\u2014")[0], {"error": "malformed_checkpoint"})
    for name, description, text in (
        ("no-event", "Without the event.", good.replace(f"extra {b64(LINES[2].encode())}\n", "")),
        ("no-index", "Without an index.", good.replace("index 2\n", "")),
        ("leading-zero", "An index has no leading zeros.", good.replace("index 2\n", "index 02\n")),
        ("short-hash", "A hash has 32 bytes.", good.replace(hashes[0], b64(bytes(31)))),
        ("no-base64", "What is no Base64.", good.replace(hashes[0], "?")),
        ("other-version", "A version that isn't known.", good.replace("proof@v1", "proof@v2")),
        ("one-checkpoint", "One checkpoint where there should be two.", consistency(3, 6).rpartition(f"\n{NAME}/")[0]),
        ("empty", "Nothing at all.", ""),
    ):
        proof(f"refused-{name}", description, text, {"error": "malformed_proof"})
    for old, new in ((1, 6), (3, 6), (4, 6), (6, 6), (2, 3)):
        proof(
            f"consistency-{old}-{new}",
            f"{new} events continue {old}.",
            consistency(old, new),
            {"kind": "consistency", "old_size": old, "size": new, "signer": NAME},
        )


def diagnoses() -> None:
    events = CHAINS.chain()
    notes = [KEY.note(size, root(LEAVES[:size])) for size in (2, 4, 6)]

    def diagnosis(
        name: str, description: str, lines: list[str], expect: tuple[Any, ...], given: list[str] = notes
    ) -> None:
        fields = dict(zip(("ok", "kind", "code", "bad_index", "covered", "ended"), expect, strict=True))
        asked = {"lines": lines, "session_id": SESSION, "notes": given, "keys": [KEY.vkey]}
        add(f"diagnosis-{name}", description, "diagnosis", asked, fields)

    def forged_from(index: int) -> list[str]:
        changed = CHAINS.chain()
        changed[index]["timestamp"] = "2026-01-02T03:04:05.000005Z"
        for event in changed[index:]:
            event["timestamp"] = "2026-01-02T03:04:05.000005Z"
        return CHAINS.lines_of(CHAINS.relinked(changed))

    edit = [*LINES[:3], LINES[3].replace("ticket.get", "ticket.set"), *LINES[4:]]
    resealed = [*events[:3], CHAINS.sealed({**events[3], "timestamp": "2026-01-02T03:04:05.000004Z"}), *events[4:]]
    other = forged_from(0)
    elsewhere = KEY.note(6, root([leaf(line) for line in other]))
    diagnosis("agrees", "Nothing was done.", LINES, (True, None, None, None, 6, True))
    diagnosis("alone", "Without a checkpoint nothing is covered.", LINES, (True, None, None, None, 0, False), [])
    diagnosis(
        "grown",
        "What came after the checkpoint is not covered by it.",
        LINES,
        (True, None, None, None, 4, False),
        notes[:2],
    )
    diagnosis("edited", "A changed event.", edit, (False, "edited", "hash_mismatch", 3, 2, False))
    diagnosis(
        "edited-resealed",
        "A changed event with a fitting hash.",
        CHAINS.lines_of(resealed),
        (False, "edited", "chain_broken", 4, 2, False),
    )
    diagnosis("removed", "An event less.", [*LINES[:2], *LINES[3:]], (False, "removed", "chain_broken", 2, 2, False))
    diagnosis(
        "inserted",
        "An event twice.",
        [*LINES[:4], LINES[1], *LINES[4:]],
        (False, "inserted", "chain_broken", 4, 4, False),
    )
    diagnosis(
        "reordered",
        "Two events in each other's place.",
        [*LINES[:2], LINES[3], LINES[2], *LINES[4:]],
        (False, "reordered", "chain_broken", 2, 2, False),
    )
    diagnosis("truncated", "The end is missing.", LINES[:5], (False, "truncated", "truncated", 5, 4, False))
    diagnosis(
        "truncated-unnoticed",
        "The end is missing, and nothing is known of it.",
        LINES[:5],
        (True, None, None, None, 0, False),
        [],
    )
    diagnosis(
        "rewritten", "All of it was written anew.", other, (False, "rewritten", "checkpoint_mismatch", 0, 0, False)
    )
    diagnosis(
        "forked",
        "From the third event on it was written anew.",
        forged_from(3),
        (False, "forked", "checkpoint_mismatch", 2, 2, False),
    )
    diagnosis("forked-by-the-signer", "Two histories were signed.", LINES,
              (False, "forked", "checkpoint_mismatch", 4, 4, False), [notes[1], elsewhere])  # fmt: skip
    swapped = [{**event, "session_id": OTHER_SESSION} for event in CHAINS.chain()]
    diagnosis(
        "swapped",
        "A trace of another session.",
        CHAINS.lines_of(CHAINS.relinked(swapped)),
        (False, "swapped", "session_mismatch", 0, 0, False),
    )


def files() -> dict[str, bytes]:
    """File name to content, in order."""
    VECTORS.clear()
    for part in (merkle, checkpoints, proofs, diagnoses):
        part()
    return CHAINS.numbered(VECTORS)


if __name__ == "__main__":
    CHAINS.write(files(), *map(Path, sys.argv[1:2] or [FOLDER]))
