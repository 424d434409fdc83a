"""The kill switch of a runtime: freezing and unfreezing, each told in a trace of its own.

Rule: a freeze is in force before it is recorded, and recorded as lifted before it no longer is.
Source: specs/policy.md, "Freezing".
"""

from collections.abc import Mapping
from typing import cast

from cra_mcp.canonical import lossy
from cra_mcp.gate.gate import Gate
from cra_mcp.policy.model import RiskTier
from cra_mcp.runtime.sessions import Sessions
from cra_mcp.settings import RuntimeConfig
from cra_mcp.state.freezes import Freeze, Kind


class KillSwitch:
    """Freezes what the gate then refuses, and records that in a session made for it."""

    def __init__(self, config: RuntimeConfig, gate: Gate, sessions: Sessions) -> None:
        self._config = config
        self._gate = gate
        self._sessions = sessions

    def freeze(self, kind: Kind, name: str, *, reason: str, by: str | None) -> Freeze:
        """Freeze something. Raises as ``Runtime.freeze``."""
        made = self._gate.freezes.freeze(kind, name, reason=reason, by=by or self._config.subject)
        self._record("x.cra.freeze.set", made.to_dict())
        return made

    def unfreeze(self, kind: Kind, name: str, *, by: str | None) -> bool:
        """Let something go on; False if it was not frozen. Raises as ``Runtime.unfreeze``."""
        if not any((each.kind, each.name) == (kind, name) for each in self.list()):
            return False
        self._record("x.cra.freeze.lifted", {"kind": kind, "name": name, "by": by or self._config.subject})
        return self._gate.freezes.unfreeze(kind, name)

    def list(self) -> list[Freeze]:
        """Everything that is frozen, oldest first. Raises as ``Runtime.freezes``."""
        return self._gate.freezes.list()

    def _record(self, event_type: str, payload: Mapping[str, object]) -> None:
        session = self._sessions.begin(
            self._gate.catalogue,
            agent_id=self._config.agent_id,
            goal=event_type,
            parent=None,
            risk_tier=RiskTier.LOW,
            context={},
            principal=None,
        )
        try:
            self._sessions.record(session, event_type, cast("Mapping[str, object]", lossy(payload)))
        finally:
            self._sessions.end(session, "completed")
