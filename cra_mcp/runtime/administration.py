"""What an operator does to a runtime: loads and unloads what governs it, and freezes what must stop.

Source: specs/atlas.md, "Edited while it is served"; specs/policy.md, "Freezing".
"""

from pathlib import Path

from cra_mcp.atlas.model import Atlas
from cra_mcp.atlas.overlay import Overlay
from cra_mcp.atlas.registry import AtlasInfo, info_of
from cra_mcp.runtime import arguments
from cra_mcp.runtime.atlases import LoadedAtlases
from cra_mcp.runtime.freezing import KillSwitch
from cra_mcp.state.freezes import Freeze, Kind

_OF_TEXT = "load_atlas_from_json takes the text of an atlas"
_OF_FILE = "write it to a file and pass where it is"


class Administration:
    """The operator's part of a runtime."""

    def __init__(self, atlases: LoadedAtlases, kill_switch: KillSwitch) -> None:
        self._atlases = atlases
        self._kill_switch = kill_switch

    # --- atlases ---------------------------------------------------------------------------------------------------

    def load_atlas(self, path: str | Path) -> AtlasInfo:
        """Load an atlas folder, or an atlas of one ``.json`` file.

        Raises:
            AtlasInvalidError: with every problem found.
            AtlasConflictError: something loaded already has one of its names.
            RequestError: ``invalid_request``: an argument has the wrong type.
        """
        return info_of(self._atlases.load(arguments.path("path", path, _OF_TEXT)))

    def load_atlas_from_json(self, text: str | bytes) -> AtlasInfo:
        """Load an atlas of one JSON text. Raises as ``load_atlas``."""
        return info_of(self._atlases.load_text(arguments.document("text", text)))

    def load_policy_file(self, path: str | Path) -> None:
        """Have the policies of a file (JSON, or YAML 1.2) govern every action of every atlas. They only tighten.

        Raises:
            AtlasInvalidError: with every problem found, one that only shows beside a loaded atlas included.
            AtlasConflictError: an overlay of its name is loaded.
        """
        self._atlases.load_policy_file(arguments.path("path", path, _OF_FILE))

    def load_overlay(self, path: str | Path) -> None:
        """Have the policies of an overlay atlas govern every action of every other. Raises as ``load_policy_file``."""
        self._atlases.load_overlay(arguments.path("path", path, _OF_FILE))

    def replace_overlay(self, overlay_id: str, path: str | Path) -> Overlay:
        """Load a policy file or an overlay atlas again, in the place of the loaded one; all of it, or nothing changes.

        Calls under way end as they were decided. Unchanged content changes nothing; what its limits and budgets have counted stays.

        Raises:
            AtlasInvalidError: with every problem found, also that it is gone; recorded in every session under way.
            AtlasConflictError: another overlay has its name; recorded likewise.
            CRAError: ``unknown_overlay``.
        """
        return self._atlases.replace_overlay(overlay_id, Path(path))

    def overlays(self) -> tuple[Overlay, ...]:
        """The loaded overlays, in load order."""
        return self._atlases.catalogue.overlays

    def unload_atlas(self, atlas_id: str) -> None:
        """Forget an atlas: its actions are unknown from now on, in sessions under way too.

        Raises:
            RequestError: ``unknown_atlas``.
        """
        self._atlases.unload(atlas_id)

    def replace_atlas(self, atlas_id: str, path: str | Path) -> AtlasInfo:
        """Load an atlas again, in the place of a loaded one; all of it, or nothing changes.

        Calls under way end as they were decided. Unchanged content changes nothing.

        Raises:
            AtlasInvalidError: with every problem found; recorded in every session under way.
            AtlasConflictError: something else that is loaded has one of its names; recorded likewise.
            RequestError: ``unknown_atlas``.
        """
        return info_of(self._atlases.replace(atlas_id, Path(path)))

    def list_atlases(self) -> list[AtlasInfo]:
        """The loaded atlases, in load order."""
        return [info_of(atlas) for atlas in self._atlases.catalogue.atlases]

    def atlases(self) -> tuple[Atlas, ...]:
        """The loaded atlases themselves, in load order."""
        return self._atlases.catalogue.atlases

    def atlas(self, atlas_id: str) -> Atlas:
        """One loaded atlas.

        Raises:
            RequestError: ``unknown_atlas``.
        """
        return self._atlases.get(atlas_id)

    # --- the kill switch -------------------------------------------------------------------------------------------

    def freeze(self, kind: Kind, name: str = "", *, reason: str = "", by: str | None = None) -> Freeze:
        """Refuse every further call of an agent, of an atlas's actions, or at all, in every process with this data folder.

        Calls under way end as they were decided. It is in force before it is recorded, in a trace of its own.

        Args:
            kind: ``agent``, ``atlas`` or ``all``.
            name: the agent id or atlas id.
            reason: shown with every refusal.
            by: who wants it; None means the configured subject.

        Raises:
            StateUnavailableError: it is not in force.
            TraceUnavailableError: it is in force, and could not be recorded.
        """
        return self._kill_switch.freeze(kind, name, reason=reason, by=by)

    def unfreeze(self, kind: Kind, name: str = "", *, by: str | None = None) -> bool:
        """Let calls go on. False if what is named was not frozen. Recorded first, in a trace of its own.

        Raises:
            StateUnavailableError: it is frozen still.
            TraceUnavailableError: it could not be recorded, and is frozen still.
        """
        return self._kill_switch.unfreeze(kind, name, by=by)

    def freezes(self) -> list[Freeze]:
        """Everything that is frozen, oldest first.

        Raises:
            StateUnavailableError: the state can't be read.
        """
        return self._kill_switch.list()
