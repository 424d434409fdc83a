"""What is read of a folder, what is refused, and what the digest covers."""

import hashlib
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cra_mcp.atlas import package
from cra_mcp.atlas.loader import load_atlas, load_atlas_text
from cra_mcp.atlas.overlay_loading import load_policy_file
from cra_mcp.errors import AtlasInvalidError
from tests.atlas.conftest import manifest, problems

Folder = Callable[[Mapping[str, object]], Path]
POSIX = sys.platform != "win32"


def digest(root: Path) -> str:
    return load_atlas(root).digest


def test_the_digest_is_what_the_specification_says(folder: Folder) -> None:
    root = folder({"notes/b.txt": "B", "a.bin": b"\xff\x00"})
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    listing = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    canonical = json.dumps(listing, sort_keys=True, separators=(",", ":")).encode()
    assert len(listing) == 3
    assert digest(root) == hashlib.sha256(canonical).hexdigest()


def test_every_byte_name_and_file_counts(folder: Folder) -> None:
    root = folder({"notes/b.txt": "B"})
    seen = {digest(root)}
    (root / "notes" / "b.txt").write_text("b")
    seen.add(digest(root))
    (root / "notes" / "b.txt").rename(root / "notes" / "c.txt")
    seen.add(digest(root))
    (root / ".hidden").write_text("")
    seen.add(digest(root))
    (root / "atlas.json").write_text((root / "atlas.json").read_text() + "\n")
    seen.add(digest(root))
    (root / "notes" / "c.txt").unlink()
    seen.add(digest(root))
    assert len(seen) == 6


def test_a_folder_has_the_same_digest_wherever_it_is(folder: Folder, tmp_path: Path) -> None:
    root = folder({"notes/b.txt": "B"})
    shutil.copytree(root, tmp_path / "copy")
    (tmp_path / "copy" / "empty").mkdir()
    assert digest(root) == digest(tmp_path / "copy")


def test_one_file_has_the_digest_of_a_folder_that_holds_it(folder: Folder, tmp_path: Path) -> None:
    root = folder({})
    alone = tmp_path / "alone.json"
    shutil.copy(root / "atlas.json", alone)
    assert digest(root) == digest(alone) == load_atlas_text((root / "atlas.json").read_bytes()).digest
    assert load_atlas(alone).root is None
    assert load_atlas(root).root == root.resolve()


