"""The atlases and operator policies of a runtime: loaded, replaced and forgotten while sessions are under way.

Rule: every session under way records a change before it is in force; one that can't be recorded does not happen. All of a
change is in force, or none of it. Source: specs/atlas.md, "Edited while it is served".
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from cra_mcp.atlas.archive import AtlasArchive
from cra_mcp.atlas.model import Atlas
from cra_mcp.atlas.overlay import Overlay
from cra_mcp.atlas.overlay_loading import load_overlay_atlas, load_policy_file
from cra_mcp.atlas.registry import Catalogue
from cra_mcp.errors import AtlasConflictError, AtlasInvalidError, CRAError, Problem, RequestError
from cra_mcp.gate.gate import Gate
from cra_mcp.runtime.resolving import Resolving
from cra_mcp.runtime.sessions import Sessions
from cra_mcp.runtime.watching import Change

_MAX_TOLD = 1_000  # characters of what is wrong with an atlas, in a trace


class LoadedAtlases:
    """What the gate and the resolver go by, and the one place where it changes.

    Args:
        gate: decides by what is loaded.
        resolving: publishes what is loaded.
        sessions: record every change.
        archive: keeps what is loaded, for replay; None: it isn't kept.
    """

    def __init__(self, gate: Gate, resolving: Resolving, sessions: Sessions, archive: AtlasArchive | None) -> None:
        self._gate = gate
        self._resolving = resolving
        self._sessions = sessions
        self._archive = archive
        self._keep = archive.keep if archive is not None else None
        self._lock = threading.RLock()

    @property
    def catalogue(self) -> Catalogue:
        """What is in force now."""
        return self._gate.catalogue

    @property
    def archive(self) -> AtlasArchive | None:
        """What is kept for replay; None where nothing is."""
        return self._archive

    def use(self) -> Catalogue:
        """What is in force now, for a session that is about to name it: what is kept of it for replay stays."""
        catalogue = self.catalogue
        if self._archive is not None:
            self._archive.refresh(each.digest for each in (*catalogue.atlases, *catalogue.overlays))
        return catalogue

    def get(self, atlas_id: str) -> Atlas:
        """One loaded atlas.

        Raises:
            RequestError: ``unknown_atlas``.
        """
        atlas = self.catalogue.get(atlas_id)
        if atlas is None:
            raise RequestError(
                "unknown_atlas", f"no loaded atlas is called {atlas_id[:100]!r}", hint="see list_atlases()"
            )
        return atlas

    def load(self, path: Path) -> Atlas:
        """Load an atlas folder or file. Raises as ``Runtime.load_atlas``."""
        from cra_mcp.atlas.loader import load_atlas  # noqa: PLC0415 - pydantic and schemas only where atlases are read

        return self._add(load_atlas(path, keep=self._keep))

    def load_text(self, text: str | bytes) -> Atlas:
        """Load an atlas of one JSON text. Raises as ``Runtime.load_atlas``."""
        from cra_mcp.atlas.loader import load_atlas_text  # noqa: PLC0415 - as above

        return self._add(load_atlas_text(text, keep=self._keep))

    def unload(self, atlas_id: str) -> None:
        """Forget an atlas. Raises as ``Runtime.unload_atlas``."""
        with self._lock:
            atlas = self.get(atlas_id)
            self._switch(self.catalogue.without(atlas_id), ("atlas.unloaded", atlas))

    def replace(self, atlas_id: str, path: Path) -> Atlas:
        """Load an atlas in the place of a loaded one. Raises as ``Runtime.replace_atlas``."""
        from cra_mcp.atlas.loader import load_atlas  # noqa: PLC0415 - as above

        with self._lock:
            old = self.get(atlas_id)
            with self._recording_what_is_wrong():
                new = load_atlas(path, keep=self._keep)
                if new.digest == old.digest:
                    return old
                catalogue = self.catalogue.with_replaced(atlas_id, new)
            self._switch(catalogue, ("atlas.unloaded", old), ("atlas.loaded", new))
            return new

    def load_policy_file(self, path: Path) -> None:
        """Have the policies of a file govern every action. Raises as ``Runtime.load_policy_file``."""
        self._add_overlay(self._read_overlay(path, policy_file=True))

    def load_overlay(self, path: Path) -> None:
        """Have an overlay atlas govern every action of the others. Raises as ``Runtime.load_policy_file``."""
        self._add_overlay(self._read_overlay(path, policy_file=False))

    def replace_overlay(self, overlay_id: str, path: Path) -> Overlay:
        """Load a policy file or overlay atlas in the place of a loaded one. Raises as ``Runtime.replace_overlay``."""
        with self._lock:
            old = next((each for each in self.catalogue.overlays if each.overlay_id == overlay_id), None)
            if old is None:
                raise CRAError(
                    f"no loaded overlay is called {overlay_id[:100]!r}", code="unknown_overlay", hint="see overlays()"
                )
            with self._recording_what_is_wrong():
                new = self._read_overlay(path, policy_file=old.is_policy_file)
                if new.digest == old.digest:
                    return old
                catalogue = self.catalogue.with_replaced_overlay(new, overlay_id)
            for session in self._sessions.active():
                self._sessions.record(session, "x.cra.overlay.loaded", {**new.to_dict(), "replaces": overlay_id})
            self._use(catalogue)
            return new

    def _read_overlay(self, path: Path, *, policy_file: bool) -> Overlay:
        if not policy_file:
            return load_overlay_atlas(path, keep=self._keep)
        return load_policy_file(path, keep=self._archive.keep_policy_file if self._archive is not None else None)

    @contextmanager
    def _recording_what_is_wrong(self) -> Generator[None]:
        """Record in every session under way why what was edited is not used."""
        try:
            yield
        except (AtlasInvalidError, AtlasConflictError) as error:
            told = CRAError(error.message[:_MAX_TOLD], code=error.code)
            for session in self._sessions.active():
                self._sessions.record_error(session, None, told)
            raise

    def _add(self, atlas: Atlas) -> Atlas:
        if atlas.overlay:
            problem = Problem("atlas.json", "/overlay", "invalid_value", f"{atlas.atlas_id} governs other atlases")
            raise AtlasInvalidError([problem], hint="load it with --overlay, or load_overlay()")
        with self._lock:
            self._switch(self.catalogue.with_atlas(atlas), ("atlas.loaded", atlas))
        return atlas

    def _add_overlay(self, overlay: Overlay) -> None:
        with self._lock:
            catalogue = self.catalogue.with_overlay(overlay)
            for session in self._sessions.active():
                self._sessions.record(session, "x.cra.overlay.loaded", overlay.to_dict())
            self._use(catalogue)

    def _switch(self, catalogue: Catalogue, *changes: tuple[str, Atlas]) -> None:
        """Make a new catalogue current; every session under way records it first, or nothing changes."""
        replaced = changes[0][1].atlas_id if len(changes) > 1 else None
        for session in self._sessions.active():
            for event_type, atlas in changes:
                payload = {"atlas_id": atlas.atlas_id, "version": atlas.version, "digest": atlas.digest}
                if event_type == "atlas.loaded" and replaced is not None:
                    payload["replaces"] = replaced
                self._sessions.record(session, event_type, payload)
        self._use(catalogue)

    def _use(self, catalogue: Catalogue) -> None:
        self._gate.use(catalogue)
        self._resolving.use(catalogue)
        self._sessions.watchers.tell(Change("catalogue"))
