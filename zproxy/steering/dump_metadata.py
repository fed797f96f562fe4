"""What a program says about itself: the variables bpf_metadata_* in its read-only data (Linux 5.10)."""

import os
from typing import Final, NamedTuple

from zproxy.steering.btf import Btf, load
from zproxy.steering.btf_types import BtfKind, Reference, Section
from zproxy.steering.dialect import Dialect
from zproxy.steering.dump_btf import TypedText
from zproxy.steering.dump_json import Layout, Piece, moved
from zproxy.steering.info import MapInfo, MapType, ProgInfo, map_info
from zproxy.steering.syscall import Kind, fd_by_id, map_lookup

PREFIX: Final = "bpf_metadata_"


class Metadata(NamedTuple):
    """Read-only data, its types, and the variables that speak of the program: name, type and place."""

    data: bytes
    btf: Btf
    variables: list[tuple[str, int, int]]


def metadata_json(info: ProgInfo, layout: Layout, depth: int) -> list[tuple[str, Piece]]:
    """Return the member `metadata`, whose object opens at `depth`; nothing when the program says nothing."""
    found = _find(info)
    if found is None:
        return []
    typed = TypedText(found.btf, layout, is_json=True)
    members = [
        (name, moved(typed.compile(type_id, depth + 1).piece, place))
        for name, type_id, place in found.variables
    ]
    whole = layout.object(members, depth)(found.data, 0)
    return [("metadata", lambda _record, _at: whole)]


def metadata_plain(info: ProgInfo, dialect: Dialect) -> str:
    """Return the lines that follow the description of a program, "" when it says nothing."""
    found = _find(info)
    if found is None:
        return ""
    typed = TypedText(found.btf, Layout(False, dialect), is_json=False)
    lines = [
        f"\n\t\t{name} = {typed.compile(type_id, 0).piece(found.data, place)}"
        for name, type_id, place in found.variables
    ]
    return f"\tmetadata:{''.join(lines)}\n"


def _find(info: ProgInfo) -> Metadata | None:
    try:
        found = _read_only_data(info)
        if found is None:
            return None
        described, data = found
        btf = load(described.btf_id)
    except OSError:
        return None
    section = btf.type(described.btf_value_type_id)
    if not isinstance(section, Section):
        return None
    variables = [
        (variable.name.removeprefix(PREFIX), variable.target, place)
        for variable, place in ((btf.type(number), place) for number, place in section.variables)
        if isinstance(variable, Reference)
        and variable.kind is BtfKind.VAR
        and variable.name.startswith(PREFIX)
    ]
    return Metadata(data, btf, variables) if variables else None


def _read_only_data(info: ProgInfo) -> tuple[MapInfo, bytes] | None:
    for number in info.map_ids:
        fd = fd_by_id(Kind.MAP, number)
        try:
            found = map_info(fd)
            shape = (found.type, found.key_size, found.max_entries)
            if shape == (MapType.ARRAY, 4, 1) and found.btf_value_type_id and ".rodata" in found.name:
                data = map_lookup(fd, bytes(4), found.value_size)
                return None if data is None else (found, data)
        finally:
            os.close(fd)
    return None
