"""Processes by their network namespace, on a /proc of the test's own."""

import time
from pathlib import Path

import pytest

from zproxy.steering.processes import netns_of, processes_in

FAR = 60.0


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc where 1 is in `host`, 7 and 9 are in `pod`, and 8 has gone."""
    directory = tmp_path / "proc"
    for pid, netns in (("1", "host"), ("7", "pod"), ("9", "pod"), ("8", "gone"), ("acpi", "pod")):
        (directory / pid / "ns").mkdir(parents=True)
        (directory / pid / "ns" / "net").symlink_to(tmp_path / netns)
    (tmp_path / "host").touch()
    (tmp_path / "pod").touch()
    return directory


def key_of(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def test_a_process_is_where_its_link_leads(proc: Path) -> None:
    assert netns_of(7, proc) == netns_of("9", proc) == key_of(proc.parent / "pod")
    assert netns_of(1, proc) == key_of(proc.parent / "host")
    assert netns_of(8, proc) is None
    assert netns_of(10, proc) is None


def test_the_processes_of_a_namespace_are_found_and_no_others(proc: Path) -> None:
    found = processes_in(key_of(proc.parent / "pod"), time.monotonic() + FAR, proc)
    assert sorted(found) == [7, 9]


def test_a_search_whose_time_is_up_finds_nothing_more(proc: Path) -> None:
    assert list(processes_in(key_of(proc.parent / "pod"), time.monotonic(), proc)) == []
