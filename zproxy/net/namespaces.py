"""Finding a network namespace again by its cookie, whatever became of the path that it was first found under.

A namespace can be entered through a mount of its nsfs file or a process inside. One that has neither is dead:
only a descriptor or a socket of somebody keeps it, the daemon's own for instance.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from zproxy.net.netns import Netns

Key = tuple[int, int]
"""(device, inode) of the nsfs file."""

MAX_PROCESSES: Final = 65536
MAX_NAMESPACES: Final = 16384
MOUNTS: Final = ("/proc/self/mountinfo", "/proc/1/mountinfo")
"""The container runtime's mounts may be hidden from a daemon in a mount namespace of its own."""
_ROOT: Final = 3
_POINT: Final = 4


def reachable() -> dict[Key, str]:
    """Return every network namespace of this machine that can be entered, with a path of it.

    Takes some microseconds for each process. What ends meanwhile is left out.
    """
    found: dict[Key, str] = {}
    for path in _paths():
        try:
            status = os.stat(path)
        except OSError:
            continue
        if len(found) < MAX_NAMESPACES:
            found.setdefault((status.st_dev, status.st_ino), path)
    return found


def path_of(key: Key) -> str:
    """Return a path by which the namespace can be entered, empty when there is none here.

    Looks at mounts before processes: container runtimes mount what they make.
    """
    for path in _paths():
        try:
            status = os.stat(path)
        except OSError:
            continue
        if (status.st_dev, status.st_ino) == key:
            return path
    return ""


def find(cookie: int, hints: Iterable[str] = ()) -> Netns | None:
    """Open the namespace with this cookie, None when there is none that can be entered.

    `hints` are tried first. The caller closes what is returned.
    """
    tried: set[Key] = set()
    for path in (*hints, *reachable().values()):
        netns = _open_if_new(path, tried)
        if netns is None:
            continue
        try:
            if netns.cookie() == cookie:
                return netns
        except OSError:
            pass  # it went while it was asked
        except BaseException:
            netns.close()
            raise
        netns.close()
    return None


def _open_if_new(path: str, tried: set[Key]) -> Netns | None:
    try:
        netns = Netns.open(path)
    except OSError:
        return None
    if netns.key in tried:
        netns.close()
        return None
    tried.add(netns.key)
    return netns


def _paths() -> Iterator[str]:
    for table in MOUNTS:
        yield from _mounted(Path(table))
    pids = [name for name in os.listdir("/proc") if name.isdigit()]
    yield from (f"/proc/{pid}/ns/net" for pid in pids[:MAX_PROCESSES])


def _mounted(table: Path) -> Iterator[str]:
    try:
        lines = table.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        words = line.split(" ")
        if len(words) > _POINT and words[_ROOT].startswith("net:["):
            yield words[_POINT].replace("\\040", " ")
