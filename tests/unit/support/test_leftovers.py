"""Each kind of leftover is seen, and named so that a person can remove it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from tests.support import leftovers

NAME = f"zpt-{os.getpid()}-left"


@contextmanager
def _commands(make: list[str], remove: list[str]) -> Iterator[None]:
    subprocess.run(make, check=True)
    try:
        yield
    finally:
        subprocess.run(remove, check=True)


def _namespace() -> AbstractContextManager[None]:
    return _commands(["ip", "netns", "add", NAME], ["ip", "netns", "delete", NAME])


@contextmanager
def _file() -> Iterator[None]:
    directory = Path("/etc/netns", NAME)
    directory.mkdir(parents=True)
    try:
        yield
    finally:
        directory.rmdir()
        with suppress(OSError):  # another has something there
            directory.parent.rmdir()


def _link() -> AbstractContextManager[None]:
    link = f"zpt{os.getpid()}"
    make = ["ip", "link", "add", link, "type", "veth", "peer", "name", f"{link}p"]
    return _commands(make, ["ip", "link", "delete", link])


def _rule() -> AbstractContextManager[None]:
    rule = ["fwmark", "0x7fff", "lookup", "100", "priority", "32000"]
    return _commands(["ip", "rule", "add", *rule], ["ip", "rule", "delete", *rule])


def _route() -> AbstractContextManager[None]:
    route = ["local", "192.0.2.77/32", "dev", "lo", "table", "100"]
    return _commands(["ip", "route", "add", *route], ["ip", "route", "delete", *route])


@contextmanager
def _cgroup() -> Iterator[None]:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    made = Path(next(point for _, point, kind, *_ in mounts if kind == "cgroup2"), NAME)
    made.mkdir()
    try:
        yield
    finally:
        made.rmdir()


@contextmanager
def _process() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield
        process.terminate()


@pytest.mark.root
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (_namespace, "network namespace"),
        (_file, "file of a namespace"),
        (_link, "link"),
        (_rule, "rule"),
        (_route, "route"),
        (_cgroup, "cgroup"),
        (_process, "process"),
    ],
)
def test_what_came_is_reported_until_it_goes(
    make: Callable[[], AbstractContextManager[None]], kind: str
) -> None:
    before = leftovers.snapshot()
    with make():
        assert [item for item in leftovers.added(before) if item.startswith(f"{kind} ")]
    assert not [item for item in leftovers.added(before, within_s=5) if item.startswith(f"{kind} ")]


@pytest.mark.parametrize(
    ("argument", "ours"),
    [
        ("/srv/zproxy/.venv/bin/zproxy", True),
        ("zproxy.steering.loader", True),
        ("zpt-12-left", True),
        ("/home/dev/zproxy/README.md", False),
    ],
)
def test_an_open_editor_is_no_leftover(argument: str, ours: bool) -> None:
    assert leftovers._is_ours(argument) is ours
