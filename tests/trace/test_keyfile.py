"""Where the key comes from, and which keys are refused."""

import os
import stat
import sys
import threading

import pytest

from cra_mcp.errors import SettingsError
from cra_mcp.trace.checkpoint import SignerKey
from cra_mcp.trace.keyfile import KEY_FILE, load_key, make_key, public_key_of, write_new

KEY = SignerKey("example.com/agents", bytes(range(32)))
PUBLIC_FILE = "checkpoint.pub"
SECRET = KEY.encode().split("+", 4)[4]
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")


def refused(source, folder, environ=None) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load_key(source, folder, environ or {})
    error = caught.value
    assert error.code == "checkpoint_key"
    assert error.hint
    assert SECRET not in f"{error.message}{error.hint}"
    return error


def test_the_first_run_makes_one_for_its_owner_only_and_later_runs_use_it(tmp_path):
    folder = tmp_path / "data"
    made = load_key(None, folder, {})
    assert load_key(None, folder, {}).verifier == made.verifier
    assert public_key_of(folder / KEY_FILE) == made.verifier
    assert sorted(path.name for path in folder.iterdir()) == [KEY_FILE, PUBLIC_FILE]
    if sys.platform != "win32":
        assert stat.S_IMODE((folder / KEY_FILE).stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_two_processes_that_make_one_at_once_use_the_same(tmp_path):
    made = []
    threads = [threading.Thread(target=lambda: made.append(load_key(None, tmp_path, {}).verifier)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len(set(made)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [KEY_FILE, PUBLIC_FILE]
    assert public_key_of(tmp_path / KEY_FILE) == made[0]


def test_an_existing_key_is_never_replaced(tmp_path):
    assert write_new(tmp_path / "key", KEY)
    assert not write_new(tmp_path / "key", SignerKey.generate())
    assert load_key(f"file:{tmp_path / 'key'}", tmp_path, {}).verifier == KEY.verifier
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_key_can_have_a_name_of_its_owners(tmp_path):
    assert make_key(tmp_path / KEY_FILE, "example.com/agents").verifier.name == "example.com/agents"
    assert make_key(tmp_path / KEY_FILE, "example.com/others").verifier.name == "example.com/agents"


def test_without_the_public_file_the_public_key_comes_from_the_private_one(tmp_path):
    assert public_key_of(tmp_path / KEY_FILE) is None
    made = load_key(None, tmp_path, {})
    (tmp_path / PUBLIC_FILE).unlink()
    assert public_key_of(tmp_path / KEY_FILE) == made.verifier
    (tmp_path / PUBLIC_FILE).write_text("junk")
    with pytest.raises(SettingsError):
        public_key_of(tmp_path / KEY_FILE)


@posix_only
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o601])
def test_a_key_that_others_can_read_or_change_is_refused(tmp_path, mode):
    write_new(tmp_path / "key", KEY)
    (tmp_path / "key").chmod(mode)
    assert "others" in refused(f"file:{tmp_path / 'key'}", tmp_path).message


@posix_only
def test_a_link_a_pipe_and_a_folder_are_refused(tmp_path):
    write_new(tmp_path / "key", KEY)
    (tmp_path / "link").symlink_to(tmp_path / "key")
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(0o700)
    for name in ("link", "pipe", "folder"):
        refused(f"file:{tmp_path / name}", tmp_path)


@posix_only
def test_a_link_where_the_key_should_be_made_is_not_followed(tmp_path):
    (tmp_path / KEY_FILE).symlink_to(tmp_path / "elsewhere")
    refused(None, tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_key_from_the_environment(tmp_path):
    assert load_key("env:SIGNING", tmp_path, {"SIGNING": KEY.encode() + "\n"}).verifier == KEY.verifier
    assert "not set" in refused("env:SIGNING", tmp_path).message
    refused("env:SIGNING", tmp_path, {"SIGNING": KEY.encode()[:-8]})
    assert list(tmp_path.iterdir()) == []


def test_a_key_from_a_keyring(tmp_path, monkeypatch):
    import keyring  # noqa: PLC0415 - slow
    from keyring.backend import KeyringBackend  # noqa: PLC0415 - as said

    class InMemory(KeyringBackend):
        priority = 1

        def get_password(self, service, username):
            return KEY.encode() if (service, username) == ("cra", "checkpoints") else None

        def set_password(self, service, username, password):
            raise NotImplementedError

    monkeypatch.setattr(keyring.core, "_keyring_backend", InMemory())
    assert load_key("keyring:cra/checkpoints", tmp_path, {}).verifier == KEY.verifier
    refused("keyring:cra/other", tmp_path)


@pytest.mark.parametrize("source", ["", "file:", "env:", "/a/path", "vault:x", "file"])
def test_any_other_place_is_refused(tmp_path, source):
    refused(source, tmp_path)


def test_a_file_that_is_missing_or_is_no_key_is_refused_and_not_made(tmp_path):
    refused(f"file:{tmp_path / 'none'}", tmp_path)
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / "key"
    path.write_text("junk " + SECRET)
    path.chmod(0o600)
    refused(f"file:{path}", tmp_path)
