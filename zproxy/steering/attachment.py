"""The links at cgroups: at the root, at the daemon's own, at kubelet's, at each pod's.

The order of changes when `--attach` is another than before: what is wanted is there before what is no longer
wanted goes, so that no moment exists in which a pod is not steered.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from zproxy.errors import SteeringError
from zproxy.model.attach import Attach
from zproxy.steering import links, syscall
from zproxy.steering.hooks import HOOKS, Hook, Place
from zproxy.steering.links import Program, Target
from zproxy.steering.objects import Objects
from zproxy.steering.pins import NodePins, entries

AT_ROOT: Final = {name: hook for name, hook in HOOKS.items() if hook.place is Place.ROOT}
"""What hangs at the root, at pods' cgroups, or at both."""
KUBELET: Final = "zp_kubelet"
OWN: Final = "own"
"""Ends the pin of a link that hangs on the daemon's own cgroup in place of the root."""


def attach_node(pins: NodePins, objects: Objects, attach: Attach, root: Path, own: Path) -> None:
    """Attach what serves all pods. One that hangs elsewhere (the daemon has changed cgroups) is made anew."""
    for name, hook in HOOKS.items():
        at_own = pins.links / f"{hook.pin}-{OWN}"
        if hook.place is Place.ROOT and attach is not Attach.POD:
            ensure(pins.links / hook.pin, hook, objects.programs[name], root)
            links.release(at_own)
        elif hook.place is Place.OWN:
            ensure(pins.links / hook.pin, hook, objects.programs[name], own)
        elif hook.serves_daemon:
            ensure(at_own, hook, objects.programs[name], own)


def attach_kubelet(pins: NodePins, objects: Objects, cgroup: Path | None) -> None:
    """Note what `cgroup` begins; with None, nothing any more."""
    pin, hook = pins.links / HOOKS[KUBELET].pin, HOOKS[KUBELET]
    if cgroup is None:
        links.release(pin)
    else:
        ensure(pin, hook, objects.programs[KUBELET], cgroup)


def has_root(pins: NodePins) -> bool:
    """Whether any link is pinned that hangs at the root."""
    return any((pins.links / hook.pin).exists() for hook in AT_ROOT.values())


def release_root(pins: NodePins) -> None:
    """Take the links at the root away."""
    for hook in AT_ROOT.values():
        links.release(pins.links / hook.pin)


def has_pod(pins: NodePins, cookie: int) -> bool:
    """Whether a pod has every link at its own cgroup, as its pins say."""
    pinned = {path.name for path in entries(pins.pod(cookie))}
    return all(hook.pin in pinned for hook in AT_ROOT.values())


def ensure(pin: Path, hook: Hook, program: Program, cgroup: Path) -> bool:
    """Make `pin` a link that runs `program` at `cgroup`; return whether it had to be made."""
    with opened(cgroup) as fd:
        target = Target(
            number=os.fstat(fd).st_ino,
            name=f"the cgroup {cgroup}",
            attach=lambda: syscall.link_create(program.fd, fd, hook.attach_type),
        )
        return links.ensure(pin, hook, program, target)


@contextmanager
def opened(cgroup: Path) -> Iterator[int]:
    """Open a cgroup for the block; raise SteeringError when that fails."""
    try:
        fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SteeringError(f"cannot open the cgroup {cgroup}: {os.strerror(error.errno or 0)}") from error
    try:
        yield fd
    finally:
        os.close(fd)
