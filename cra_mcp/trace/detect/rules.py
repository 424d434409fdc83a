"""What personal data look like, and what searches of texts go by; how secrets are written is in ``secret_forms``.

Rule: linear in the length of a text. Every pattern begins with characters a match must have, and whatever may still fail after
them is bounded; of classes that follow each other, none holds what ends the one before. Source: ISO/IEC 7812 (card numbers, check
digit of Luhn); RFC 5321 (mailboxes).
"""

import re

SECRET, PRIVATE_KEY, NAMED, CARD, EMAIL, ENTROPY = "secret", "private_key", "named", "card", "email", "entropy"
BUILT_IN = (PRIVATE_KEY, SECRET, NAMED, CARD, EMAIL, ENTROPY)
"""The detectors, the surest first: where two find the same text, it is marked by the first of them."""

_ALNUM = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def _classes(*classes: tuple[bytes, bytes]) -> bytes:
    """A table for ``bytes.translate``: every byte of a class becomes its letter, all others a blank."""
    table = bytearray(b" " * 256)
    for members, letter in classes:
        for byte in members:
            table[byte] = letter[0]
    return bytes(table)


TOKEN_CHARS = _classes((_ALNUM + b"+/=_-.~", b"w"))
RUN_CHARS = 16
RUN = re.compile(b"w" * RUN_CHARS + b"w*")
"""Of a text translated by ``TOKEN_CHARS``: what is long enough to be a token. A literal, so that it is searched as fast as one."""

DIGITS = _classes((b"0123456789", b"d"))
CARD_MIN_DIGITS, CARD_MAX_DIGITS = 13, 19
DIGIT_RUN = b"d" * CARD_MIN_DIGITS

HEX = b"0123456789abcdef-"
"""Of these digests and UUIDs are made: no secret that is known by its form is."""

HINTS = re.compile(b"pass|secret|token|key|pwd")
"""In every text, lower-cased, in which ``ASSIGNED`` finds something."""

CARD_DIGITS = re.compile(rf"[0-9](?:[ -]?[0-9]){{{CARD_MIN_DIGITS - 1},}}")
CARD_SEPARATORS = str.maketrans("", "", " -")

MAILBOX = re.compile(r"[^\s@<>()\[\]{}\\,;:\"'`|=/]{1,64}\Z")
MAIL_DOMAIN = re.compile(r"(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w-])")
MAX_MAILBOX = 64

_CARD_LENGTHS: tuple[tuple[range, range], ...] = (
    (range(40000, 50000), range(13, 20)),  # Visa
    (range(51000, 56000), range(16, 17)),  # Mastercard
    (range(22210, 27210), range(16, 17)),
    (range(34000, 35000), range(15, 16)),  # American Express
    (range(37000, 38000), range(15, 16)),
    (range(60110, 60120), range(16, 20)),  # Discover
    (range(64400, 66000), range(16, 20)),
    (range(35280, 35900), range(16, 20)),  # JCB
    (range(30000, 30600), range(14, 20)),  # Diners Club
    (range(36000, 37000), range(14, 20)),
    (range(38000, 40000), range(14, 20)),
    (range(62000, 63000), range(16, 20)),  # UnionPay
)
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


MAX_HEX = 128
HEX_FORM = re.compile(
    "(?<![0-9A-Za-z-])(?:"
    "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[1-8][0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}-[0-9A-Fa-f]{12}"
    f"|[0-9A-Fa-f]{{32,{MAX_HEX}}}"
    ")(?![0-9A-Za-z-])"
)
"""UUIDs and digests."""


def is_card(digits: str) -> bool:
    """Whether digits are a card number: an issuer's prefix, its length, and the check digit."""
    prefix, length = int(digits[:5]), len(digits)
    if not any(prefix in prefixes and length in lengths for prefixes, lengths in _CARD_LENGTHS):
        return False
    total = sum(_DOUBLED[int(digit)] if place % 2 else int(digit) for place, digit in enumerate(reversed(digits)))
    return total % 10 == 0
