"""Where objects are pinned: every bpffs searched, as `bpftool -f` does, and in which order it lists pins.

bpftool keeps paths in a hash table of libbpf's. Its chains grow at the front and turn round whenever the
table doubles: that makes the order in which the pins of one object are printed.
"""

import os
from collections.abc import Iterator
from typing import Final

from zproxy.steering.handles import Noun, kind_of
from zproxy.steering.info import object_id
from zproxy.steering.mounts import BPF_TYPE, mounts_of
from zproxy.steering.syscall import obj_get

LIMIT: Final = 1 << 16
"""Files that are looked at; more than any machine has pins."""
_FIRST_CAPACITY: Final = 4


class Pins:
    """Paths by id."""

    __slots__ = ("_capacity", "_chains", "_size")

    def __init__(self) -> None:
        self._chains: dict[int, list[str]] = {}
        self._capacity = 0
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._chains)

    def add(self, number: int, path: str) -> None:
        """Note that object `number` is pinned at `path`."""
        if self._capacity == 0 or (self._size + 1) * 4 // 3 > self._capacity:
            self._capacity = max(2 * self._capacity, _FIRST_CAPACITY)
            for chain in self._chains.values():
                chain.reverse()
        self._chains.setdefault(number, []).insert(0, path)
        self._size += 1

    def of(self, number: int) -> list[str]:
        """Return the paths of an object in bpftool's order."""
        return self._chains.get(number, [])


def find_pins(noun: Noun) -> Pins:
    """Search every mounted bpffs for pinned objects of one kind; what cannot be read is passed over."""
    pins = Pins()
    left = LIMIT
    for mount in mounts_of(BPF_TYPE):
        for path in _files(mount.path):
            left -= 1
            if left < 0:
                return pins
            number = _id_at(path, noun)
            if number is not None:
                pins.add(number, path)
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


def _id_at(path: str, noun: Noun) -> int | None:
    try:
        fd = obj_get(path)
    except OSError:
        return None
    try:
        return object_id(fd) if kind_of(fd) == noun.word else None
    except OSError:
        return None
    finally:
        os.close(fd)
