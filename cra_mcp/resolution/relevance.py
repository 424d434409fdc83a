"""Which documents a query gets, and in what order.

Source: specs/carp.md, "Relevance".
"""

import re

from cra_mcp.atlas.model import Atlas, ContextBlock
from cra_mcp.policy.conditions import Test, compile_conditions
from cra_mcp.resolution.model import Query
from cra_mcp.resolution.scope import Scope

_WORD = re.compile(r"\w+")
_HINT_WEIGHT = 2


def blocks_of(scope: Scope, query: Query, left_out: frozenset[tuple[str, str]]) -> tuple[ContextBlock, ...]:
    """The documents for a query, most important first; ``left_out``: ids of atlas and block that it does not get."""
    goal = _words(query.goal)
    hints = _words(" ".join(query.hints))
    ranked: list[tuple[int, int, str, str, ContextBlock]] = []
    for atlas in scope.atlases:
        for block in atlas.context_blocks:
            if scope.packs is not None and (atlas.atlas_id, block.pack_id) not in scope.packs:
                continue
            if (atlas.atlas_id, block.block_id) in left_out:
                continue
            relevance = _relevance(block, goal, hints)
            ranked.append((-block.priority, -relevance, block.block_id, atlas.atlas_id, block))
    ranked.sort(key=lambda entry: entry[:4])
    return tuple(entry[4] for entry in ranked)


def _relevance(block: ContextBlock, goal: frozenset[str], hints: frozenset[str]) -> int:
    """How many of a block's keywords the goal has, and twice as many for the hints (specs/carp.md, "Relevance")."""
    score = 0
    for keyword in block.keywords:
        words = _words(keyword)
        if words and words <= goal:
            score += 1
        if words and words <= hints:
            score += _HINT_WEIGHT
    return score


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.casefold()))


def condition_of(atlas: Atlas, block: ContextBlock) -> Test:
    """What must hold for a document to be given."""
    capabilities = frozenset(
        capability.capability_id for capability in atlas.capabilities if block.pack_id in capability.context_packs
    )
    return compile_conditions(block.conditions, capabilities=capabilities)
