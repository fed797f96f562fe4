"""What the daemon does to its own namespaces at start, where it runs in a container beside the pods.

A container runtime gives a container a cgroup namespace of its own, in which the paths of all other processes
are unreadable, and mounts /proc/sys read-only. The daemon looks up cgroups of pods and of kubelet, and sets
switches in the namespaces of pods. So it joins the node's cgroup namespace and makes its own view of
/proc/sys writable; neither is seen outside of the container. On a plain machine there is nothing to do.
"""

import ctypes
import os
from contextlib import suppress
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
    """Join the cgroup namespace in which process 1 is, where that is outside of ours; return whether it was.

    In a pod without hostPID process 1 is the daemon itself, or the sandbox beside it. Process 1 need not let
    itself be looked at; whichever process has a namespace that it is inside of will do.
    """
    if not _is_outside(proc):
        return False
    tried = {os.stat(proc / "self" / "ns" / "cgroup").st_ino}
    for pid in sorted(filter(str.isdigit, os.listdir(proc)), key=int):
        with suppress(OSError):  # it has ended, or may not be looked at
            path = proc / pid / "ns" / "cgroup"
            if (number := path.stat().st_ino) not in tried:
                tried.add(number)
                _join(path)
                if not _is_outside(proc):
                    return True
    raise RequirementError(
        "zproxy is in a cgroup namespace of its own and finds no process to join the node's by; run it in "
        "the node's, or give it CAP_SYS_PTRACE and its pod hostPID"
    )


def _join(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(fd, CLONE_NEWCGROUP) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(fd)


def _is_outside(proc: Path) -> bool:
    """Tell whether process 1 is in a cgroup above or beside the root of our namespace: shown as /.. then."""
    return any(line.startswith("0::/..") for line in (proc / "1" / "cgroup").read_text().splitlines())


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
