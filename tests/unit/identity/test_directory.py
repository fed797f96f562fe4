"""The CA's directory: locked, atomic, closed to others."""

import fcntl
import os
import stat
from pathlib import Path

import pytest

from zproxy.errors import IdentityError
from zproxy.identity.directory import LOCK_FILE, CaDirectory


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "parent" / "ca"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_directory_is_made_for_its_owner_only(path: Path) -> None:
    with CaDirectory.locked(path):
        assert mode_of(path) == 0o700
        assert mode_of(path / LOCK_FILE) == 0o600


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_written_file_has_its_content_and_mode(path: Path, mode: int) -> None:
    old = os.umask(0o077)
    try:
        with CaDirectory.locked(path) as files:
            files.write("file", b"content", mode)
            assert files.read("file") == b"content"
    finally:
        os.umask(old)
    assert mode_of(path / "file") == mode


def test_nothing_lies_aside_after_a_write(path: Path) -> None:
    with CaDirectory.locked(path) as files:
        files.write("file", b"old", 0o600)
        files.write("file", b"new", 0o600)
        assert files.read("file") == b"new"
    assert {entry.name for entry in path.iterdir()} == {"file", LOCK_FILE}


def test_what_an_interrupted_write_left_aside_is_overwritten(path: Path) -> None:
    path.mkdir(parents=True, mode=0o700)
    (path / ".file.new").write_bytes(b"half a key that is longer")
    with CaDirectory.locked(path) as files:
        files.write("file", b"whole", 0o600)
        assert files.read("file") == b"whole"


def test_a_file_that_is_not_there_is_none(path: Path) -> None:
    with CaDirectory.locked(path) as files:
        assert files.read("file") is None


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o702, 0o1777])
def test_a_directory_that_others_can_write_is_refused(path: Path, mode: int) -> None:
    path.mkdir(parents=True)
    path.chmod(mode)
    sentence = rf"\(mode {mode:04o}, uid {os.geteuid()}\).*chmod it to 700"
    with pytest.raises(IdentityError, match=sentence), CaDirectory.locked(path):
        pytest.fail("it was opened")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o660, 0o644, 0o601])
def test_a_secret_that_others_can_open_is_refused(path: Path, mode: int) -> None:
    with CaDirectory.locked(path) as files:
        files.write("secret", b"SECRET", 0o600)
        (path / "secret").chmod(mode)
        with pytest.raises(IdentityError, match="chmod it to 600") as caught:
            files.read("secret", is_secret=True)
        assert f"mode {mode:04o}" in str(caught.value)
        assert "SECRET" not in str(caught.value)
        assert files.read("secret") == b"SECRET"


def test_a_symbolic_link_is_not_followed(path: Path) -> None:
    with CaDirectory.locked(path) as files:
        (path / "real").write_bytes(b"x")
        (path / "link").symlink_to(path / "real")
        with pytest.raises(OSError, match="symbolic links"):
            files.read("link")


def test_a_fifo_is_refused_without_waiting(path: Path) -> None:
    with CaDirectory.locked(path) as files:
        os.mkfifo(path / "fifo")
        with pytest.raises(IdentityError, match="fifo is not a regular file; remove it"):
            files.read("fifo")


def test_a_lock_that_another_holds_ends_in_a_sentence(path: Path) -> None:
    path.mkdir(parents=True, mode=0o700)
    with (path / LOCK_FILE).open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        sentence = r"another process has held .*lock for 0\.05 s; end it"
        with pytest.raises(IdentityError, match=sentence), CaDirectory.locked(path, wait_s=0.05):
            pytest.fail("it was opened")


def test_the_lock_is_given_back(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), CaDirectory.locked(path):
        raise ZeroDivisionError
    with CaDirectory.locked(path, wait_s=0):
        pass


def test_a_path_that_cannot_be_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sentence = r"the CA directory .*/file/ca cannot be used: Not a directory"
    with pytest.raises(IdentityError, match=sentence), CaDirectory.locked(tmp_path / "file" / "ca"):
        pytest.fail("it was opened")


def test_a_failure_inside_is_about_the_directory(path: Path) -> None:
    sentence = "cannot be used: No space left on device; name one"
    with pytest.raises(IdentityError, match=sentence), CaDirectory.locked(path):
        raise OSError(28, "No space left on device")
