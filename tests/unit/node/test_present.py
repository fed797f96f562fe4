"""What is found of nodes on a machine without asking a daemon."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zproxy.node import present
from zproxy.node.present import Known, Site, nodes
from zproxy.node.records import Record

RECORD = Record("demo/client", "/run/netns/x", 7, None, {})


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site("node.a", tmp_path / "pins", tmp_path / "run")


def test_who_only_looks_makes_nothing(site: Site, tmp_path: Path) -> None:
    assert (site.daemon(), site.pods(None), nodes(tmp_path / "pins", tmp_path / "run")) == (None, [], [])
    assert list(tmp_path.iterdir()) == []


def test_nodes_are_those_with_pins_or_a_daemon_s_directory(tmp_path: Path) -> None:
    for path in ("pins/a%2Eb/maps", "run/c/pods", "run/lab", "run/a.b"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "run" / "d").mkdir()
    (tmp_path / "run" / "d" / "lock").touch()
    assert nodes(tmp_path / "pins", tmp_path / "run") == ["a.b", "c", "d"]


def test_pods_are_those_of_records_and_of_pins(site: Site) -> None:
    site.records.save(RECORD)
    for name in ("7", "8", "stranger"):
        (site.pins.pods / name).mkdir(parents=True)
    assert site.pods(None) == [Known("8", 8, None), Known("demo/client", 7, RECORD)]


def test_a_daemon_is_known_by_its_lock_and_the_lock_is_not_touched(site: Site) -> None:
    site.run.mkdir(parents=True)
    with site.lock.open("w") as lock:
        assert site.daemon() is None
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert site.daemon() == os.getpid()
        code = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        done = subprocess.run([sys.executable, "-c", code, str(site.lock)], capture_output=True, check=False)
        assert done.returncode != 0, "held all the time"
    assert site.daemon() is None


def test_a_daemon_whose_process_is_hidden_is_a_daemon(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.run.mkdir(parents=True)
    site.lock.touch()
    table = tmp_path / "locks"
    inode = site.lock.stat().st_ino
    table.write_text(
        f"1: POSIX  ADVISORY  WRITE 5 00:1:{inode} 0 EOF\n2: FLOCK  ADVISORY  WRITE 0 00:1:{inode} 0 EOF\n"
    )
    monkeypatch.setattr(present, "LOCKS", table)
    assert site.daemon() == 0


def test_pins_that_cannot_be_used_are_a_sentence(site: Site) -> None:
    with site.opened() as (inspector, objects, fault):
        assert (inspector, objects) == (None, None)
        assert "cannot be opened" in fault
