"""Traces no runtime would write: any event in any order, any value in the fields that are read, and lines that are no events."""

import random

from cra_mcp.trace.event import REQUIRED_FIELDS
from tests.faces.mcp.app import made

ATTACKS = (
    "\x1b[2J\x1b]0;owned\x07",
    "<script>window.pwned=1;fetch('/leak')</script>",
    "</style><img src=/leak onerror=window.pwned=1>",
    '"><svg onload=window.pwned=1>',
    "\u202egpj.exe\u2066\u200b\u2028\r\n",
    "{{constructor}} %s {0} \\u{1b}",
    "W" * 3_000,
    "e" + "\u0301" * 40,
    "",
)
_IDS = tuple(made.identifier(number) for number in range(3))
_FIELDS = sorted(
    {name for names in REQUIRED_FIELDS.values() for name in names}
    | {
        "approval_id",
        "request_id",
        "resolution_id",
        "comment",
        "grade",
        "basis",
        "parameters",
        "result_bytes",
        "replaces",
    }
)
_TYPES = (*REQUIRED_FIELDS, "x.other", *("action.requested", "policy.evaluated", "approval.granted") * 4)


def lines(seed: int, *, junk: bool = True) -> list[bytes]:
    """Up to forty lines; equal seeds give equal ones."""
    chance = random.Random(seed)
    steps: list[made.Step] = []
    for _ in range(chance.randrange(40)):
        payload = {name: _value(chance) for name in chance.sample(_FIELDS, chance.randrange(12))}
        steps.append((chance.choice(_TYPES), payload, chance.randrange(4)))
    found = made.chain(steps)
    for _ in range(chance.randrange(3) if junk else 0):
        spoiled = chance.randbytes(20) if chance.random() < 0.5 or not found else chance.choice(found)[:-30]
        found.insert(chance.randrange(len(found) + 1), spoiled)
    if junk and chance.random() < 0.3:
        chance.shuffle(found)
    return found


def _value(chance: random.Random, depth: int = 0) -> object:
    kind = chance.randrange(9)
    if kind < 2:
        return chance.choice(_IDS)
    if kind < 5:
        return chance.choice((*ATTACKS, "allow", "deny", "require_approval", "default", "ann"))
    if kind == 5:
        return chance.choice((None, True, -1, 0, 7, 2**53 - 1, 1e300, 0.5))
    if depth > 2:
        return []
    if kind == 6:
        return {chance.choice(_FIELDS): _value(chance, depth + 1) for _ in range(3)}
    return [_value(chance, depth + 1) for _ in range(chance.randrange(4))]
