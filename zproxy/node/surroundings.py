"""What the daemon does to its own namespaces at start, where it runs in a container beside the pods.

A container runtime gives a container a cgroup namespace of its own, in which the paths of all other processes
are unreadable, and mounts /proc/sys read-only. The daemon looks up cgroups of pods and of kubelet, and sets
switches in the namespaces of pods. So it joins the node's cgroup namespace and makes its own view of
/proc/sys writable; neither is seen outside of the container. On a plain machine there is nothing to do.
"""

import ctypes
import os
from pathlib import Path
from typing import Final

from zproxy.errors import RequirementError

CLONE_NEWCGROUP: Final = 0x02000000
PROC: Final = Path("/proc")
PROC_SYS: Final = Path("/proc/sys")
_MS_REMOUNT, _MS_BIND = 32, 4096
_FLAGS: Final = {os.ST_NOSUID: 2, os.ST_NODEV: 4, os.ST_NOEXEC: 8}
"""Flags of statvfs(3) → mount(2). They stay: a remount without them would drop them."""

_libc = ctypes.CDLL(None, use_errno=True)


def settle() -> None:
    """Do both; call it before any thread is started. Raise RequirementError when the kernel refuses."""
    join_cgroups_of_node()
    make_writable(PROC_SYS)


def join_cgroups_of_node(proc: Path = PROC) -> bool:
    """Join the cgroup namespace of process 1 where it is outside of ours; return whether it was.

    In a pod without hostPID process 1 is the daemon itself, or the sandbox beside it.
    """
    if not _is_outside((proc / "1" / "cgroup").read_text()):
        return False
    try:
        fd = os.open(proc / "1" / "ns" / "cgroup", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise RequirementError(
            f"cannot look at process 1: {os.strerror(error.errno or 0)}; run zproxy in the node's cgroup "
            "namespace"
        ) from error
    try:
        if _libc.setns(fd, CLONE_NEWCGROUP) != 0:
            code = ctypes.get_errno()
            raise RequirementError(
                f"cannot join the node's cgroup namespace: {os.strerror(code)}; run zproxy in it"
            )
    finally:
        os.close(fd)
    return True


def _is_outside(membership: str) -> bool:
    """Tell by /proc/PID/cgroup whether that process is above or beside the root of our namespace."""
    return any(line.startswith("0::/..") for line in membership.splitlines())


def make_writable(path: Path) -> bool:
    """Let a mount of this mount namespace be written to; return whether it was read-only."""
    status = os.statvfs(path)
    if not status.f_flag & os.ST_RDONLY:
        return False
    kept = sum(flag for told, flag in _FLAGS.items() if status.f_flag & told)
    flags = ctypes.c_ulong(_MS_REMOUNT | _MS_BIND | kept)
    if _libc.mount(None, os.fsencode(path), None, flags, None) != 0:
        code = ctypes.get_errno()
        raise RequirementError(
            f"{path} is read-only and cannot be made writable: {os.strerror(code)}; pods need sysctls. Let "
            "the container mount (CAP_SYS_ADMIN, and a security module that does not forbid it)"
        )
    return True
