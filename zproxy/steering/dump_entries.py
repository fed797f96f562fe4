"""Elements of a map as text: what stands for a key and its value in each of bpftool's three forms.

Plain is hexadecimal, or typed text when the map has BTF; JSON shows every byte, and with BTF the typed value
beside it under `formatted`.
"""

import errno
import os
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

from zproxy.steering.btf import Btf, load, load_vmlinux
from zproxy.steering.cpus import possible_cpus
from zproxy.steering.dialect import Dialect
from zproxy.steering.dump_btf import TypedText
from zproxy.steering.dump_json import Layout, Piece, moved, text
from zproxy.steering.dump_plain import entry, failed_entry, inner_map_entry, per_cpu_entry
from zproxy.steering.grammar import DumpError, status_of
from zproxy.steering.info import MapInfo
from zproxy.steering.maps import OpenMap
from zproxy.steering.syscall import map_keys, map_lookup

PER_CPU_TYPES: Final = frozenset({5, 6, 10, 21})
"""percpu_hash, percpu_array, lru_percpu_hash, percpu_cgroup_storage."""
MAP_OF_MAPS_TYPES: Final = frozenset({12, 13})
"""array_of_maps, hash_of_maps."""
PROG_ARRAY: Final = 3
REUSEPORT_SOCKARRAY: Final = 20
SPARE_STEPS: Final = 1024
"""Steps of a walk beyond twice the capacity of the map, before it counts as one that never ends."""


class View(NamedTuple):
    """How to print: bpftool's `-j` and `-p` (which implies -j), and the release that is imitated."""

    is_json: bool
    is_pretty: bool
    dialect: Dialect

    @property
    def layout(self) -> Layout:
        """The layout of everything in brackets; typed text is always indented."""
        return Layout(self.is_pretty or not self.is_json, self.dialect)


class Element(NamedTuple):
    """One element as text."""

    text: str
    is_found: bool = True
    """False for a key without a value: an empty slot, or one that cannot be read."""
    is_part: bool = True
    """Whether it takes part in the brackets around it, and so needs a comma before the next one."""


class Reader:
    """One map that is printed, its elements inside `depth` brackets. The descriptor stays the caller's."""

    __slots__ = ("_depth", "_fd", "_piece", "_size", "_view", "info", "is_typed")

    def __init__(self, opened: OpenMap, view: View, depth: int, *, with_types: bool) -> None:
        """Fetch the types of the map, if it has any and `with_types`; raise DumpError when that fails."""
        self._fd, self.info = opened
        self._view = view
        self._depth = depth
        self._size = value_size(self.info)
        btf = _types(self.info) if with_types else None
        self.is_typed = btf is not None
        if view.is_json:
            self._piece = _json_piece(self.info, view, btf, depth)
        elif btf is not None:
            self._piece = _typed_piece(
                self.info, TypedText(btf, view.layout, is_json=False), view.layout, depth
            )
        else:
            self._piece = _plain_piece(self.info, view.dialect)

    def elements(self) -> Iterator[Element]:
        """Walk the map; raise DumpError when it cannot be walked, or changes faster than it is."""
        limit = 2 * self.info.max_entries + SPARE_STEPS
        try:
            for step, key in enumerate(map_keys(self._fd, self.info.key_size, limit + 1)):
                if step == limit:
                    raise DumpError(
                        f"map {self.info.id} changes faster than it can be read; its end is missing"
                    )
                yield self._element(key)
        except OSError as error:
            raise DumpError(status=status_of(error)) from error

    def find(self, key: bytes) -> str | None:
        """Return one element as text, None when it is not there; raise OSError when it cannot be read."""
        value = map_lookup(self._fd, key, self._size)
        return None if value is None else self._piece(key + value, 0)

    def _element(self, key: bytes) -> Element:
        try:
            found = self.find(key)
        except OSError as error:
            return self._failed(key, error.errno or 0)
        if found is None:
            return self._failed(key, errno.ENOENT)
        return Element(found, is_part=self._view.is_json or self.is_typed)

    def _failed(self, key: bytes, code: int) -> Element:
        """An empty slot is shown, unless the map is an array of maps or programs and so mostly empty."""
        kind = self.info.type
        if code == errno.ENOENT and (kind in MAP_OF_MAPS_TYPES or kind == PROG_ARRAY):
            return Element("", is_found=False, is_part=False)
        if self._view.is_json:
            layout = self._view.layout
            members = [
                ("key", layout.hex_array(len(key), self._depth + 1)),
                ("value", self._error_piece(code)),
            ]
            return Element(layout.object(members, self._depth)(key, 0), is_found=False)
        message = os.strerror(code)
        if code == errno.ENOENT:
            message = "<no entry>"
        elif code == errno.ENOSPC and kind == REUSEPORT_SOCKARRAY:
            message = "<cannot read>"
        return Element(failed_entry(key, message), is_found=False, is_part=False)

    def _error_piece(self, code: int) -> Piece:
        return text(self._view.layout.error(os.strerror(code), self._depth + 1))


