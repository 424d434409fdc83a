"""Modules of an atlas's ``python/`` folder, loaded under private names.

Rule: ``sys.path`` is not touched and no two atlases share a module. What runs is the source in the folder: no byte
code is read (a planted ``.pyc`` would run instead of what was reviewed and digested) and none is written (it would
change the folder).

A module imports its neighbours relatively: ``from .sibling import name``. Source: specs/atlas.md, "Executor: python".
"""

import importlib
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

from cra_mcp.errors import ExecutionError

FOLDER = "python"

_PREFIX = "_cra_atlas_"
_DIGEST_CHARS = 16


def load_module(name: str, *, root: Path | None, digest: str) -> ModuleType:
    """The module ``name`` of the atlas in ``root``, or where its folder has none, of the import path.

    Raises:
        ExecutionError: ``execution_failed``: it leads out of the folder.
        BaseException: whatever the module raises while it is imported.
    """
    if root is not None:
        folder = root / FOLDER
        package = f"{_PREFIX}{digest[:_DIGEST_CHARS]}"
        if _source(folder, name.split(".")) is not None:
            _FINDER.add(package, folder)
            return importlib.import_module(f"{package}.{name}")
    return importlib.import_module(name)


class _SourceLoader(SourceFileLoader):
    """Compiles the source each time."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _Finder:
    """Finds modules whose name begins with the private prefix; knows nothing else."""

    def __init__(self) -> None:
        self._folders: dict[str, Path] = {}
        self._lock = threading.Lock()

    def add(self, package: str, folder: Path) -> None:
        """Make ``folder`` importable as ``package``."""
        with self._lock:
            if self not in sys.meta_path:
                sys.meta_path.append(self)
            self._folders[package] = folder

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """The spec of a private module (the import system calls this)."""
        package, *names = fullname.split(".")
        folder = self._folders.get(package)
        if folder is None:
            return None
        if not names:
            return _empty_package(fullname)
        source = _source(folder, names)
        if source is not None:
            spec = spec_from_file_location(fullname, source, loader=_SourceLoader(fullname, str(source)))
            if spec is not None and source.name == "__init__.py":
                spec.submodule_search_locations = []  # so that no other finder looks into the folder
            return spec
        return _empty_package(fullname) if folder.joinpath(*names).is_dir() else None


_FINDER = _Finder()


def _source(folder: Path, names: Sequence[str]) -> Path | None:
    """The file of a module inside ``folder``."""
    base = folder.joinpath(*names)
    for path in (base.with_name(base.name + ".py"), base / "__init__.py"):
        if path.is_file():
            # The loader of the atlas refused such links; one made since must not be followed either.
            if not path.resolve().is_relative_to(folder.resolve()):
                raise ExecutionError("execution_failed", "a module of the atlas leads out of its folder")
            return path
    return None


def _empty_package(fullname: str) -> ModuleSpec:
    spec = ModuleSpec(fullname, None, is_package=True)
    spec.submodule_search_locations = []
    return spec
