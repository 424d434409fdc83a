"""How secrets are written: the forms of keys and tokens, names that announce one, texts that look drawn at random.

Rule: linear in the length of a text. Every pattern begins with characters a match must have, and whatever may still fail after
them is bounded. Source: the vendors' published forms of their keys; RFC 7468 (PEM); RFC 7519 (JWT).
"""

import re
from functools import lru_cache
from math import log2
from operator import ne

PREFIXED = re.compile(
    "|".join(
        (
            r"A(?:KIA|SIA|BIA|CCA)[A-Z0-9]{16}(?![A-Za-z0-9])",  # AWS
            r"AIza[A-Za-z0-9_-]{35}|GOCSPX-[A-Za-z0-9_-]{20,}|ya29\.[A-Za-z0-9_-]{20,}",  # Google
            r"ATATT3[A-Za-z0-9_=-]{40,}",  # Atlassian
            r"AGE-SECRET-KEY-1[A-Z0-9]{58}",
            r"AccountKey=[A-Za-z0-9+/]{40,}={0,2}",  # Azure storage
            r"SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,}",  # SendGrid
            r"SK[0-9a-f]{32}(?![A-Za-z0-9])",  # Twilio
            r"cra_[A-Za-z0-9]{12}_[A-Za-z0-9]{49}",  # our own
            r"dop_v1_[a-f0-9]{40,}|dckr_pat_[A-Za-z0-9_-]{20,}",  # DigitalOcean, Docker
            r"eyJ[A-Za-z0-9_-]{8,1024}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,3}",  # JWT
            r"g(?:h[pousr]_[A-Za-z0-9]{36,}|ithub_pat_[A-Za-z0-9_]{22,})",  # GitHub
            r"gl(?:pat|ptt|rt|dt|cbt|ft|soat|oas|agent|imt|sa)[-_][A-Za-z0-9_-]{20,}",  # GitLab, Grafana
            r"gsk_[A-Za-z0-9]{40,}",  # Groq
            r"h(?:vs\.[A-Za-z0-9_-]{20,}|f_[A-Za-z0-9]{30,}|ooks\.slack\.com/services/[A-Za-z0-9/]{20,})",
            r"lin_api_[A-Za-z0-9]{32,}",  # Linear
            r"npm_[A-Za-z0-9]{36}|pypi-AgE[A-Za-z0-9_-]{50,}|pplx-[A-Za-z0-9]{40,}",
            r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/]{24,}={0,2}",  # Stripe
            r"sk-(?=[A-Za-z_-]{0,64}[0-9])[A-Za-z0-9_-]{20,}",  # OpenAI, Anthropic and those who do alike
            r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}|sbp_[a-f0-9]{40}",  # Shopify, Supabase
            r"xox[abeprs]-[A-Za-z0-9-]{10,}|xapp-[0-9]-[A-Za-z0-9-]{10,}|xai-[A-Za-z0-9]{60,}",  # Slack, xAI
        )
    )
)

PEM_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----")
PEM_END = re.compile(r"-----END [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----")

_WORDS_OF_SECRETS = (
    r"pass(?:word|wd|phrase)|pwd|secret|token|(?:api|access|private|account|signing|encryption|master)[_-]?key"
)
ASSIGNED = re.compile(
    rf"(?<!\[redacted:)(?i:{_WORDS_OF_SECRETS})[\"']?[ \t]{{0,4}}(?:=|:(?![ \t]{{0,4}}+[A-Za-z]{{1,64}}+(?:[\s,;.)]|$)))"
    r"[ \t]{0,4}[\"']?(?!\[redacted)(?P<value>[^\s\"',;&<>]{4,})"
)
"""``password=…``, ``token: …``; after a colon only what isn't a plain word."""

BEARER = re.compile(r"(?i:bearer|basic)[ \t]{1,4}(?P<value>[A-Za-z0-9._~+/-]{16,}={0,2})")
URL_PASSWORD = re.compile(r"://[^\s/:@\"'<>]{0,128}:(?!\[redacted)(?P<value>[^\s/@\"'<>]{1,256})@")

