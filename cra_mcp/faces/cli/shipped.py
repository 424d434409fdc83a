"""Where the atlases, schemas and vectors that come with the package are: in the wheel, or in the checkout."""

from pathlib import Path

from cra_mcp.errors import SettingsError

_PACKAGE = Path(__file__).resolve().parents[2]


def data_folder(name: str) -> Path:
    """The folder of shipped data: ``atlases``, ``conformance`` or ``schemas``.

    Raises:
        SettingsError: this installation has none.
    """
    in_checkout = _PACKAGE.parent / ("atlases" if name == "atlases" else f"specs/{name}")
    for folder in (_PACKAGE / "_data" / name, in_checkout):
        if folder.is_dir():
            return folder
    raise SettingsError(
        f"this installation has no {name}", hint="install the package from its wheel, or run in a checkout"
    )


def atlas_path(text: str) -> Path:
    """The path of an atlas given as a path, or by the name of a shipped one.

    Raises:
        SettingsError: there is neither.
    """
    path = Path(text).expanduser()
    if path.exists():
        return path
    if text.replace("-", "").replace("_", "").isalnum():
        shipped = data_folder("atlases") / text
        if shipped.is_dir():
            return shipped
    names = ", ".join(
        sorted(entry.name for entry in data_folder("atlases").iterdir() if (entry / "atlas.json").is_file())
    )
    raise SettingsError(f"there is no atlas at {text}", hint=f"give a folder, a .json file, or one of: {names}")
