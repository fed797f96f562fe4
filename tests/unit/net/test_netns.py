"""Namespaces."""

import os
import threading
from pathlib import Path

import pytest

from tests.support.netns import namespace, pair
from zproxy.net.netns import Netns

pytestmark = pytest.mark.root


def inode() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


def test_work_runs_inside_and_the_thread_comes_back() -> None:
    home = inode()
    with namespace() as made:
        assert made.netns.run(inode) == made.netns.key[1] != home
        assert inode() == home
        with pytest.raises(ValueError, match="inside"):
            made.netns.run(lambda: int("inside"))
        assert inode() == home


def test_only_the_calling_thread_moves() -> None:
    home, seen = inode(), []
    asked, answered = threading.Event(), threading.Event()

    def watch() -> None:
        asked.wait(5)
        seen.append(inode())
        answered.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    with namespace() as made:

        def ask() -> None:
            asked.set()
            answered.wait(5)

        made.netns.run(ask)
    watcher.join()
    assert seen == [home]


def test_a_namespace_is_the_same_by_any_name() -> None:
    with namespace() as made, Netns.open(Path("/run/netns") / made.name) as again, Netns.current() as mine:
        assert again.key == made.netns.key != mine.key
        assert again.cookie() == made.netns.cookie() != mine.cookie()
    with Netns.of_pid(os.getpid()) as of_pid, Netns.current() as mine:
        assert of_pid.key == mine.key


def test_two_namespaces_differ() -> None:
    with pair() as (left, right):
        assert left.netns.key != right.netns.key
        assert left.netns.cookie() != right.netns.cookie()


def test_other_files_are_no_namespaces(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="not a network namespace"):
        Netns.open(tmp_path / "file")
    with pytest.raises(OSError, match="not a network namespace"):
        Netns.open("/proc/self/ns/uts")
    with pytest.raises(FileNotFoundError):
        Netns.named("zpt-there-is-none")


def test_closing_twice_is_fine() -> None:
    handle = Netns.current()
    handle.close()
    handle.close()
