"""What stands in the way of a pod's enrolment, looked for before anything is changed.

Two schemes in one pod do not add up: whoever rewrites first wins, and what loses goes out in the clear or in
circles. So each finding is a SteeringError that names whose it is. A program of somebody else that lets
others be attached beside it is no finding.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.errors import SteeringError
from zproxy.net.netns import Netns
from zproxy.steering import pod_rules, syscall
from zproxy.steering.attachment import AT_ROOT, opened
from zproxy.steering.hooks import HOOKS, Hook
from zproxy.steering.info import AttachType, map_info, prog_info
from zproxy.steering.layout import COOKIE
from zproxy.steering.pins import NodePins, entries, pinned_name
from zproxy.steering.syscall import Kind

ALLOW_MULTI: Final = 2
KMESH_MAP: Final = "km_manage"
"""The pods that Kmesh manages, by netns cookie and by address, in keys of 16 bytes."""


class Attached(NamedTuple):
    """A program at a hook of a cgroup."""

    id: int
    name: str
    is_exclusive: bool
    """The kernel refuses further programs there, or below it, or drops this one for them."""


def refuse_exclusive(cgroup: Path, hooks: Mapping[str, Hook]) -> None:
    """Raise SteeringError when a program at `cgroup` keeps ours from being attached there or below."""
    for hook in hooks.values():
        for found in attached(cgroup, hook.attach_type):
            if found.is_exclusive and found.name not in HOOKS:
                raise SteeringError(_exclusion(cgroup, hook, found))


def refuse_other_owners(
    name: str, netns: Netns, cookie: int, cgroups: Sequence[Path], pins: NodePins
) -> None:
    """Raise SteeringError when a pod is somebody else's, or one of `cgroups` shuts our programs out."""
    _refuse_other_daemon(name, cookie, pins)
    _refuse_kmesh(name, netns, cookie, cgroups)
    pod_rules.refuse(name, netns)
    for cgroup in cgroups:
        refuse_exclusive(cgroup, AT_ROOT)


def with_ancestors(cgroup: Path, root: Path) -> tuple[Path, ...]:
    """Return a cgroup and all above it: an attachment at any of them counts."""
    above = (path for path in cgroup.parents if path.is_relative_to(root))
    return (cgroup, *above)


def attached(cgroup: Path, hook: AttachType) -> Iterator[Attached]:
    """Yield the programs that are attached at a hook of `cgroup` itself, in the order of attachment."""
    with opened(cgroup) as fd:
        try:
            numbers, flags = syscall.prog_query(fd, hook)
        except OSError:
            return
    for number in numbers:
        found = _program(number)
        if found is not None:
            yield Attached(number, found[0], not flags & ALLOW_MULTI)


def overtakers(cgroup: Path, hook: AttachType, ours: int) -> list[str]:
    """Name the programs further up that run before `ours` at `cgroup` all the same (BPF_F_PREORDER, 6.15)."""
    with opened(cgroup) as fd:
        try:
            effective, _ = syscall.prog_query(fd, hook, effective=True)
            own, _ = syscall.prog_query(fd, hook)
        except OSError:
            return []
    before = effective[: effective.index(ours)] if ours in effective else []
    found = ((number, _program(number)) for number in before if number not in own)
    return [f"{program[0]} (id {number})" for number, program in found if program is not None]


def _exclusion(cgroup: Path, hook: Hook, found: Attached) -> str:
    return (
        f"the program {found.name or 'without a name'} (id {found.id}) is attached exclusively at {hook.pin} "
        f"of the cgroup {cgroup}, which shuts zproxy's out; let its owner attach it with BPF_F_ALLOW_MULTI, "
        f"or take it away: bpftool cgroup detach {cgroup} {hook.pin} id {found.id}"
    )


def _refuse_other_daemon(name: str, cookie: int, pins: NodePins) -> None:
    for directory in entries(pins.directory.parent):
        if directory != pins.directory and _has(directory / "maps" / "zp_pods", COOKIE.pack(cookie=cookie)):
            node = pinned_name(directory.name)
            raise SteeringError(
                f"{name} is enrolled by the daemon of node {node} on this machine; take it out there first: "
                f"zproxy --node {node} unenroll {name}"
            )


def _has(pin: Path, key: bytes) -> bool:
    """Whether a pinned map has the key; one of another shape has not."""
    try:
        fd = syscall.obj_get(pin)
    except OSError:
        return False
    try:
        info = map_info(fd)
        return info.key_size == len(key) and syscall.map_lookup(fd, key, info.value_size) is not None
    except OSError:
        return False
    finally:
        os.close(fd)


def _refuse_kmesh(name: str, netns: Netns, cookie: int, cgroups: Sequence[Path]) -> None:
    hooks = (AttachType.CGROUP_INET4_CONNECT, AttachType.CGROUP_INET6_CONNECT, AttachType.CGROUP_SOCK_OPS)
    numbers = {each.id for cgroup in cgroups for hook in hooks for each in attached(cgroup, hook)}
    for number in sorted(numbers):
        if _manages(number, cookie):
            raise SteeringError(
                f"{name} is managed by Kmesh: its program {number} is attached at the cgroups and its map "
                f"{KMESH_MAP} has the pod; take it out of Kmesh first (its label istio.io/dataplane-mode)"
            )
    for interface, number in netns.run(pod_rules.xdp_programs):
        found = _program(number)
        if found is not None and any(map_name.startswith("km_") for map_name in found[1]):
            raise SteeringError(
                f"{name} is managed by Kmesh: its program {found[0]} (id {number}) is attached by XDP at "
                f"{interface} of the pod; take the pod out of Kmesh first (its label istio.io/dataplane-mode)"
            )


def _manages(number: int, cookie: int) -> bool:
    """Whether a program of Kmesh's has the pod in its map."""
    try:
        program = syscall.fd_by_id(Kind.PROG, number)
    except OSError:
        return False
    try:
        maps = prog_info(program).map_ids
    finally:
        os.close(program)
    key = COOKIE.pack(cookie=cookie).ljust(16, b"\0")
    return any(_map_has(map_id, KMESH_MAP, key) for map_id in maps)


def _map_has(number: int, name: str, key: bytes) -> bool:
    try:
        fd = syscall.fd_by_id(Kind.MAP, number)
    except OSError:
        return False
    try:
        info = map_info(fd)
        return (info.name, info.key_size) == (name, len(key)) and (
            syscall.map_lookup(fd, key, info.value_size) is not None
        )
    finally:
        os.close(fd)


def _program(number: int) -> tuple[str, tuple[str, ...]] | None:
    """Return a program's name and those of its maps, None when it has gone."""
    try:
        fd = syscall.fd_by_id(Kind.PROG, number)
    except OSError:
        return None
    try:
        info = prog_info(fd)
    finally:
        os.close(fd)
    return info.name, tuple(filter(None, map(_map_name, info.map_ids)))


def _map_name(number: int) -> str:
    try:
        fd = syscall.fd_by_id(Kind.MAP, number)
    except OSError:
        return ""
    try:
        return map_info(fd).name
    finally:
        os.close(fd)
