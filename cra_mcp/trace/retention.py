"""Retention: chains that ended long ago go, and a statement of what went stays.

Rule: a chain goes whole or not at all, so none is ever broken; nothing is deleted before its statement is on disk; what is being
written, and what does not verify, stays. Source: specs/trace.md, "Retention".
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

import orjson

from cra_mcp.canonical import canonical_bytes
from cra_mcp.errors import TraceLockedError
from cra_mcp.trace.claim import claim_chain, is_chain_claimed
from cra_mcp.trace.disk import PLAIN, Disk, unavailable, write_all
from cra_mcp.trace.event import format_timestamp, is_identifier
from cra_mcp.trace.segments import FOLDER, SUFFIX, lines_of, open_to_read, segments_of, statement_path
from cra_mcp.trace.statement import Beside, Pruning, Rule, Sign, fingerprint_of, judge, with_signature


def prune(directory: Path, rule: Rule, now_ns: int, *, sign: Sign | None = None) -> Iterator[Pruning]:
    """Go through the chains of a folder, one at a time, and let go what is old.

    Raises:
        TraceUnavailableError: a file can't be read, written or deleted.
    """
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return
    except OSError as error:
        raise unavailable("list traces", error) from error
    # A run that was interrupted left a statement, and files it names.
    session_ids = {name[:36] for name in names if name[36:] in {SUFFIX, FOLDER} and is_identifier(name[:36])}
    folder = _Folder(directory, rule, now_ns, sign)
    for session_id in sorted(session_ids):
        try:
            done = folder.prune(session_id)
        except OSError as error:
            raise unavailable("prune a trace", error) from error
        if done is not None:
            yield done


class _Folder:
    """One run over a folder of chains."""

    def __init__(self, directory: Path, rule: Rule, now_ns: int, sign: Sign | None) -> None:
        self._directory = directory
        self._rule = rule
        self._now_ns = now_ns
        self._until = format_timestamp(rule.until_ns(now_ns))
        self._sign = sign

    def prune(self, session_id: str) -> Pruning | None:
        """Let one chain go, if it is old enough; None for one that isn't."""
        if _modified(self._directory, session_id) >= self._until:
            return None
        if self._rule.dry_run:
            taken = is_chain_claimed(self._directory, session_id)
            return Pruning(session_id, None, "live") if taken else self._judge(session_id)
        try:
            claim = claim_chain(self._directory, session_id)
        except TraceLockedError:
            return Pruning(session_id, None, "live")
        try:
            return self._let_go(session_id)
        finally:
            claim.give_up()

    def _let_go(self, session_id: str) -> Pruning | None:
        path = statement_path(self._directory, session_id)
        if path.exists():
            return _finish(self._directory, session_id)
        done = self._judge(session_id)
        if done is None or done.statement is None:
            return done
        statement = with_signature(done.statement, self._sign)
        _write(path, statement)
        _delete(self._directory, statement)
        return Pruning(session_id, statement)

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


def _finish(directory: Path, session_id: str) -> Pruning:
    """Delete what an interrupted run had stated and not deleted yet."""
    statement = cast("dict[str, object]", orjson.loads(statement_path(directory, session_id).read_bytes()))
    _delete(directory, statement)
    return Pruning(session_id, statement)


def _delete(directory: Path, statement: Mapping[str, object]) -> None:
    """Delete the files a statement names, the last first; one that is not what it says stays."""
    for file in reversed(cast("list[dict[str, object]]", statement["files"])):
        name = str(file["name"])
        if not name.startswith(f"{statement['session_id']}.") or ".." in name:
            continue
        with suppress(FileNotFoundError):
            if fingerprint_of(directory, directory / name) == file:
                (directory / name).unlink()
    with suppress(OSError):  # not there, or not empty
        (directory / f"{statement['session_id']}{FOLDER}").rmdir()
    Disk().sync_folder(directory)


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
