"""Finds the sandboxes of Kubernetes' pods by the cgroups that kubelet gives them: they have the pod's uid.

That needs no runtime's help, and the host's process ids (hostPID). A pod whose runtime keeps its processes
elsewhere (a virtual machine) is not found so, or has its processes in the host's namespace, and is left out.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.steering.processes import PROC, netns_of

_UID: Final = re.compile(r"(?:.*-)?pod([0-9a-f][0-9a-f_-]{30,})(?:\.slice)?")
"""In a component of the path; the systemd driver writes the uid's dashes as underscores."""
_START_TIME: Final = 19
"""starttime is field 22 of /proc/PID/stat (proc_pid_stat(5)), and the 20th after the command's name."""


class Sandbox(NamedTuple):
    """A process in a pod's network namespace."""

    pid: int
    started: int
    """In clock ticks since boot. The sandbox's own process is the first; later ones may be elsewhere."""


def sandboxes(uids: Collection[str], proc: Path = PROC) -> dict[str, int]:
    """Return a process of each pod in `uids` that has one; a machine with ten thousand takes 200 ms."""
    host = netns_of("1", proc)
    found: dict[str, Sandbox] = {}
    for pid in _pids(proc):
        uid = _uid_of(pid, proc)
        if uid not in uids or netns_of(pid, proc) in (None, host):
            continue
        started = _started(pid, proc)
        if started is not None and (uid not in found or started < found[uid].started):
            found[uid] = Sandbox(pid, started)
    return {uid: sandbox.pid for uid, sandbox in found.items()}


def uid_in(path: str) -> str | None:
    """Return the uid of the pod whose cgroup `path` is, or lies below; None where it is no pod's."""
    if "kubepods" not in path:
        return None
    for part in path.split("/"):
        if match := _UID.fullmatch(part):
            return match[1].replace("_", "-")
    return None


def _pids(proc: Path) -> Iterator[int]:
    return (int(path.name) for path in proc.iterdir() if path.name.isdigit())


def _uid_of(pid: int, proc: Path) -> str:
    """Return the uid of the pod that a process is in, of whichever version of cgroups; empty for none."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return ""
    found = (uid_in(line.split(":", 2)[-1]) for line in lines)
    return next((uid for uid in found if uid), "")


def _started(pid: int, proc: Path) -> int | None:
    try:
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[_START_TIME])
