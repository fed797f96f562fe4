"""What a pod's resolv.conf(5) says, read from outside the pod without following it out of its own root.

The file is the pod's: it may be anything, and its directories too. It is opened below the root of one of the
pod's processes by openat2(2) with RESOLVE_IN_ROOT (Linux 5.6), so that symbolic links and `..` end at that
root, first as a path only: opening a FIFO or a device can do things by itself. Reading may take as long as
the pod's filesystem does, so never on a thread that carries traffic.
"""

import contextlib
import ctypes
import errno
import os
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from zproxy.model.addr import canonical_ip
from zproxy.model.pod import ResolvConf
from zproxy.model.settings import domain_of
from zproxy.net.netns import NAMED, Netns
from zproxy.steering.pod_cgroups import SEARCH_S
from zproxy.steering.processes import PROC, processes_in

MAX_BYTES: Final = 64 << 10
"""Of the file; a larger one is no resolv.conf."""
MAX_NAMESERVERS: Final = 3
"""MAXNS of resolv.conf(5)."""
MAX_SEARCH: Final = 32
"""Domains; Kubernetes allows as many."""
NETNS_FILES: Final = Path("/etc/netns")
"""Where `ip netns exec` finds the files of a namespace by its name; fixed in iproute2 (ip-netns(8))."""
OWN: Final = Path("/etc/resolv.conf")
_FILE: Final = b"etc/resolv.conf"
_SYS_OPENAT2: Final = 437
"""The same number on all architectures that eBPF programs are compiled for."""
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_IN_ROOT: Final = 0x10
_OPEN_HOW: Final = struct.Struct("=QQQ")
"""struct open_how: flags, mode, resolve."""
_TRIES: Final = 8
"""openat2(2) answers EAGAIN when anything on the machine was renamed or mounted while it passed a `..`."""

_libc = ctypes.CDLL(None, use_errno=True)


def parse(text: str) -> ResolvConf:
    """Return what `text` says of servers and domains; lines that say nothing understandable are passed over.

    Keywords stand at the beginning of a line, and the last of `search` and `domain` holds, as for glibc.
    """
    nameservers: list[str] = []
    search: tuple[str, ...] = ()
    for line in text[:MAX_BYTES].split("\n"):
        keyword, *words = line.split() if line[:1].isalpha() else [""]
        if keyword == "nameserver" and words:
            nameservers += _address(words[0])
        elif keyword in {"search", "domain"} and words:
            listed = words if keyword == "search" else words[:1]
            search = tuple(domain for word in listed for domain in _domain(word))[:MAX_SEARCH]
    return ResolvConf(tuple(nameservers[:MAX_NAMESERVERS]), search)


def read(netns: Netns, pid: int | None) -> ResolvConf | None:
    """Return what the pod in `netns` goes by, None when there is no telling; `pid` is in it, if one is known.

    Asked are `pid`, unless it is in another namespace by now; the files that the namespace has by its name;
    and the processes that are in it, those with files of their own first. Blocks.
    """
    content = None if pid is None else _of_process(netns, pid)
    if content is None:
        content = _of_name(netns)
    if content is None:
        content = next(_of_processes(netns), None)
    return None if content is None else parse(content.decode(errors="replace"))


def own() -> ResolvConf | None:
    """Return what the daemon itself goes by, None when there is no telling."""
    try:
        return parse(OWN.read_text(errors="replace"))
    except OSError:
        return None


def _address(text: str) -> Iterator[str]:
    if "%" not in text:  # an interface of the pod, which means nothing elsewhere
        with contextlib.suppress(ValueError):
            yield canonical_ip(text)


def _domain(text: str) -> Iterator[str]:
    with contextlib.suppress(ValueError):
        yield domain_of(text)


def _of_name(netns: Netns) -> bytes | None:
    """Read the file of a namespace that was made by name, unless the name means another one by now."""
    path = Path(netns.path)
    try:
        if path.parent.resolve() != NAMED.resolve():
            return None
        status = os.stat(path)
        if (status.st_dev, status.st_ino) != netns.key:
            return None
        found = os.open(NETNS_FILES / path.name / "resolv.conf", os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    return _content(found)


def _of_processes(netns: Netns) -> Iterator[bytes]:
    """Yield what processes in the namespace have, last those that came in from the host with its files."""
    hosts = {_mounts_of("self"), _mounts_of(1)}
    inside = processes_in(netns.key, time.monotonic() + SEARCH_S)
    for pid in sorted(inside, key=lambda pid: _mounts_of(pid) in hosts):
        content = _of_process(netns, pid)
        if content is not None:
            yield content


def _mounts_of(pid: int | str) -> tuple[int, int] | None:
    try:
        status = os.stat(PROC / str(pid) / "ns" / "mnt")
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _of_process(netns: Netns, pid: int) -> bytes | None:
    """Read the file below the root of a process, None unless that process is in the namespace."""
    try:
        home = os.open(PROC / str(pid), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # The descriptor stays that process's: whoever gets its number next is not seen through it.
        root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=home)
        try:
            status = os.stat("ns/net", dir_fd=home)
            return _content(_open_below(root)) if (status.st_dev, status.st_ino) == netns.key else None
        finally:
            os.close(root)
    except OSError:
        return None
    finally:
        os.close(home)


def _open_below(root: int) -> int:
    """Open the file below `root` as a path; raise OSError."""
    how = _OPEN_HOW.pack(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    for _ in range(_TRIES):
        fd: int = _libc.syscall(
            ctypes.c_long(_SYS_OPENAT2), ctypes.c_long(root), _FILE, how, ctypes.c_size_t(len(how))
        )
        if fd >= 0:
            return fd
        error = ctypes.get_errno()
        if error != errno.EAGAIN:
            break
    raise OSError(error, f"openat2: {os.strerror(error)}")


def _content(path: int) -> bytes | None:
    """Return the content of a regular file, given as a path, which is closed; None where it cannot be had.

    No more is read than the file said to hold: those of procfs say 0, and reading one may do something.
    """
    try:
        status = os.fstat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
            return None
        with open(f"/proc/self/fd/{path}", "rb", opener=_opened, buffering=0) as file:
            return file.read(status.st_size)
    except OSError:
        return None
    finally:
        os.close(path)


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
