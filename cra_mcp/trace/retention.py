"""Retention: chains that ended long ago go, and a statement of what went stays.

Rule: a chain goes whole or not at all, so none is ever broken; nothing is deleted before its statement is on disk; what is being
written, and what does not verify, stays. A statement that is found counts for its own chain, if our key signed it or the chain
still says the same; no other deletes anything. Source: specs/trace.md, "Retention".
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

from cra_mcp.canonical import canonical_bytes
from cra_mcp.errors import TraceError, TraceLockedError
from cra_mcp.trace.checkpoint import VerifierKey
from cra_mcp.trace.claim import claim_chain, is_chain_claimed
from cra_mcp.trace.disk import PLAIN, Disk, unavailable, write_all
from cra_mcp.trace.event import format_timestamp, is_identifier
from cra_mcp.trace.segments import FOLDER, SUFFIX, lines_of, open_to_read, segments_of, statement_path
from cra_mcp.trace.statement import (
    MAX_BYTES,
    Beside,
    Pruning,
    Rule,
    Sign,
    fields_of,
    fingerprint_of,
    judge,
    says_the_same,
    signer_of,
    with_signature,
)


def prune(
    directory: Path, rule: Rule, now_ns: int, *, sign: Sign | None = None, keys: Sequence[VerifierKey] = ()
) -> Iterator[Pruning]:
    """Go through the chains of a folder, one at a time, and let go what is old. One that can't be read stays, and is told.

    Args:
        directory: the folder.
        rule: what goes.
        now_ns: nanoseconds since the epoch.
        sign: signs statements.
        keys: ours: statements they signed are believed.

    Raises:
        TraceUnavailableError: a file can't be written or deleted.
    """
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return
    except OSError as error:
        raise unavailable("list traces", error) from error
    # A run that was interrupted left a statement, and files it names.
    session_ids = {name[:36] for name in names if name[36:] in {SUFFIX, FOLDER} and is_identifier(name[:36])}
    folder = _Folder(directory, rule, now_ns, sign, keys)
    for session_id in sorted(session_ids):
        try:
            done = folder.prune(session_id)
        except OSError as error:
            raise unavailable("prune a trace", error) from error
        if done is not None:
            yield done


class _Folder:
    """One run over a folder of chains."""

    def __init__(
        self, directory: Path, rule: Rule, now_ns: int, sign: Sign | None, keys: Sequence[VerifierKey]
    ) -> None:
        self._directory = directory
        self._rule = rule
        self._now_ns = now_ns
        self._until = format_timestamp(rule.until_ns(now_ns))
        self._sign = sign
        self._keys = keys

    def prune(self, session_id: str) -> Pruning | None:
        """Let one chain go, if it is old enough; None for one that isn't."""
        try:
            if _modified(self._directory, session_id) >= self._until:
                return None
        except (OSError, TraceError):
            return Pruning(session_id, None, "unreadable")
        if self._rule.dry_run:
            taken = is_chain_claimed(self._directory, session_id)
            return Pruning(session_id, None, "live") if taken else self._found(session_id)[0]
        try:
            claim = claim_chain(self._directory, session_id)
        except TraceLockedError:
            return Pruning(session_id, None, "live")
        try:
            return self._let_go(session_id)
        finally:
            claim.give_up()

    def _let_go(self, session_id: str) -> Pruning | None:
        done, is_stated = self._found(session_id)
        if done is None or done.statement is None:
            return done
        statement = done.statement
        if not is_stated:
            statement = with_signature(statement, self._sign)
            _write(statement_path(self._directory, session_id), statement)
        _delete(self._directory, session_id, statement)
        return Pruning(session_id, statement)

    def _found(self, session_id: str) -> tuple[Pruning | None, bool]:
        """What would be said of a chain, or was by a run that was interrupted; and whether it was. One that can't be read stays."""
        try:
            data = _read(statement_path(self._directory, session_id))
            fields = fields_of(data, session_id) if data is not None else None
            if fields is not None and signer_of(fields, self._keys) is not None:
                return Pruning(session_id, fields), True
            done = self._judge(session_id)
        except TraceError as error:
            return Pruning(session_id, None, error.code), False
        except OSError:
            return Pruning(session_id, None, "unreadable"), False
        if fields is None:
            return done, False
        if done is not None and done.statement is not None and says_the_same(fields, done.statement):
            return Pruning(session_id, fields), True
        return Pruning(session_id, None, "statement_unsigned"), False

    def _judge(self, session_id: str) -> Pruning | None:
        """What would be said of a chain, if it may go; None for one with events too young."""
        directory, beside = self._directory, Beside.of(self._directory, session_id)
        segments = segments_of(directory, session_id)
        lines, tail = lines_of(segments), _tail(segments[-1].path)
        done = judge(session_id, lines, beside, self._rule, self._now_ns, tail=tail)
        if done is None or done.statement is None:
            return done
        aside = sorted(directory.glob(f"{session_id}.torn-*"))
        paths = [*(segment.path for segment in segments), *aside, *beside.paths]
        files = [fingerprint_of(directory, path) for path in paths]
        return Pruning(session_id, {**done.statement, "files": files})


def _delete(directory: Path, session_id: str, statement: Mapping[str, object]) -> None:
    """Delete the files of a chain that its statement names, the last first; one that is not what it says stays."""
    for file in reversed(cast("list[dict[str, object]]", statement["files"])):
        name = str(file["name"])
        if not name.startswith(f"{session_id}.") or ".." in name:
            continue
        with suppress(FileNotFoundError):
            if fingerprint_of(directory, directory / name) == file:
                (directory / name).unlink()
    with suppress(OSError):  # not there, or not empty
        (directory / f"{session_id}{FOLDER}").rmdir()
    Disk().sync_folder(directory)


def _read(path: Path) -> bytes | None:
    """What stands where a statement would, as far as one goes; None if nothing does."""
    try:
        with open_to_read(path) as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except (OSError, TraceError) as error:
        raise TraceError("a statement can't be read", code="malformed_statement", hint="Move it away.") from error


def _write(path: Path, statement: Mapping[str, object]) -> None:
    """Bring a statement to disk under its name, whole or not at all."""
    disk, draft = Disk(), path.with_suffix(".draft")
    fd = disk.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | PLAIN, 0o600)
    try:
        write_all(disk, fd, canonical_bytes(dict(statement)) + b"\n")
        disk.sync(fd)
    finally:
        disk.close(fd)
    draft.replace(path)
    disk.sync_folder(path.parent)


def _modified(directory: Path, session_id: str) -> str:
    """When a chain was last written to, by its files; before all else where an interrupted run left none."""
    modified = [segment.path.stat().st_mtime_ns for segment in segments_of(directory, session_id)]
    return format_timestamp(max(modified, default=0))


def _tail(path: Path) -> bytes:
    with open_to_read(path) as file:
        return file.read().rpartition(b"\n")[2]
