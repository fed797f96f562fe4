"""Which cgroup is a pod's own: one that holds the pod's processes and nobody else's.

A pod need not have one: made by `ip netns add` it has no processes, and where the runtime uses cgroup v1
every pod has the same path in v2. Steering at the root serves those.
"""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.errors import SteeringError
from zproxy.net.netns import Netns
from zproxy.steering.processes import PROC, netns_of, processes_in

SEARCH_S: Final = 0.2
"""For all looks at processes together."""
_POD: Final = re.compile(r"(?:.*-)?pod[0-9a-f][0-9a-f_-]{30,}(?:\.slice)?")
"""The component of a pod in a kubelet's tree, of either cgroup driver; containers are below it."""


class PodCgroup(NamedTuple):
    """A pod's own cgroup, or None, and in either case why."""

    path: Path | None
    why: str


def membership(pid: int, proc: Path = PROC) -> str | None:
    """Return the cgroup v2 path of a process from the hierarchy's root, None when it has gone or has none."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return None
    return next((line[3:] for line in lines if line.startswith("0::/")), None)


def pod_level(path: str) -> str:
    """Return the pod's cgroup above a container's in kubelet's tree; any other path as it is."""
    parts = path.split("/")
    for number, part in enumerate(parts):
        if _POD.fullmatch(part) and "kubepods" in "/".join(parts[: number + 1]):
            return "/".join(parts[: number + 1])
    return path


def of_uid(uid: str, root: Path) -> Path | None:
    """Return the cgroup that kubelet made for the pod `uid`, None when there is none within SEARCH_S seconds.

    Kubelet makes it before it asks for a sandbox, so it is there when no process of the pod is.
    """
    names = {f"pod{uid}", f"pod{uid.replace('-', '_')}.slice"}
    if not all(map(_POD.fullmatch, names)):
        return None
    ends = time.monotonic() + SEARCH_S
    for directory, below, _ in os.walk(root):
        pods = [name for name in below if _POD.fullmatch(name) and "kubepods" in f"{directory}/{name}"]
        for name in pods:
            if name in names or name.rpartition("-")[2] in names:
                return Path(directory, name)
        if time.monotonic() >= ends:
            return None
        below[:] = sorted(set(below).difference(pods))
    return None


class Search:
    """One search for one pod's cgroup, within SEARCH_S seconds. `own` is the daemon's cgroup."""

    def __init__(self, netns: Netns, root: Path, own: Path, proc: Path = PROC) -> None:
        self._key = netns.key
        self._root = root
        self._own = own
        self._proc = proc
        self._ends = time.monotonic() + SEARCH_S

    def given(self, text: str) -> PodCgroup:
        """Take the cgroup that somebody named, by its directory or as /proc/PID/cgroup has it.

        Raise SteeringError when it cannot be the pod's.
        """
        path = resolve(text, self._root)
        if fault := self._fault(path):
            raise SteeringError(f"the cgroup {path} cannot be used as the pod's own: {fault}")
        return PodCgroup(path, "it was given")

    def of_process(self, pid: int) -> PodCgroup:
        """Take the cgroup of a process of the pod, or the pod's above it."""
        path = membership(pid, self._proc)
        if path is None:
            return PodCgroup(None, f"process {pid} is in no cgroup v2")
        found = self._root / pod_level(path).lstrip("/")
        fault = self._fault(found)
        return PodCgroup(None, f"{path}: {fault}") if fault else PodCgroup(found, f"process {pid} is in it")

    def by_processes(self) -> PodCgroup:
        """Look at the processes that are in the pod's namespace now."""
        found: dict[str, PodCgroup] = {}
        for pid in processes_in(self._key, self._ends, self._proc):
            path = pod_level(membership(pid, self._proc) or "")
            if path and path not in found:
                found[path] = self.of_process(pid)
        usable = [each for each in found.values() if each.path is not None]
        in_kubelets_tree = [each for each in usable if "kubepods" in str(each.path)]
        for candidates in (in_kubelets_tree, usable):
            if len(candidates) == 1:
                return candidates[0]
        if usable:
            names = ", ".join(str(each.path) for each in usable)
            return PodCgroup(None, f"its processes are in several: {names}; name one with --cgroup")
        if time.monotonic() >= self._ends:
            return PodCgroup(None, "the machine has too many processes to search; name it with --cgroup")
        return next(iter(found.values()), PodCgroup(None, "no process is in the pod yet"))

    def _fault(self, path: Path) -> str:
        """Say why `path` is not the pod's alone; empty when it is."""
        if path == self._root:
            return "it is the root of the hierarchy"
        if path == self._own or path in self._own.parents:
            return "zproxy itself is in it"
        if not (path / "cgroup.procs").exists():
            return "there is no such cgroup"
        host = netns_of("self", self._proc)
        is_kubelets = pod_level(f"/{path.relative_to(self._root)}/") != f"/{path.relative_to(self._root)}/"
        for pid in self._members(path):
            if time.monotonic() >= self._ends:
                return "it has too many processes to look at"
            netns = netns_of(pid, self._proc)
            # A pod of kubelet's may have made namespaces of its own (a container engine in it does).
            if netns not in (None, self._key) and (netns == host or not is_kubelets):
                return f"process {pid} in it is in another network namespace"
        return ""

    def _members(self, path: Path) -> Iterator[str]:
        for directory, _, _ in os.walk(path):
            try:
                yield from Path(directory, "cgroup.procs").read_text().split()
            except OSError:
                continue  # it has gone, or is threaded: then its processes are shown further up


def resolve(text: str, root: Path) -> Path:
    """Return the directory of a cgroup that somebody named; raise SteeringError outside the hierarchy."""
    named = Path(os.path.normpath(text))
    path = named if named.is_relative_to(root) else root / str(named).lstrip("/")
    if ".." in path.parts or not path.is_relative_to(root):
        raise SteeringError(f"{text} is not below {root}, where cgroup v2 is mounted")
    return path
