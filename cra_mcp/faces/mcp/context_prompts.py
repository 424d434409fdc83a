"""Context packs as prompts: what a person in a host picks to hand their agent the documents of a pack.

Rule: listed is what the caller could be given; getting one resolves and records like any request for context.
Source: specs/mcp.md, "Context packs as prompts".
"""

import mcp_types as t

from cra_mcp.access import Access
from cra_mcp.atlas.model import ContextBlock
from cra_mcp.atlas.names import prompt_name
from cra_mcp.faces.mcp import names
from cra_mcp.faces.mcp.connection import RequestContext, principal_of
from cra_mcp.faces.mcp.sessions import SessionFinder
from cra_mcp.runtime import Runtime
from cra_mcp.words import count_of

_GOAL = "goal"
_MAX_DESCRIPTION = 300
Pack = tuple[str, str]
"""``(atlas_id, pack_id)``."""


class ContextPrompts:
    """The prompts a caller can see that are context packs."""

    def __init__(self, runtime: Runtime, sessions: SessionFinder) -> None:
        self._runtime = runtime
        self._sessions = sessions

    def listing(self, ctx: RequestContext) -> list[t.Prompt]:
        """What to list, in no particular order."""
        packs = _packs(self._runtime.context(principal_of(ctx)))
        titles = {atlas.atlas_id: atlas.name for atlas in self._runtime.atlases()}
        return [
            t.Prompt(
                name=name,
                title=f"{titles[pack[0]]}: {pack[1]}",
                description=f"Documents: {', '.join(block.name for block in blocks)}"[:_MAX_DESCRIPTION],
                arguments=[t.PromptArgument(name=_GOAL, description="What the work is for; orders the documents.")],
            )
            for name, (pack, blocks) in _named(packs).items()
        ]

    def get(self, ctx: RequestContext, params: t.GetPromptRequestParams) -> t.GetPromptResult | None:
        """The documents of a pack, each recorded as given; None if the caller can see no pack of this name.

        Raises:
            CRAError: the session can't be used, the goal is too long, or it can't be recorded.
        """
        found = _named(_packs(self._runtime.context(principal_of(ctx)))).get(params.name)
        if found is None:
            return None
        pack, _ = found
        session = self._sessions.of(ctx).current()
        access = Access(self._runtime, principal_of(ctx))
        resolution = access.resolve(session.session_id, goal=(params.arguments or {}).get(_GOAL))
        blocks = _packs(resolution.context_blocks).get(pack, [])
        messages: list[t.PromptMessage] = []
        for block in blocks:
            self._runtime.record_context(session.session_id, block, access.principal)
            messages.append(t.PromptMessage(role="user", content=_text(pack, block)))
        return t.GetPromptResult(description=f"{count_of(len(messages), 'document')} of {pack[1]}", messages=messages)


def _packs(blocks: tuple[ContextBlock, ...]) -> dict[Pack, list[ContextBlock]]:
    found: dict[Pack, list[ContextBlock]] = {}
    for block in blocks:
        found.setdefault((block.source.split("/", 1)[0], block.pack_id), []).append(block)
    return found


def _named(packs: dict[Pack, list[ContextBlock]]) -> dict[str, tuple[Pack, list[ContextBlock]]]:
    """Packs by host-safe name: the last word of the atlas and the pack; with a digest where two atlases share that."""
    found: dict[str, tuple[Pack, list[ContextBlock]]] = {}
    for pack, blocks in packs.items():
        atlas_id, pack_id = pack
        name = prompt_name(atlas_id, pack_id)
        if name in found:
            name = prompt_name(atlas_id, pack_id, shared=True)
        found[name] = (pack, blocks)
    return found


def _text(pack: Pack, block: ContextBlock) -> t.TextContent:
    """A document as text: hosts drop what a prompt embeds, or fail at it."""
    return t.TextContent(
        type="text", text=block.content, _meta={names.CONTEXT_META: f"cra://context/{pack[0]}/{block.block_id}"}
    )