def value_size(info: MapInfo) -> int:
    """Return the bytes that a lookup writes: of a per-CPU map one slot for each possible CPU."""
    return _slot_size(info) * possible_cpus() if info.type in PER_CPU_TYPES else info.value_size


def _slot_size(info: MapInfo) -> int:
    """Return the bytes from one CPU's value to the next one's."""
    return (info.value_size + 7) & ~7


def _types(info: MapInfo) -> Btf | None:
    try:
        if info.vmlinux_value_type_id:
            return load_vmlinux()
        return load(info.btf_id) if info.btf_value_type_id else None
    except OSError as error:
        what = "failed to get kernel btf" if info.vmlinux_value_type_id else "failed to get btf"
        raise DumpError(what, status_of(error)) from error


def _json_piece(info: MapInfo, view: View, btf: Btf | None, depth: int) -> Piece:
    layout = view.layout
    members = [("key", layout.hex_array(info.key_size, depth + 1))]
    if info.type in PER_CPU_TYPES:
        cpus = [layout.hex_array(info.value_size, depth + 3)] * possible_cpus()
        members.append(("values", _per_cpu(cpus, info, layout, depth + 1)))
    else:
        members.append(("value", moved(layout.hex_array(info.value_size, depth + 1), info.key_size)))
    if info.type in MAP_OF_MAPS_TYPES and view.dialect.shows_inner_map_ids:
        members.append(("inner_map_id", lambda record, _: str(_inner_map(record, info))))
    if btf is not None:
        members.append(
            ("formatted", _typed_piece(info, TypedText(btf, layout, is_json=True), layout, depth + 1))
        )
    return layout.object(members, depth)


def _plain_piece(info: MapInfo, dialect: Dialect) -> Piece:
    size, slot = info.key_size, _slot_size(info)
    if info.type in PER_CPU_TYPES:
        places = range(size, size + slot * possible_cpus(), slot)
        return lambda record, _: per_cpu_entry(
            record[:size], [record[at : at + info.value_size] for at in places]
        )
    if info.type in MAP_OF_MAPS_TYPES and dialect.shows_inner_map_ids:
        return lambda record, _: inner_map_entry(record[:size], _inner_map(record, info))
    return lambda record, _: entry(record[:size], record[size:])


def _typed_piece(info: MapInfo, typed: TypedText, layout: Layout, depth: int) -> Piece:
    members: list[tuple[str, Piece]] = []
    if info.btf_key_type_id:
        key = typed.compile(info.btf_key_type_id, depth + 1)
        members.append(("key", key.piece))
        if key.is_broken:
            return layout.object(members, depth)
    type_id = info.vmlinux_value_type_id or info.btf_value_type_id
    if info.type in PER_CPU_TYPES:
        value = typed.compile(type_id, depth + 3)
        cpus = [value.piece] * (1 if value.is_broken else possible_cpus())
        members.append(("values", _per_cpu(cpus, info, layout, depth + 1)))
    else:
        members.append(("value", moved(typed.compile(type_id, depth + 1).piece, info.key_size)))
    return layout.object(members, depth)


def _per_cpu(values: list[Piece], info: MapInfo, layout: Layout, depth: int) -> Piece:
    pieces = []
    for cpu, value in enumerate(values):
        placed = moved(value, info.key_size + cpu * _slot_size(info))
        pieces.append(layout.object([("cpu", text(str(cpu))), ("value", placed)], depth + 1))
    return layout.array(pieces, depth)


def _inner_map(record: bytes, info: MapInfo) -> int:
    return int.from_bytes(record[info.key_size :][:4], sys.byteorder)
