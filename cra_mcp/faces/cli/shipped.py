"""Where the atlases, schemas and vectors that come with the package are: in the wheel, or in the checkout."""

from pathlib import Path
from typing import Literal

from cra_mcp.errors import SettingsError

_PACKAGE = Path(__file__).resolve().parents[2]
OVERLAYS = "overlays"
"""The folder of shipped overlays, among the shipped atlases."""

_IN_CHECKOUT = {"atlases": "atlases", "conformance": "specs/conformance", "schemas": "specs/schemas", "specs": "specs"}


def data_folder(name: Literal["atlases", "conformance", "schemas", "specs"]) -> Path:
    """A folder of shipped data.

    Raises:
        SettingsError: this installation has none.
    """
    for folder in (_PACKAGE / "_data" / name, _PACKAGE.parent / _IN_CHECKOUT[name]):
        if folder.is_dir():
            return folder
    raise SettingsError(
        f"this installation has no {name}", hint="install the package from its wheel, or run in a checkout"
    )


def atlas_names() -> list[str]:
    """The shipped atlases, by name."""
    return sorted(entry.name for entry in data_folder("atlases").iterdir() if (entry / "atlas.json").is_file())


def overlay_names() -> list[str]:
    """The shipped overlays, by name."""
    return sorted(path.parent.name for path in (data_folder("atlases") / OVERLAYS).glob("*/atlas.json"))


def overlay_path(path: Path) -> Path:
    """The path of an overlay given as a path, or by the name of a shipped one. A path goes first, and stays as it is.

    What is neither is left for whoever loads it: commands that load no overlay must not fail for a setting they don't use.
    """
    path = path.expanduser()
    if not path.exists() and str(path) in overlay_names():
        return data_folder("atlases") / OVERLAYS / path
    return path


def atlas_path(text: str) -> Path:
    """The path of an atlas given as a path, or by the name of a shipped one or shipped overlay. A path goes first.

    Raises:
        SettingsError: there is neither.
    """
    path = Path(text).expanduser()
    if path.exists():
        return path
    names = atlas_names()
    if text in names:
        return data_folder("atlases") / text
    if text in overlay_names():
        return data_folder("atlases") / OVERLAYS / text
    raise SettingsError(
        f"there is no atlas at {text}", hint=f"give a folder, a .json file, or one of: {', '.join(names)}"
    )
