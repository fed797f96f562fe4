"""Where maps are pinned: every bpffs searched, as `bpftool -f` does, with the order in which it lists pins.

bpftool keeps paths in a hash table of libbpf's. Its chains grow at the front and turn round whenever the
table doubles: that makes the order in which the pins of one map are printed.
"""

import os
from collections.abc import Iterator
from typing import Final

from zproxy.steering.info import map_info
from zproxy.steering.maps import kind_of
from zproxy.steering.mounts import BPF_TYPE, mounts_of
from zproxy.steering.syscall import obj_get

LIMIT: Final = 1 << 16
"""Files that are looked at; more than any machine has pins."""
_FIRST_CAPACITY: Final = 4


class Pins:
    """Paths by map id."""

    __slots__ = ("_capacity", "_chains", "_size")

    def __init__(self) -> None:
        self._chains: dict[int, list[str]] = {}
        self._capacity = 0
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._chains)

    def add(self, map_id: int, path: str) -> None:
        """Note that a map is pinned at `path`."""
        if self._capacity == 0 or (self._size + 1) * 4 // 3 > self._capacity:
            self._capacity = max(2 * self._capacity, _FIRST_CAPACITY)
            for chain in self._chains.values():
                chain.reverse()
        self._chains.setdefault(map_id, []).insert(0, path)
        self._size += 1

    def of(self, map_id: int) -> list[str]:
        """Return the paths of a map in bpftool's order."""
        return self._chains.get(map_id, [])


def find_pins() -> Pins:
    """Search every mounted bpffs for pinned maps; what cannot be read is passed over."""
    pins = Pins()
    left = LIMIT
    for mount in mounts_of(BPF_TYPE):
        for path in _files(mount.path):
            left -= 1
            if left < 0:
                return pins
            map_id = _map_at(path)
            if map_id is not None:
                pins.add(map_id, path)
    return pins


def _files(folder: str) -> Iterator[str]:
    """Walk a tree in the order of its directories, going down at once as nftw(3) does."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path)
        elif not entry.is_symlink():
            yield entry.path


def _map_at(path: str) -> int | None:
    try:
        fd = obj_get(path)
    except OSError:
        return None
    try:
        return map_info(fd).id if kind_of(fd) == "map" else None
    except OSError:
        return None
    finally:
        os.close(fd)
