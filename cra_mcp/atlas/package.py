"""The files of an atlas, read once and with bounds: what is read here is what is digested and what is loaded.

Rule: nothing in the folder is followed or waited for: no symlink, no device, no pipe. Every fault is a located problem.
Source: specs/atlas.md, "Package" and "Digest".
"""

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cra_mcp.canonical import digest, sha256_hex
from cra_mcp.errors import Problem
from cra_mcp.folders import anybody_replaces, anybody_writes

MANIFEST = "atlas.json"
MAX_PACKAGE_BYTES = 10_485_760
MAX_FILES = 2_000
MAX_FOLDER_DEPTH = 16
MAX_PATH_BYTES = 512

# Written by tools that use a folder, not part of a package; nothing of it is ever loaded or executed.
_BYTECODE_FOLDER = "__pycache__"
_BYTECODE = ".pyc"
_REPOSITORY = ".git"
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class Package:
    """What was read.

    Attributes:
        files: content by path relative to the atlas, ``/`` between names.
        manifest: the key in ``files`` of the manifest.
        root: the folder; None for a one-file atlas.
        problems: what could not be read or may not be there.
    """

    files: Mapping[str, bytes]
    manifest: str
    root: Path | None
    problems: tuple[Problem, ...] = ()

    def digest(self) -> str:
        """SHA-256 of the canonical JSON object that maps each path to the SHA-256 of its bytes.

        The manifest of a one-file atlas counts as ``atlas.json``, whatever the file is called.
        """
        return digest(
            {MANIFEST if self.root is None else path: sha256_hex(data) for path, data in self.files.items()},
        )


OPEN_TO_ALL = (
    "every user of this machine can change it, so nobody can vouch for it: run `chmod o-w` on it and on its folder"
)


def read_package(path: Path) -> Package:
    """Read an atlas: a folder with ``atlas.json``, or one ``.json`` file."""
    try:
        mode = os.stat(path).st_mode  # the path itself is the person's choice and may be a symlink
    except (OSError, ValueError) as error:
        return _unreadable(path.name, path, error)
    if stat.S_ISDIR(mode):
        return _read_folder(path.resolve())
    name = path.name
    reader = _Reader(path.resolve().parent)
    reader.read(path.resolve().name, name)
    return Package(reader.files, name, None, tuple(reader.problems))


def text_package(text: str | bytes, name: str) -> Package:
    """A one-file atlas that is already in memory."""
    try:
        data = text.encode() if isinstance(text, str) else text
    except UnicodeEncodeError:
        return Package({}, name, None, (Problem(name, "", "not_utf8", "the text holds a lone surrogate"),))
    if len(data) > MAX_PACKAGE_BYTES:
        return Package({}, name, None, (_too_large(name),))
    return Package({name: data}, name, None)


def _read_folder(root: Path) -> Package:
    reader = _Reader(root)
    if anybody_replaces(os.stat(root.parent)):
        reader.problem(MANIFEST, "open_to_all", OPEN_TO_ALL)
    for relative in reader.walk():
        reader.read(relative, relative)
    if MANIFEST not in reader.files and not any(problem.file == MANIFEST for problem in reader.problems):
        reader.problem(MANIFEST, "not_found", "the folder has no atlas.json")
    return Package(reader.files, MANIFEST, root, tuple(reader.problems))


def _unreadable(name: str, path: Path, error: OSError | ValueError) -> Package:
    missing = isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ENOTDIR)
    code = "not_found" if missing else "unreadable"
    message = "there is no such file or folder" if missing else "it can't be read"
    return Package({}, name, None, (Problem(str(path), "", code, message),))


def _too_large(file: str) -> Problem:
    return Problem(file, "", "too_large", f"the package is over the limit of {MAX_PACKAGE_BYTES} bytes")


class _Reader:
    """Reads files of one folder within the limits of a package."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, bytes] = {}
        self.problems: list[Problem] = []
        self._room = MAX_PACKAGE_BYTES

    def problem(self, file: str, code: str, message: str) -> None:
        self.problems.append(Problem(file, "", code, message))

    def walk(self) -> Iterator[str]:
        """Relative paths of all regular files that count, in order; at most ``MAX_FILES``."""
        pending: list[tuple[str, int]] = [("", 0)]
        count = 0
        while pending:
            folder, depth = pending.pop()
            for entry in self._entries(folder):
                relative = f"{folder}/{entry.name}" if folder else entry.name
                if _is_uncounted(folder, entry.name):
                    continue
                count += 1
                if count > MAX_FILES:
                    self.problem(relative.split("/")[0], "too_many_files", f"more than {MAX_FILES} files and folders")
                    return
                kind = self._kind(entry, relative)
                if kind == "folder":
                    if depth + 1 > MAX_FOLDER_DEPTH:
                        self.problem(relative, "too_deep", f"more than {MAX_FOLDER_DEPTH} nested folders")
                    else:
                        pending.append((relative, depth + 1))
                elif kind == "file":
                    yield relative

    def read(self, relative: str, name: str) -> None:
        """Read one file, to be known as ``name``; never blocks on a pipe, never follows a symlink."""
        try:
            descriptor = os.open(self.root / relative, _READ_FLAGS)
        except OSError as error:
            if error.errno == errno.ELOOP:
                self.problem(name, "symlink", "symbolic links are not allowed in a package")
            else:
                self.problem(name, "unreadable", "it can't be read")
            return
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                self.problem(name, "special_file", "only regular files may be in a package")
                return
            if anybody_writes(status, os.stat((self.root / relative).parent)):
                self.problem(name, "open_to_all", OPEN_TO_ALL)
                return
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(self._room + 1)
        except OSError:
            self.problem(name, "unreadable", "it can't be read")
            return
        finally:
            os.close(descriptor)
        if len(data) > self._room:
            self._room = 0
            if not any(problem.code == "too_large" for problem in self.problems):
                self.problems.append(_too_large(name))
            return
        self._room -= len(data)
        self.files[name] = data

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.root / folder) as found:
                return sorted(found, key=lambda entry: entry.name)
        except OSError:
            self.problem(folder, "unreadable", "the folder can't be read")
            return []

    def _kind(self, entry: os.DirEntry[str], relative: str) -> str | None:
        if not _is_portable(relative, entry.name):
            printable = relative.encode("utf-8", "replace").decode()
            self.problem(printable, "invalid_path", "the name is too long or has characters other systems can't carry")
        elif entry.is_symlink():
            self.problem(relative, "symlink", "symbolic links are not allowed in a package")
        elif entry.is_dir(follow_symlinks=False):
            return "folder"
        elif entry.is_file(follow_symlinks=False):
            return "file"
        else:
            self.problem(relative, "special_file", "only regular files may be in a package")
        return None


def _is_uncounted(folder: str, name: str) -> bool:
    if folder.rpartition("/")[2] == _BYTECODE_FOLDER:
        return name.endswith(_BYTECODE)
    return not folder and name == _REPOSITORY


def _is_portable(relative: str, name: str) -> bool:
    """Whether every system can hold the name: UTF-8, no control character, none of those a path means something by."""
    try:
        size = len(relative.encode())
    except UnicodeEncodeError:
        return False
    return size <= MAX_PATH_BYTES and name.isprintable() and not any(mark in name for mark in '\\:*?"<>|')
