"""The kill switch: agents, atlases or everything frozen until somebody unfreezes them.

Rule: what is frozen stands in the state database; a marker file beside it changes with every change, so that a server notices by
one look at that file. The marker is emptied before a change and filled after it: while it is empty, and whenever it differs from
what was seen, the database is read. What can't be read counts as frozen.
Source: specs/policy.md, "Freezing".
"""

import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from cra_mcp.folders import open_private
from cra_mcp.state.database import Database, StateUnavailableError

SCHEMA = """
CREATE TABLE IF NOT EXISTS freezes (
  kind TEXT NOT NULL CHECK (kind IN ('agent', 'atlas', 'all')),
  name TEXT NOT NULL,
  reason TEXT NOT NULL,
  frozen_by TEXT NOT NULL,
  frozen_at_us INTEGER NOT NULL,
  PRIMARY KEY (kind, name)
) STRICT;
"""

Kind = Literal["agent", "atlas", "all"]

_Look = tuple[int, int, int] | None
_NEVER: Final[_Look] = (-1, -1, -1)


@dataclass(frozen=True, slots=True)
class Freeze:
    """Something that is frozen. ``name`` is an agent id or atlas id, "" for everything; ``frozen_at_us`` since the epoch."""

    kind: Kind
    name: str
    reason: str
    frozen_by: str
    frozen_at_us: int

    def to_dict(self) -> dict[str, object]:
        """As plain JSON."""
        return {
            "kind": self.kind,
            "name": self.name,
            "reason": self.reason,
            "frozen_by": self.frozen_by,
            "frozen_at_us": self.frozen_at_us,
        }


class Freezes:
    """What is frozen, in a database that several processes share.

    Args:
        database: made with ``SCHEMA``.
        marker: the file that changes with every change; None for a database in memory.
        now_us: time in microseconds since the epoch.
    """

    def __init__(self, database: Database, marker: Path | None, now_us: Callable[[], int]) -> None:
        self._database = database
        self._marker = None if marker is None else os.fspath(marker)
        self._now_us = now_us
        self._lock = threading.Lock()
        self._state: tuple[_Look, dict[tuple[str, str], Freeze]] = (_NEVER, {})

    def holding(self, agent_id: str, atlas_id: str) -> Freeze | None:
        """The freeze that holds a call of an agent to an action of an atlas, the widest first; None if none does.

        Raises:
            StateUnavailableError: nobody can tell.
        """
        look = self._look()
        state = self._state
        if look != state[0]:
            state = self._read(look)
        frozen = state[1]
        if not frozen:
            return None
        return frozen.get(("all", "")) or frozen.get(("atlas", atlas_id)) or frozen.get(("agent", agent_id))

    def freeze(self, kind: Kind, name: str, *, reason: str, by: str) -> Freeze:
        """Freeze something from now on; what is frozen already gets the new reason.

        Raises:
            StateUnavailableError: it could not be recorded.
        """
        made = Freeze(kind, name, reason, by, self._now_us())
        with self._changing(), self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO freezes (kind, name, reason, frozen_by, frozen_at_us) VALUES (?, ?, ?, ?, ?)",
                (kind, name, reason, by, made.frozen_at_us),
            )
        return made

    def unfreeze(self, kind: Kind, name: str) -> bool:
        """Let something go on. False if it was not frozen.

        Raises:
            StateUnavailableError: it could not be recorded.
        """
        with self._changing(), self._database.transaction() as connection:
            cursor = connection.execute("DELETE FROM freezes WHERE kind = ? AND name = ?", (kind, name))
        return cursor.rowcount > 0

    def list(self) -> list[Freeze]:
        """Everything that is frozen, oldest first.

        Raises:
            StateUnavailableError: the database can't be read.
        """
        return sorted(self._read(self._look())[1].values(), key=lambda each: (each.frozen_at_us, each.kind, each.name))

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _look(self) -> _Look:
        """What can be seen of the marker; None if there is none."""
        if self._marker is None:
            return None
        try:
            status = os.stat(self._marker)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _untold(error) from error
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _read(self, look: _Look) -> "tuple[_Look, dict[tuple[str, str], Freeze]]":
        """Read what is frozen, and keep it if the marker says that nothing is being changed."""
        found: dict[tuple[str, str], Freeze] = {}
        if self._marker is None or look is not None or self._database.exists():
            if look is not None and not self._database.exists():
                raise _untold(FileNotFoundError())
            with self._database.reading() as connection:
                rows = connection.execute("SELECT kind, name, reason, frozen_by, frozen_at_us FROM freezes").fetchall()
            found = {(row["kind"], row["name"]): Freeze(**dict(row)) for row in rows}
        settled = look is None or look[2] > 0
        state = (look if settled else _NEVER, found)
        self._state = state
        return state

    @contextmanager
    def _changing(self) -> Generator[None]:
        """Empty the marker, and fill it once the change is made: a process that dies in between leaves it empty."""
        with self._lock, self._alone():
            self._mark(b"")
            try:
                yield
            finally:
                self._mark(b"%d\n" % self._now_us())
                self._state = (_NEVER, {})

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Keep other processes from filling the marker meanwhile."""
        if self._marker is None:
            yield
            return
        # A database of its own only for its lock: of all platforms, and gone with a process that dies.
        lock = Database(Path(f"{self._marker}.lock"), "")
        try:
            with lock.transaction():
                yield
        finally:
            lock.close()

    def _mark(self, content: bytes) -> None:
        if self._marker is None:
            return
        new = f"{self._marker}.{os.getpid()}"
        try:
            with open(open_private(new, os.O_WRONLY | os.O_TRUNC), "wb") as file:
                file.write(content)
            os.replace(new, self._marker)  # a new file: its number differs from that of the one it replaces
        except OSError as error:
            raise _untold(error) from error


def kind_of(text: str) -> Kind:
    """The kind of that name.

    Raises:
        ValueError: there is none.
    """
    for kind in get_args(Kind):
        if kind == text:
            return kind
    msg = f"{text!r} can't be frozen: only {', '.join(get_args(Kind))}"
    raise ValueError(msg)


def _untold(error: OSError) -> StateUnavailableError:
    return StateUnavailableError(
        f"nobody can tell what is frozen ({type(error).__name__})",
        hint="check that the data folder exists and can be read and written",
    )