def test_byte_code_and_the_repository_are_not_part_of_a_package(folder: Folder) -> None:
    root = folder({"python/a.py": "x = 1\n"})
    before = digest(root)
    for name in ("python/__pycache__/a.cpython-311.pyc", ".git/objects/x", ".git/config"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\xff")
    assert digest(root) == before


@pytest.mark.parametrize("name", ["python/__pycache__/evil.py", "python/a.pyc", "sub/.git/config", "x/.gitignore"])
def test_what_only_looks_like_byte_code_or_a_repository_counts(folder: Folder, name: str) -> None:
    root = folder({})
    before = digest(root)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("x")
    assert digest(root) != before


def test_symbolic_links_are_refused_wherever_they_lead(folder: Folder, tmp_path: Path) -> None:
    root = folder({"a.md": "a"})
    (tmp_path / "secret.md").write_text("s")
    (root / "out.md").symlink_to(tmp_path / "secret.md")
    (root / "in.md").symlink_to(root / "a.md")
    (root / "nowhere.md").symlink_to(root / "nothing")
    (root / "context").symlink_to(tmp_path, target_is_directory=True)
    found = problems(root)
    assert found == [(name, "", "symlink") for name in ("context", "in.md", "nowhere.md", "out.md")]


def test_a_manifest_that_is_a_link_is_refused(folder: Folder, tmp_path: Path) -> None:
    root = folder({})
    (root / "atlas.json").rename(tmp_path / "elsewhere.json")
    (root / "atlas.json").symlink_to(tmp_path / "elsewhere.json")
    assert problems(root) == [("atlas.json", "", "symlink")]


def test_the_path_a_person_gives_may_be_a_link(folder: Folder, tmp_path: Path) -> None:
    root = folder({})
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    (tmp_path / "link.json").symlink_to(root / "atlas.json")
    assert digest(tmp_path / "link") == digest(tmp_path / "link.json") == digest(root)


@pytest.mark.skipif(not POSIX, reason="Windows has no such files")
def test_pipes_and_sockets_are_refused_without_waiting_for_them(folder: Folder, tmp_path: Path) -> None:
    root = folder({})
    os.mkfifo(root / "pipe.json")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(root)
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
        assert problems(root) == [("pipe.json", "", "special_file"), ("socket", "", "special_file")]
    os.mkfifo(tmp_path / "alone.json")
    assert problems(tmp_path / "alone.json") == [("alone.json", "", "special_file")]


@pytest.mark.skipif(not POSIX, reason="Windows has no such modes")
@pytest.mark.parametrize("name", ["atlas.json", "python/tools.py", "policies/p.json"])
def test_what_every_user_can_change_is_refused(folder: Folder, name: str) -> None:
    root = folder({"python/tools.py": "", "policies/p.json": "[]"})
    assert problems(root) == []
    (root / name).chmod(0o664)
    assert problems(root) == []
    (root / name).chmod(0o666)
    assert problems(root) == [(name, "", "open_to_all")]
    (root / name).chmod(0o600)
    (root / name).parent.chmod(0o777)
    assert (name, "", "open_to_all") in problems(root)
    (root / name).parent.chmod(0o1777)  # as /tmp: what others make there does not replace what we made
    assert problems(root) == []


@pytest.mark.skipif(not POSIX, reason="Windows has no such modes")
def test_a_folder_that_every_user_can_put_another_in_the_place_of_is_refused(folder: Folder) -> None:
    root = folder({})
    mode = root.parent.stat().st_mode
    root.parent.chmod(0o777)
    try:
        assert ("atlas.json", "", "open_to_all") in problems(root)
        root.parent.chmod(0o1777)
        assert problems(root) == []
    finally:
        root.parent.chmod(mode)


@pytest.mark.skipif(not POSIX, reason="Windows has no such modes")
def test_a_policy_file_that_every_user_can_change_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text("policies: [{policy_id: no, type: deny, actions: ['*']}]\n")
    load_policy_file(path)
    path.chmod(0o646)
    with pytest.raises(AtlasInvalidError) as caught:
        load_policy_file(path)
    assert [(each.file, each.code) for each in caught.value.problems] == [("ours.yaml", "open_to_all")]


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert problems(missing) == [(str(missing), "", "not_found")]
    (tmp_path / "empty").mkdir()
    assert problems(tmp_path / "empty") == [("atlas.json", "", "not_found")]
    assert problems(Path("nul\0byte"))[0][2] == "unreadable"


@pytest.mark.skipif(not POSIX, reason="Windows forbids such names")
@pytest.mark.parametrize("name", [b"back\\slash", b"new\nline", b"not-utf8-\xff", b"colon:", b"rtl-\xe2\x80\xae"])
def test_names_that_other_systems_cannot_hold_are_refused(folder: Folder, name: bytes) -> None:
    root = folder({})
    with open(os.path.join(os.fsencode(root), name), "w") as file:
        file.write("x")
    found = problems(root)
    assert [code for _, _, code in found] == ["invalid_path"]
    found[0][0].encode()  # can be printed


def test_a_package_over_its_size_is_refused_once(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "MAX_PACKAGE_BYTES", 1_000)
    small = folder({"a.txt": "x" * 500})
    assert problems(small) == []
    (small / "b.txt").write_text("x" * 500)
    (small / "c.txt").write_text("x" * 500)
    assert problems(small) == [("b.txt", "", "too_large")]
    assert problems(json.dumps(manifest(description="x" * 1_000))) == [("atlas.json", "", "too_large")]


def test_too_many_files_are_refused(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "MAX_FILES", 5)
    root = folder({f"d/{number}": "" for number in range(3)})
    assert problems(root) == []
    (root / "d" / "3").write_text("")
    assert [code for _, _, code in problems(root)] == ["too_many_files"]


def test_too_many_nested_folders_are_refused(folder: Folder) -> None:
    deep = "/".join("d" * 16)
    root = folder({f"{deep}/x": ""})
    assert problems(root) == []
    (root / deep / "e").mkdir()
    (root / deep / "e" / "x").write_text("")
    assert problems(root) == [(f"{deep}/e", "", "too_deep")]


def test_what_vanishes_or_changes_while_it_is_read_is_said(folder: Folder) -> None:
    reader = package._Reader(folder({"d/a.md": "x"}))
    reader.read("gone.md", "gone.md")
    reader.read("d", "d")  # was a file when the folder was listed
    assert reader._entries("gone") == []
    found = [(problem.file, problem.code) for problem in reader.problems]
    assert found == [("gone.md", "unreadable"), ("d", "special_file"), ("gone", "unreadable")]
    assert reader.files == {}


def test_text_that_is_not_unicode_is_refused() -> None:
    assert problems(b'{"name": "\xff"}') == [("atlas.json", "", "not_utf8")]
    assert problems('{"name": "\ud800"}') == [("atlas.json", "", "not_utf8")]
    assert problems(b"\xef\xbb\xbf{}") == [("atlas.json", "", "invalid_json")]


def test_a_context_document_that_is_not_text_is_refused(folder: Folder) -> None:
    root = folder(
        {
            "atlas.json": manifest(context_packs=[{"pack_id": "a", "name": "A", "files": ["a.md"]}]),
            "a.md": b"\xff\xfe",
        }
    )
    assert problems(root) == [("a.md", "", "not_utf8")]


@pytest.mark.parametrize(
    "path",
    ["../a.md", "/etc/a.md", "a/../../a.md", "./a.md", "a//a.md", "a\\a.md", "C:/a.md", "c:a.md", "a/", "..", "."],
)
def test_a_path_that_could_lead_out_is_refused(path: str) -> None:
    packs = [{"pack_id": "a", "name": "A", "files": [path]}]
    assert problems(manifest(context_packs=packs)) == [("atlas.json", "/context_packs/0/files/0", "path_escape")]
