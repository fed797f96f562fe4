"""Links: made once, pinned, kept as long as they hold the right program at the right place.

A link ends with its last reference, so each one is pinned at once. It goes defunct (target 0) when its
cgroup, namespace or interface goes; a defunct link is replaced.
"""

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.errors import RequirementError, SteeringError
from zproxy.steering import syscall
from zproxy.steering.hooks import HOOKS, Hook, Place
from zproxy.steering.info import LinkInfo, link_info, prog_info
from zproxy.steering.pins import entries

OURS: Final = "zp_"
"""Begins the name of every program of any version of zproxy, and of nobody else's."""


class Program(NamedTuple):
    """A loaded program: descriptor and id."""

    fd: int
    id: int


class Target(NamedTuple):
    """What a link is to hang on: the number that the kernel reports for it, and how to attach there."""

    number: int
    """Cgroup id, netns inode or ifindex."""
    name: str
    """For people."""
    attach: Callable[[], int]
    """Return a new link's descriptor; raise OSError."""


def ensure(pin: Path, hook: Hook, program: Program, target: Target) -> bool:
    """Make `pin` a link that runs `program` at `target`; return whether it had to be made.

    A live link keeps its place among other owners' programs and gets the program in one step, with no moment
    without any. Raise SteeringError when `pin` is somebody else's link, which is left alone.
    """
    fd = open_link(pin)
    if fd is not None:
        try:
            info = link_info(fd)
            if info.prog_id != program.id:
                _refuse_foreign(pin, info, hook)
            if (info.target, info.attach_type) == (target.number, hook.attach_type):
                if info.prog_id != program.id:
                    syscall.link_update(fd, program.fd)
                return False
        finally:
            os.close(fd)
        release(pin)
    fd = _create(hook, target)
    try:
        syscall.obj_pin(fd, pin)
    finally:
        os.close(fd)
    return True


def follow(directory: Path, wanted: Mapping[str, int]) -> None:
    """Let links of interfaces that were renamed keep their place under the new name's pin.

    `wanted` are pins with the ifindex that each should hang on. A program is at an interface once only, so a
    link that is pinned under the wrong name would keep the right one from being made.
    """
    for path in entries(directory):
        found = describe(path)
        if found is None or not found.target or wanted.get(path.name) == found.target:
            continue
        hook = path.name.partition("-")[0]
        pins = (
            pin for pin, target in wanted.items() if target == found.target and pin.startswith(f"{hook}-")
        )
        name = next(pins, None)
        if name is None:
            continue
        if (directory / name).exists():  # two have exchanged their names
            release(path)
        else:
            path.rename(directory / name)


def refresh(pin: Path, hook: Hook, program: Program) -> None:
    """Give an existing link the program, if it lives and runs another one of ours; see `ensure`."""
    fd = open_link(pin)
    if fd is None:
        return
    try:
        info = link_info(fd)
        if info.prog_id == program.id:
            return
        _refuse_foreign(pin, info, hook)
        if info.target:
            syscall.link_update(fd, program.fd)
    except OSError as error:
        if error.errno != errno.ENOLINK:  # its target went between the two calls
            raise
    finally:
        os.close(fd)


def release(pin: Path) -> bool:
    """Detach the link at `pin` and delete the pin; return whether there was one.

    Detached explicitly, because another process may hold the link open. A defunct one has nothing to detach.
    Raise SteeringError when it is somebody else's, who would lose it even by its pin's end.
    """
    fd = open_link(pin)
    if fd is None:
        return False
    try:
        info = link_info(fd)
        _refuse_foreign(pin, info)
        if info.target:
            syscall.link_detach(fd)
    except OSError as error:
        if error.errno != errno.ENOLINK:
            raise
    finally:
        os.close(fd)
    pin.unlink(missing_ok=True)
    return True


def describe(pin: Path) -> LinkInfo | None:
    """Return what the link at `pin` is and runs, None when there is none."""
    fd = open_link(pin)
    if fd is None:
        return None
    try:
        return link_info(fd)
    finally:
        os.close(fd)


def refuse_foreign(pin: Path) -> None:
    """Raise SteeringError when the link at `pin` runs a program of nobody's zproxy."""
    info = describe(pin)
    if info is not None:
        _refuse_foreign(pin, info)


def open_link(pin: Path) -> int | None:
    """Open the link at `pin`, None when there is none; raise SteeringError when it is something else."""
    try:
        fd = syscall.obj_get(pin)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SteeringError(f"cannot open the pinned link {pin}: {os.strerror(error.errno or 0)}") from error
    if "bpf-link" in os.readlink(f"/proc/self/fd/{fd}"):
        return fd
    os.close(fd)
    raise SteeringError(f"{pin} is pinned and not a link, so it is not zproxy's; remove it")


def _refuse_foreign(pin: Path, info: LinkInfo, hook: Hook | None = None) -> None:
    """Raise SteeringError unless the link's program is zproxy's, and one that belongs to `hook`.

    Another version may have programs of names that this one does not know.
    """
    try:
        fd = syscall.fd_by_id(syscall.Kind.PROG, info.prog_id)
    except FileNotFoundError:
        return  # exchanged or gone since
    try:
        name = prog_info(fd).name
    finally:
        os.close(fd)
    if not name.startswith(OURS):
        raise SteeringError(f"{pin} runs the program {name or '(unnamed)'}, which is not zproxy's; remove it")
    if hook is not None and HOOKS.get(name, hook) != hook:
        raise SteeringError(f"{pin} runs {name}, which zproxy attaches elsewhere; remove it")


def _create(hook: Hook, target: Target) -> int:
    try:
        return target.attach()
    except OSError as error:
        raise _refusal(hook, target, error) from error


def _refusal(hook: Hook, target: Target, error: OSError) -> SteeringError | RequirementError:
    what = f"cannot attach {hook.attach_type.name} at {target.name}"
    if hook.place is Place.INTERFACE and error.errno == errno.EINVAL:
        return RequirementError(f"{what}: TCX links need Linux 6.6 or newer, this is {os.uname().release}")
    if hook.place in (Place.ROOT, Place.OWN, Place.KUBELET) and error.errno == errno.EPERM:
        return SteeringError(
            f"{what}: another program is attached there exclusively; `bpftool cgroup tree` shows whose it is"
        )
    return SteeringError(f"{what}: {os.strerror(error.errno or 0)}")
