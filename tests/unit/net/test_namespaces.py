"""A namespace is found by its cookie through any name or process, and is dead without either."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.netns import Namespace, namespace, remove
from tests.support.steering import open_files
from zproxy.net import namespaces

pytestmark = pytest.mark.root


def found(cookie: int, *hints: str) -> str | None:
    netns = namespaces.find(cookie, hints)
    if netns is None:
        return None
    with netns:
        assert netns.cookie() == cookie
        return netns.path


def entered(pid: int, made: Namespace) -> None:
    ends = time.monotonic() + 10
    while os.stat(f"/proc/{pid}/ns/net").st_ino != made.netns.key[1]:
        assert time.monotonic() < ends


def test_by_the_hint_by_name_by_process_and_then_not_at_all() -> None:
    with namespace() as made:
        cookie, files = made.netns.cookie(), len(open_files())
        path = f"/run/netns/{made.name}"
        assert found(cookie, path) == path
        assert found(cookie, "/proc/1/ns/net", "/nonsense") == path
        assert namespaces.reachable()[made.netns.key] == path
        command = ["ip", "netns", "exec", made.name, "cat"]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            entered(process.pid, made)
            remove(made.name)
            assert found(cookie) == f"/proc/{process.pid}/ns/net"
        assert found(cookie) is None, "only this test's descriptor keeps it"
        assert made.netns.key not in namespaces.reachable()
        assert len(open_files()) == files


def test_a_cookie_that_there_never_was_is_not_found() -> None:
    assert found(1 << 60, "/proc/self/ns/net") is None


def test_a_mount_table_that_is_hidden_hides_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(f"1 2 0:4 net:[1] {tmp_path}/a\\040b rw - nsfs nsfs rw\n1 2 0:4 / /tmp rw\nshort\n")
    (tmp_path / "a b").touch()
    monkeypatch.setattr(namespaces, "MOUNTS", (str(tmp_path / "none"), str(table)))
    assert str(tmp_path / "a b") in namespaces.reachable().values()
    assert os.stat("/proc/self/ns/net").st_ino in {inode for _, inode in namespaces.reachable()}


def test_a_path_is_that_of_a_mount_or_there_is_none() -> None:
    with namespace() as made:
        assert namespaces.path_of(made.netns.key) == f"/run/netns/{made.name}"
        remove(made.name)
        assert namespaces.path_of(made.netns.key) == ""
