"""`bpftool map show|list`, byte for byte: what a map is, how much memory it takes, where it is pinned."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.steering.dialect import Dialect
from zproxy.steering.dump_entries import PROG_ARRAY, View
from zproxy.steering.dump_json import text
from zproxy.steering.dump_list import Describe, show_list, show_these
from zproxy.steering.handles_pins import Pins
from zproxy.steering.info import MAP_INFO_SIZE, MapInfo, decode_map_info
from zproxy.steering.maps import OpenMap
from zproxy.steering.syscall import object_info

FDINFO: Final = Path("/proc/self/fdinfo")


class Details(NamedTuple):
    """What /proc/self/fdinfo tells about a map; None where this kernel does not say."""

    memlock: str | None
    is_frozen: bool
    owner_type: int | None
    """Of a prog_array: the type of the programs in it."""
    is_owner_jited: bool | None


def show_one(maps: list[OpenMap], view: View, pins: Pins) -> Iterator[str]:
    """Print the maps that were asked for; none is a failure without words."""
    return show_these(list(_listed(maps)), view, _describe(view, pins))


def show_all(maps: Iterable[OpenMap], view: View, pins: Pins) -> Iterator[str]:
    """Print every map, as a list however many there are; raise DumpError when the walk breaks off."""
    return show_list(_listed(maps), view, _describe(view, pins))


def header_json(info: MapInfo, dialect: Dialect) -> list[tuple[str, str]]:
    """Return the members that begin every description of a map, as name and text."""
    kind = dialect.map_type(info.type)
    members = [("id", str(info.id)), ("type", dialect.quote(kind) if kind else str(info.type))]
    if info.name:
        members.append(("name", dialect.quote(info.name)))
    return [*members, ("flags", str(info.flags))]


def header_plain(info: MapInfo, dialect: Dialect) -> str:
    """Return the first line of a description."""
    kind = dialect.map_type(info.type) or f"type {info.type}"
    name = f"name {info.name}  " if info.name else ""
    return f"{info.id}: {kind}  {name}flags {info.flags:#x}\n"


def details(fd: int, folder: Path = FDINFO) -> Details:
    """Read what the kernel tells about a map through its descriptor only."""
    lines = (folder / str(fd)).read_text().splitlines()

    def value(key: str) -> str | None:
        line = next((line for line in lines if key in line), "")
        return line.partition("\t")[2] or None

    owner, jited = value("owner_prog_type"), value("owner_jited")
    return Details(
        memlock=value("memlock"),
        is_frozen=int(value("frozen") or 0) != 0,
        owner_type=int(owner) if owner else None,
        is_owner_jited=int(jited) != 0 if jited else None,
    )


def _listed(maps: Iterable[OpenMap]) -> Iterator[OpenMap]:
    """Describe maps as bpftool does in a list: with its answer about the map before as the question.

    Linux 6.18 leaves in it what a map does not have, and so a map without types is listed with the btf_id of
    another. The list is compared with bpftool's, so it says the same; nothing else trusts such an answer.
    """
    raw = b""
    for opened in maps:
        raw = object_info(opened.fd, MAP_INFO_SIZE, raw)
        yield OpenMap(opened.fd, decode_map_info(raw))


def _describe(view: View, pins: Pins) -> Describe[OpenMap]:
    return lambda opened, depth: (
        _json(opened, view, pins, depth) if view.is_json else _plain(opened, view, pins)
    )


def _json(opened: OpenMap, view: View, pins: Pins, depth: int) -> str:
    info, found, layout = opened.info, details(opened.fd), view.layout
    members = [
        *header_json(info, view.dialect),
        ("bytes_key", str(info.key_size)),
        ("bytes_value", str(info.value_size)),
        ("max_entries", str(info.max_entries)),
    ]
    if found.memlock:
        members.append(("bytes_memlock", found.memlock))
    if info.type == PROG_ARRAY and found.owner_type is not None:
        name = view.dialect.prog_type(found.owner_type)
        members.append(("owner_prog_type", view.dialect.quote(name) if name else str(found.owner_type)))
    if info.type == PROG_ARRAY and found.is_owner_jited is not None:
        members.append(("owner_jited", "true" if found.is_owner_jited else "false"))
    members.append(("frozen", str(int(found.is_frozen))))
    if info.btf_id:
        members.append(("btf_id", str(info.btf_id)))
    pieces = [(name, text(value)) for name, value in members]
    if pins:
        paths = [text(view.dialect.quote(path)) for path in pins.of(info.id)]
        pieces.append(("pinned", layout.array(paths, depth + 1)))
    return layout.object(pieces, depth)(b"", 0)


def _plain(opened: OpenMap, view: View, pins: Pins) -> str:
    info, found = opened.info, details(opened.fd)
    lines = [f"key {info.key_size}B  value {info.value_size}B  max_entries {info.max_entries}"]
    if found.memlock:
        lines[0] += f"  memlock {found.memlock}B"
    owner = _owner(found, view.dialect) if info.type == PROG_ARRAY else ""
    types = f"btf_id {info.btf_id}" if info.btf_id else ""
    frozen = "frozen" if found.is_frozen else ""
    lines += [owner] if owner else []
    lines += [f"pinned {path}" for path in pins.of(info.id)]
    lines += ["  ".join(filter(None, (types, frozen)))] if types or frozen else []
    return header_plain(info, view.dialect) + "".join(f"\t{line}\n" for line in lines)


def _owner(found: Details, dialect: Dialect) -> str:
    words = ""
    if found.owner_type is not None:
        words += f"owner_prog_type {dialect.prog_type(found.owner_type) or found.owner_type}  "
    if found.is_owner_jited is not None:
        words += f"owner{'' if found.is_owner_jited else ' not'} jited"
    return words
