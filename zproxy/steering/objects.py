"""A node's pinned maps and programs, opened and checked before anything relies on them."""

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from zproxy.errors import RequirementError
from zproxy.steering import batch, syscall
from zproxy.steering.hooks import HOOKS
from zproxy.steering.info import link_info, map_info, prog_info
from zproxy.steering.layout import INDEX, LAYOUT, MAPS, Meta
from zproxy.steering.links import Program
from zproxy.steering.pins import NodePins, entries

DECIDING: Final = ("zp_pods", "zp_podip", "zp_in", "zp_lsn", "zp_exempt")
"""The maps without whose entries traffic would go elsewhere."""
_FIRST: Final = INDEX.pack(index=0)


class Unusable(Exception):
    """What is pinned cannot be used; the text says what is wrong, as the first part of a sentence.

    For install.py to decide upon, NEVER shown as it is.
    """


class Outdated(Unusable):
    """Finished by another version, whose maps are other ones: whole, but not for this version to write."""


class Objects:
    """Open maps and programs by name. Owns the descriptors; `close` leaves the pins."""

    __slots__ = ("maps", "programs")

    def __init__(self) -> None:
        self.maps: dict[str, int] = {}
        self.programs: dict[str, Program] = {}

    @property
    def meta(self) -> Meta:
        """Who finished these pins."""
        value = syscall.map_lookup(self.maps["zp_meta"], _FIRST, MAPS["zp_meta"].value.size)
        return Meta.decode(value or bytes(MAPS["zp_meta"].value.size))

    def sign(self, build: str) -> None:
        """Declare the pins complete and made from the sources with this hash."""
        syscall.map_update(self.maps["zp_meta"], _FIRST, Meta(LAYOUT, build).encode())

    def elements(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield the elements of a hash map; those that go meanwhile are left out."""
        spec = MAPS[name]
        return batch.elements(self.maps[name], spec.key.size, spec.value.size)

    def close_programs(self) -> None:
        """Drop the programs' descriptors."""
        for program in self.programs.values():
            os.close(program.fd)
        self.programs = {}

    def close(self) -> None:
        """Drop every descriptor; idempotent."""
        self.close_programs()
        for fd in self.maps.values():
            os.close(fd)
        self.maps = {}


def open_maps(pins: NodePins) -> Objects:
    """Open the node's maps; raise Unusable unless they are exactly those of this version."""
    _refuse_outdated(pins)
    objects = Objects()
    try:
        for name in MAPS:
            objects.maps[name] = _open_map(pins, name)
        known = {pins.maps / name for name in MAPS}
        for path in entries(pins.maps):
            if path not in known:
                raise Unusable(f"{path} is no map of this version")
    except BaseException:
        objects.close()
        raise
    return objects


def _refuse_outdated(pins: NodePins) -> None:
    """Ask zp_meta, which begins with the layout in every version, before any other map is looked at."""
    try:
        fd = syscall.obj_get(pins.maps / "zp_meta")
    except OSError:
        return  # half-written, which the maps themselves will tell
    try:
        info = map_info(fd)
        value = syscall.map_lookup(fd, _FIRST, info.value_size) if info.key_size == INDEX.size else None
    except OSError:
        return
    finally:
        os.close(fd)
    layout = int.from_bytes((value or b"")[:4], sys.byteorder)
    if layout not in (0, LAYOUT):
        raise Outdated(f"{pins.maps} has map layout {layout}, this version has {LAYOUT}")


def _open_map(pins: NodePins, name: str) -> int:
    path = pins.maps / name
    fd = _open(path)
    try:
        if not MAPS[name].matches(name, map_info(fd)):
            raise Unusable(f"{path} is not the map that this version uses")
    except OSError as error:
        os.close(fd)
        raise Unusable(f"{path} is not a map") from error
    except Unusable:
        os.close(fd)
        raise
    return fd


def open_programs(pins: NodePins, objects: Objects, *, upgraded: bool = False) -> None:
    """Add the node's programs to `objects`; raise Unusable unless all are there and use exactly its maps.

    A pin that somebody exchanged would read maps that nobody writes, and so steer nothing.
    """
    directory = pins.programs_new if upgraded else pins.programs
    map_ids = {map_info(fd).id for fd in objects.maps.values()}
    for name, hook in HOOKS.items():
        path = directory / name
        fd = _open(path)
        try:
            info = prog_info(fd)
        except OSError as error:
            os.close(fd)
            raise Unusable(f"{path} is not a program") from error
        objects.programs[name] = Program(fd, info.id)
        if (info.name, info.type) != (name, hook.prog_type) or not map_ids.issuperset(info.map_ids):
            raise Unusable(f"{path} is not the program that this version uses")


def check_steering(pins: NodePins, objects: Objects) -> None:
    """Raise Unusable when a map that decides where traffic goes is used by no program that is pinned or runs.

    Such a map was put in the place of ours: programs that are loaded on it would steer nobody.
    """
    unused = {map_info(objects.maps[name]).id: name for name in DECIDING}
    for path in (*entries(pins.programs), *entries(pins.programs_new), *pins.link_pins()):
        for number in _maps_used(path):
            unused.pop(number, None)
        if not unused:
            return
    name = next(iter(unused.values()))
    raise Unusable(f"{pins.maps / name} is not the map that the programs use")


def _maps_used(path: Path) -> tuple[int, ...]:
    """Return the ids of the maps that the program, or the program of the link, at a pin uses."""
    fd = _open(path)
    try:
        if "bpf-link" in os.readlink(f"/proc/self/fd/{fd}"):
            program = syscall.fd_by_id(syscall.Kind.PROG, link_info(fd).prog_id)
            os.close(fd)
            fd = program
        return prog_info(fd).map_ids
    except OSError:
        return ()  # no program, or gone: judged elsewhere
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    try:
        return syscall.obj_get(path)
    except OSError as error:
        if error.errno == errno.EPERM:
            raise RequirementError(
                f"the kernel refused to open {path}; run as root with CAP_BPF, CAP_NET_ADMIN and "
                "CAP_SYS_ADMIN"
            ) from error
        raise Unusable(f"{path} cannot be opened: {os.strerror(error.errno or 0)}") from error
