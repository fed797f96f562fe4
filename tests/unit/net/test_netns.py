"""Namespaces."""

import os
import threading
from pathlib import Path

import pytest

from tests.support.netns import Namespace, namespace, pair
from tests.support.steering import open_files
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


def test_threads_are_in_different_namespaces_at_once_and_each_comes_home() -> None:
    home, together = inode(), threading.Barrier(2)
    seen: dict[str, list[int]] = {"left": [], "right": []}
    with pair("left", "right") as sides:

        def work(name: str, side: Namespace) -> None:
            def look() -> None:
                together.wait(5)  # both are inside now
                seen[name].append(inode())
                together.wait(5)

            for _ in range(20):
                side.netns.run(look)
                seen[name].append(inode())

        threads = [
            threading.Thread(target=work, args=(name, side)) for name, side in zip(seen, sides, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        for name, side in zip(seen, sides, strict=True):
            assert seen[name] == [side.netns.key[1], home] * 20


def test_threads_that_use_a_handle_first_together_open_home_once() -> None:
    before = open_files()
    together = threading.Barrier(8)
    with namespace() as made, Netns.named(made.name) as handle:

        def work() -> None:
            together.wait(5)
            handle.run(inode)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(open_files() - before) == 3, "two namespaces of the handle, one of the test's"
    assert open_files() == before


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a network namespace"):
        Netns.open(tmp_path / "fifo")


def test_the_machine_s_own_namespace_is_told_from_a_pod_s() -> None:
    """Another switch that only the machine's own has is the witness: tests may run in a container."""
    is_ours = Path("/proc/sys/net/core/netdev_max_backlog").exists()
    with namespace() as made, Netns.current() as own:
        assert own.is_initial() == is_ours
        assert not made.netns.is_initial()


def test_a_descriptor_that_was_sent_is_owned() -> None:
    with namespace() as made:
        before = open_files()
        with Netns.of_fd(os.dup(made.netns.fd)) as sent:
            assert sent.key == made.netns.key
            assert sent.path == f"net:[{sent.key[1]}]"
        assert open_files() == before


def test_a_descriptor_of_something_else_is_refused_and_closed(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        before = open_files()
        with pytest.raises(OSError, match="not a network namespace"):
            Netns.of_fd(os.dup(file.fileno()))
        assert open_files() == before
