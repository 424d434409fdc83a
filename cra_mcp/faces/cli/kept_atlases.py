"""What the atlases kept beside traces add to what a trace says: which atlas an action is of, and why its policies are there.

Rule: an atlas counts only if it has the digest the trace names, so that what is said here held when the event was recorded.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from cra_mcp.atlas.model import Atlas
    from cra_mcp.trace.story import AtlasRef, Story


@dataclass(frozen=True, slots=True)
class Governing:
    """The atlas an action is of. ``atlas`` is None where no copy is kept."""

    ref: "AtlasRef"
    atlas: "Atlas | None"

    def reason(self, policy_id: str | None) -> str | None:
        """What a policy of it gives as its reason."""
        policies = self.atlas.policies if self.atlas is not None else ()
        return next((policy.reason for policy in policies if policy.policy_id == policy_id and policy.reason), None)


class KeptAtlases:
    """The atlases beside one folder of traces, each loaded once, and none where there are none."""

    def __init__(self, folder: "Path") -> None:
        self._folder = folder
        self._loaded: dict[str, Atlas | None] = {}

    def governing(self, story: "Story", sequence: int, action_id: str | None) -> Governing | None:
        """The atlas an action was of when an event was recorded.

        None where that can't be told: no loaded atlas has it, or it may be of one of several of which no copy is kept.
        """
        refs = story.atlases_at(sequence)
        found = [(ref, self._load(ref.digest)) for ref in refs]
        for ref, atlas in found:
            if atlas is not None and any(action.action_id == action_id for action in atlas.actions):
                return Governing(ref, atlas)
        unknown = [ref for ref, atlas in found if atlas is None]
        return Governing(unknown[0], None) if len(found) == len(unknown) == 1 else None

    def _load(self, digest: str) -> "Atlas | None":
        if digest not in self._loaded:
            self._loaded[digest] = self._read(digest)
        return self._loaded[digest]

    def _read(self, digest: str) -> "Atlas | None":
        if not self._folder.is_dir():
            return None
        from cra_mcp.atlas.archive import FOLDER, AtlasArchive  # noqa: PLC0415 - not for --help

        root = self._folder / FOLDER
        return AtlasArchive(root).load(digest) if root.is_dir() else None
