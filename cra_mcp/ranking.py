"""Which documents fit a need best, and which of them fit a token budget.

Rule: the same need and documents give the same order, on every machine. Words count by how rare they are among the documents
(BM25); a document's name and keywords count for more than its text; its priority weighs what the words say, and decides where
they say nothing. Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009); specs/carp.md,
"Context for a need".
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from cra_mcp.atlas.model import ContextBlock

_K1 = 1.2
_B = 0.75
_HEADING_WEIGHT = 3
_HINT_WEIGHT = 2
_MAX_PRIORITY = 1_000
_MAX_NEED_TERMS = 256
_MIN_PLURAL = 4
_DIGITS = 6
_WORD = re.compile(r"[^\W_]+")
_COMMON = frozenset(
    _WORD.findall(
        "a an and any are as at be but by can do does for from has have how i if in into is it may me my no not of on or our so "
        "such that the their then there these they this to was we what when where which who why will with you your"
    )
)
"""Words that say nothing of what is needed; few documents make them look rare."""
_WITHOUT_SPACES = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document and how well it fits: 0.0 where no word of the need is in it; numbers of one need can be compared."""

    block: ContextBlock
    relevance: float


@dataclass(frozen=True, slots=True)
class Choice:
    """What fits a budget, best first, and what was left out for it."""

    given: tuple[Ranked, ...]
    left_out: tuple[Ranked, ...]


def rank(blocks: Sequence[ContextBlock], need: str, hints: Iterable[str] = ()) -> tuple[Ranked, ...]:
    """Order documents by how well they fit a need; those that fit alike by priority, then by id and source."""
    wanted = _wanted(need, hints)
    terms = [_terms(block.name, block.keywords, block.content) for block in blocks]
    lengths = [sum(each.values()) for each in terms]
    average = sum(lengths) / len(lengths) if blocks else 0.0
    rarity = {term: _rarity(sum(term in each for each in terms), len(blocks)) for term in wanted}
    ranked = [
        Ranked(block, round(_score(wanted, rarity, found, length / average if average else 0.0, block), _DIGITS))
        for block, found, length in zip(blocks, terms, lengths, strict=True)
    ]
    return tuple(
        sorted(ranked, key=lambda each: (-each.relevance, -each.block.priority, each.block.block_id, each.block.source))
    )


def within(ranked: Iterable[Ranked], max_tokens: int) -> Choice:
    """Take what fits, best first; what is too large makes room for what comes after it."""
    given: list[Ranked] = []
    left_out: list[Ranked] = []
    for each in ranked:
        fits = each.block.token_estimate <= max_tokens
        (given if fits else left_out).append(each)
        if fits:
            max_tokens -= each.block.token_estimate
    return Choice(tuple(given), tuple(left_out))


def words(text: str) -> list[str]:
    """The terms of a text, in order: words without case and plural, and pairs of characters of scripts without spaces."""
    found: list[str] = []
    for word in _WORD.findall(text.casefold()):
        if _WITHOUT_SPACES.search(word):
            found.extend(word[at : at + 2] for at in range(max(1, len(word) - 1)))
        elif len(word) >= _MIN_PLURAL and word.isascii() and word.endswith("s") and not word.endswith("ss"):
            found.append(word[:-1])
        else:
            found.append(word)
    return found


def _wanted(need: str, hints: Iterable[str]) -> Mapping[str, int]:
    """The terms of a need and what each counts for; a bounded number of them."""
    wanted = {term: 1 for term in words(need) if term not in _COMMON}
    for term in words(" ".join(hints)):
        wanted[term] = _HINT_WEIGHT
    return dict(list(wanted.items())[:_MAX_NEED_TERMS])


@lru_cache(maxsize=1_024)
def _terms(name: str, keywords: tuple[str, ...], content: str) -> Counter[str]:
    """How often each term is in a document. Kept: documents change only with their atlas."""
    counts = Counter(words(content))
    for term in words(" ".join((name, *keywords))):
        counts[term] += _HEADING_WEIGHT
    return counts


def _rarity(having: int, of: int) -> float:
    return math.log(1 + (of - having + 0.5) / (having + 0.5))


def _score(
    wanted: Mapping[str, int], rarity: Mapping[str, float], found: Counter[str], length: float, block: ContextBlock
) -> float:
    norm = _K1 * (1 - _B + _B * length)
    score = sum(
        weight * rarity[term] * found[term] * (_K1 + 1) / (found[term] + norm)
        for term, weight in wanted.items()
        if term in found
    )
    return score * (1 + block.priority / _MAX_PRIORITY)