_KINDS = bytes(
    ord("U") if 65 <= byte <= 90 else ord("l") if 97 <= byte <= 122 else ord("d") if 48 <= byte <= 57 else ord(" ")  # noqa: PLR2004 - ASCII
    for byte in range(256)
)


ENTROPIC = re.compile(r"[A-Za-z0-9+/_-]{20,}={0,2}")
_SAMPLE = 256  # characters of a candidate that are looked at
_MIN_BITS = 3.5
_MIN_CHANGES = (
    0.45  # of 64 random characters two in three neighbours are of different kinds; in names, two in five at most
)
_MIN_CHANGES_WITHOUT_DIGITS = 0.55
_MIN_LETTERS = 24
_WORDY = re.compile(b"lll+")
_MAX_WORDY = 0.4  # of random characters, one in six stands in a row of three or more small letters; in names, most
_BASE36_CHARS, _MIN_CHANGES_BASE36 = 28, 0.3
_HEX = "0123456789abcdef"


def is_random(text: str) -> bool:
    """Whether a candidate of ``ENTROPIC`` looks as drawn at random. Hexadecimal texts never do: they are digests and ids."""
    pieces = text.rstrip("=").split("/")
    return any(_is_random(piece[:_SAMPLE]) for piece in pieces if len(piece) >= 20)  # noqa: PLR2004 - as in the pattern


def _is_random(text: str) -> bool:
    kinds = text.encode().translate(_KINDS)
    has_lower, has_upper, has_digit = b"l" in kinds, b"U" in kinds, b"d" in kinds
    if not has_lower or not (has_upper or has_digit):
        return False
    if not has_upper and (b" " in kinds or len(text) < _BASE36_CHARS or not text.strip(_HEX)):
        return False
    if not has_digit and len(text) < _MIN_LETTERS:
        return False
    least = _MIN_CHANGES_BASE36 if not has_upper else _MIN_CHANGES if has_digit else _MIN_CHANGES_WITHOUT_DIGITS
    if has_upper and sum(map(len, _WORDY.findall(kinds))) > _MAX_WORDY * len(kinds):
        return False
    changes = sum(map(ne, kinds, kinds[1:])) / (len(kinds) - 1)
    return changes >= least and _bits(text) >= _MIN_BITS


def _bits(text: str) -> float:
    """Shannon entropy of the characters, bits a character."""
    counts = [text.count(character) for character in set(text)]
    return -sum(count / len(text) * log2(count / len(text)) for count in counts)


_WORDS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+(?![a-z])")
_LAST = frozenset(
    (
        "password",
        "passwd",
        "passphrase",
        "pwd",
        "secret",
        "token",
        "apikey",
        "credential",
        "credentials",
        "authorization",
        "cookie",
        "pin",
        "cvv",
        "cvc",
        "otp",
    )
)
_KEYS = frozenset(
    ["api", "access", "private", "secret", "account", "signing", "encryption", "master", "auth", "client"]
)
_NOT_BEFORE_TOKEN = frozenset(
    ["page", "next", "previous", "prev", "continuation", "continue", "cursor", "sync", "progress", "start", "end"]
)
_NUMBERS = frozenset(("pin", "cvv", "cvc", "otp", "password", "passwd"))
_MAX_NAME = 128


@lru_cache(maxsize=2048)
def secret_name(name: str) -> str | None:
    """The word of a member's name that says its value is a secret (``apiKey``: ``key``); None if none does."""
    words = [word.lower() for word in _WORDS.findall(name[:_MAX_NAME])]
    if not words:
        return None
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if last == "token":
        return None if before in _NOT_BEFORE_TOKEN else last
    if last == "key":
        return last if before in _KEYS else None
    return last if last in _LAST else None


def hides_numbers(word: str) -> bool:
    """Whether a member named so has a secret even where it is a number."""
    return word in _NUMBERS


@lru_cache(maxsize=2048)
def has_secret_name(names: tuple[str, ...]) -> bool:
    """Whether one of an object's names says that its value is a secret."""
    return any(map(secret_name, names))


def has_certain(data: bytes) -> bool:
    """Whether bytes hold what has the form of a key, beyond doubt."""
    text = data.decode("utf-8", "replace")
    return PREFIXED.search(text) is not None or PEM_BEGIN.search(text) is not None
