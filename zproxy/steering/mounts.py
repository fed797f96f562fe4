"""Mounted filesystems, as far as eBPF needs them: where bpffs and the cgroup v2 hierarchy are."""

import os
import re
from pathlib import Path
from typing import Final, NamedTuple

MOUNTS: Final = Path("/proc/self/mounts")
BPF_TYPE: Final = "bpf"
CGROUP2_TYPE: Final = "cgroup2"


class Mount(NamedTuple):
    """One line of /proc/self/mounts."""

    path: str
    type: str
    options: tuple[str, ...]


def mounts(table: Path = MOUNTS) -> list[Mount]:
    """Return what is mounted in this mount namespace, oldest first."""
    found = []
    for line in table.read_text(errors="surrogateescape").splitlines():
        words = line.split(" ")
        if len(words) >= 4:
            found.append(Mount(_unescape(words[1]), words[2], tuple(words[3].split(","))))
    return found


def mounts_of(kind: str, table: Path = MOUNTS) -> list[Mount]:
    """Return the mounts of one filesystem type, oldest first."""
    return [mount for mount in mounts(table) if mount.type == kind]


def is_on(path: str, kind: str) -> bool:
    """Whether `path` exists and lies on a filesystem of this type."""
    try:
        device = os.stat(path).st_dev
        return any(os.stat(mount.path).st_dev == device for mount in mounts_of(kind))
    except OSError:
        return False


def _unescape(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)
