"""Files of a node: whole or not at all, with their mode, and a link stays a link."""

import os
from pathlib import Path

import pytest

from zproxy.cni import files
from zproxy.cni.files import Contents

ME = (os.geteuid(), os.getegid())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    for mode in (0o600, 0o644):
        files.write(tmp_path / "x", Contents(b"text", mode, ME))
        assert files.read(tmp_path / "x") == Contents(b"text", mode, ME)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_who_has_the_old_file_open_keeps_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        files.write(path, Contents(b"new", 0o644, ME))
        assert reader.read() == b"old"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write(path, Contents(b"new", 0o644, ME))
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("x", b"old")]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    files.write(tmp_path / "link", Contents(b"new", 0o644, ME))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_removing_says_whether_there_was_something(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    assert [files.remove(tmp_path / "x"), files.remove(tmp_path / "x")] == [True, False]


def test_drafts_are_found(tmp_path: Path) -> None:
    (tmp_path / ".x.conflist.abc.zproxy-draft").touch()
    (tmp_path / "x.conflist").touch()
    assert files.drafts(tmp_path) == [tmp_path / ".x.conflist.abc.zproxy-draft"]
