"""What of ours is in the kernel now, and what of it was not there before.

Everything is read from the kernel, or by the distribution's own tools, never through the code under test.
Only what our names or our kinds show to be ours is looked at: a machine's other services come and go.
"""

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

OURS: Final = re.compile(r"\bzp[t_]|\bzproxy\b")
"""zpt-…: made by a test; zp_…: a BPF program or map; zproxy: a daemon, its pins and its directories."""

PATIENCE_S = 10.0
"""What a run leaves it may still clear away for so long: the kernel frees programs and namespaces late."""

Snapshot = dict[str, frozenset[str]]
"""Kind of thing → what there is of it, in words that an operator can act on."""


def snapshot() -> Snapshot:
    """Return what there is now. Needs root, bpftool and iproute2."""
    return {
        "network namespace": frozenset(_entries(Path("/run/netns"))),
        "file of a namespace": frozenset(_everything_below(Path("/etc/netns"))),
        "link": frozenset(name for _, name in socket.if_nameindex()),
        "mount": frozenset(_mounts()),
        "pin": frozenset(_below(Path("/sys/fs/bpf"))),
        "cgroup": frozenset(_cgroups()),
        "BPF program": frozenset(_bpf("prog")),
        "BPF map": frozenset(_bpf("map")),
        "process": frozenset(_processes()),
        "rule": frozenset((*_ip("-4", "rule"), *_ip("-6", "rule"))),
        "route": frozenset(
            (*_ip("-4", "route", "show", "table", "100"), *_ip("-6", "route", "show", "table", "100"))
        ),
        "run directory": frozenset(_entries(Path("/run/zproxy"))),
    }


def added(before: Snapshot, *, within_s: float = 0.0) -> list[str]:
    """Return what has come since `before` and is still there after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while True:
        now = snapshot()
        left = [f"{kind} {item}" for kind, items in now.items() for item in sorted(items - before[kind])]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def _entries(directory: Path) -> list[str]:
    return os.listdir(directory) if directory.is_dir() else []


def _below(directory: Path) -> Iterator[str]:
    for parent, directories, files in os.walk(directory):
        yield from (f"{parent}/{name}" for name in (*directories, *files) if OURS.search(f"{parent}/{name}"))


def _everything_below(directory: Path) -> Iterator[str]:
    """What the lab writes for `ip netns exec` bears its pods' names, and none of ours."""
    for parent, directories, files in os.walk(directory):
        yield from (f"{parent}/{name}" for name in (*directories, *files))


def _mount_points() -> Iterator[tuple[str, str]]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split(" ")
        yield kind, point


def _mounts() -> Iterator[str]:
    return (point for _, point in _mount_points() if OURS.search(point))


def _cgroups() -> Iterator[str]:
    for kind, point in _mount_points():
        if kind == "cgroup2":
            yield from (path for path in _below(Path(point)) if os.path.isdir(path))


def _bpf(kind: str) -> Iterator[str]:
    listed = subprocess.run(["bpftool", "--json", kind, "list"], capture_output=True, text=True, check=True)
    for entry in json.loads(listed.stdout):
        name = entry.get("name", "")
        if OURS.search(name):
            yield f"{entry['id']} {name}"


def _ip(family: str, *command: str) -> list[str]:
    listed = subprocess.run(["ip", family, *command], capture_output=True, text=True, check=False)
    return [f"ip {family} {line.strip()}" for line in listed.stdout.splitlines()]


def _processes() -> Iterator[str]:
    children = _descendants(os.getpid())
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            arguments = Path(f"/proc/{number}/cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it has ended meanwhile
        if int(number) in children or any(_is_ours(argument) for argument in arguments):
            yield f"{number} {' '.join(arguments).strip()}"


def _is_ours(argument: str) -> bool:
    """Tell a daemon or a helper of a test from an editor that has a file of this project open."""
    return argument.rpartition("/")[2] == "zproxy" or argument.startswith(("zproxy.", "zpt-"))


def _descendants(of: int) -> set[int]:
    parents: dict[int, int] = {}
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path(f"/proc/{number}/stat").read_text()
        except OSError:
            continue  # it has ended meanwhile
        parents[int(number)] = int(stat.rpartition(")")[2].split()[1])
    found = {of}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {of}
