"""Network namespaces: a handle, and synchronous blocks of work inside one.

A namespace is known by the device and inode of its nsfs file, never by its name: names are reused,
and a pod's may be gone while its namespace lives on. setns(2) moves ONE thread; `Netns.run` moves the
calling thread there and back without ever yielding, so nothing else of the process is seen to move. Several
threads may be in the same or in different namespaces at once; all of them come from the process's own.
"""

import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

CLONE_NEWNET: Final = 0x40000000
SO_NETNS_COOKIE: Final = 71
"""Linux 5.14. Cookies are monotonic and never reused, unlike inode numbers."""
NAMED: Final = Path("/run/netns")
"""Where iproute2 keeps named namespaces."""
INITIAL_ONLY: Final = Path("/proc/sys/net/core/netdev_budget")
"""Registered for the initial namespace alone (net/core/sysctl_net_core.c), since Linux 2.6.24."""

_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


def setns(fd: int) -> None:
    """Move the calling thread into the network namespace `fd`; raise OSError when refused."""
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"setns: {os.strerror(error)}")


class Netns:
    """An open network namespace. Owns its fd, which keeps the namespace alive; `close` it."""

    __slots__ = ("_home", "_opening", "fd", "key", "path")

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path
        """How it was found; a hint for people, NEVER an identity."""
        status = os.fstat(fd)
        self.key: tuple[int, int] = (status.st_dev, status.st_ino)
        """(device, inode) of the nsfs file: equal exactly when the namespace is the same."""
        self._home = -1
        self._opening = threading.Lock()

    @classmethod
    def open(cls, path: str | Path) -> "Netns":
        """Open the namespace file at `path`; raise OSError (EINVAL) when it is something else.

        NEVER waits: a FIFO without a writer would hold up whoever opens it.
        """
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if not _is_network_namespace(fd):
                raise OSError(22, "not a network namespace", str(path))
            return cls(fd, str(path))
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def of_fd(cls, fd: int) -> "Netns":
        """Own a descriptor that somebody sent; raise OSError, and close it, when it is something else."""
        try:
            if not _is_network_namespace(fd):
                raise OSError(22, "not a network namespace")
            made = cls(fd, "")
        except BaseException:
            os.close(fd)
            raise
        made.path = f"net:[{made.key[1]}]"
        return made

    @classmethod
    def named(cls, name: str) -> "Netns":
        """Open a namespace made by `ip netns add NAME`."""
        return cls.open(NAMED / name)

    @classmethod
    def of_pid(cls, pid: int) -> "Netns":
        """Open the namespace that process `pid` is in."""
        return cls.open(f"/proc/{pid}/ns/net")

    @classmethod
    def current(cls) -> "Netns":
        """Open the namespace of the calling thread."""
        return cls.open("/proc/thread-self/ns/net")

    def run(self, work: Callable[[], T]) -> T:
        """Call `work` inside the namespace and return what it returns.

        `work` must be synchronous and touch sockets, ioctls and /proc/sys only. It must NEVER start a
        thread or submit to one (a thread born here would stay here), resolve names, or log. A process
        that cannot come back would act for the wrong pod from then on: it aborts instead.
        """
        if self._home < 0:
            self._open_home()
        setns(self.fd)
        try:
            return work()
        finally:
            if _libc.setns(self._home, CLONE_NEWNET) != 0:
                os.abort()

    def _open_home(self) -> None:
        """Remember where the calling thread is, once, however many threads ask at the same time."""
        with self._opening:
            if self._home < 0:
                self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def cookie(self) -> int:
        """Return the namespace's cookie, the number by which eBPF programs know it (Linux 5.14)."""
        with self.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
            value: int = struct.unpack("=Q", probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))[0]
            return value

    def is_initial(self) -> bool:
        """Tell whether this is the namespace that the kernel started with: the machine's own.

        Asks for a switch of /proc/sys/net that no other namespace has. /proc/1/ns/net would need the right
        to trace pid 1, and in a container pid 1 is somebody else.
        """
        return self.run(INITIAL_ONLY.exists)

    def close(self) -> None:
        """Drop the handle; idempotent."""
        for fd in (self.fd, self._home):
            if fd >= 0:
                os.close(fd)
        self.fd = self._home = -1

    def __enter__(self) -> "Netns":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Netns({self.path}, inode {self.key[1]})"


def _is_network_namespace(fd: int) -> bool:
    ns_get_nstype = 0xB703
    try:
        return fcntl.ioctl(fd, ns_get_nstype) == CLONE_NEWNET
    except OSError:
        return False
