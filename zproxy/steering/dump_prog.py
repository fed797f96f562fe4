"""`bpftool prog show|list`, byte for byte: what a program is, since when, how large, and what it uses."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from zproxy.steering.dump_entries import View
from zproxy.steering.dump_json import text
from zproxy.steering.dump_list import Describe, show_list, show_these
from zproxy.steering.dump_metadata import metadata_json, metadata_plain
from zproxy.steering.dump_show import details
from zproxy.steering.handles_pins import Pins
from zproxy.steering.info import Device
from zproxy.steering.progs import OpenProg, every_prog, full_name, select_progs

__all__ = ["loaded_at", "select_progs", "show_progs"]

NETNS: Final = Path("/proc/thread-self/ns/net")
_SECOND: Final = 1_000_000_000


def show_progs(progs: list[OpenProg] | None, view: View, pins: Pins) -> Iterator[str]:
    """Print the programs that were asked for, all of this machine for None.

    Raise DumpError when there are none, or when the walk breaks off.
    """
    if progs is None:
        return show_list(every_prog(), view, _describe(view, pins))
    return show_these(progs, view, _describe(view, pins))


def loaded_at(boot_ns: int, *, real_ns: int, now_ns: int) -> int:
    """Return in seconds since 1970 when a program was loaded that counts `boot_ns` from boot.

    `real_ns` and `now_ns` are what the two clocks say now. Rounded as bpftool does: each clock first, and
    without a sign, so that a program of the first second after boot seems to come from the far future.
    """
    rest = real_ns % _SECOND - now_ns % _SECOND + boot_ns
    return real_ns // _SECOND - now_ns // _SECOND + (rest & (1 << 64) - 1) // _SECOND


def _describe(view: View, pins: Pins) -> Describe[OpenProg]:
    return lambda prog, depth: _json(prog, view, pins, depth) if view.is_json else _plain(prog, view, pins)


def _json(prog: OpenProg, view: View, pins: Pins, depth: int) -> str:
    info, layout = prog.info, view.layout
    members = [(name, text(value)) for name, value in _fields(prog, view, depth + 1) if value is not None]
    if pins:
        paths = [text(view.dialect.quote(path)) for path in pins.of(info.id)]
        members.append(("pinned", layout.array(paths, depth + 1)))
    return layout.object([*members, *metadata_json(info, layout, depth + 1)], depth)(b"", 0)


def _fields(prog: OpenProg, view: View, depth: int) -> list[tuple[str, str | None]]:
    """Return what JSON says of a program, None for what it leaves out."""
    info, layout, quote = prog.info, view.layout, view.dialect.quote
    kind = view.dialect.prog_type(info.type)
    maps = [text(str(number)) for number in info.map_ids]
    return [
        ("id", str(info.id)),
        ("type", quote(kind) if kind else str(info.type)),
        ("name", quote(full_name(prog)) if info.name else None),
        ("tag", f'"{info.tag}"'),
        ("gpl_compatible", _flag(info.is_gpl)),
        ("run_time_ns", str(info.run_time_ns) if info.run_time_ns else None),
        ("run_cnt", str(info.run_count) if info.run_time_ns else None),
        ("recursion_misses", str(info.missed_count) if info.missed_count else None),
        ("dev", _device_json(info.device, view, depth) if info.device.ifindex else None),
        ("loaded_at", str(_loaded_at(info.loaded_ns)) if info.loaded_ns else None),
        ("uid", str(info.uid) if info.loaded_ns else None),
        ("orphaned", _flag(False) if view.dialect.shows_orphaned else None),
        ("bytes_xlated", str(info.xlated_size)),
        ("jited", _flag(info.jited_size > 0)),
        ("bytes_jited", str(info.jited_size) if info.jited_size else None),
        ("bytes_memlock", details(prog.fd).memlock),
        ("map_ids", layout.array(maps, depth)(b"", 0) if maps else None),
        ("btf_id", str(info.btf_id) if info.btf_id else None),
    ]


def _plain(prog: OpenProg, view: View, pins: Pins) -> str:
    info = prog.info
    memlock = details(prog.fd).memlock
    size = f"xlated {info.xlated_size}B  " + (f"jited {info.jited_size}B" if info.jited_size else "not jited")
    size += f"  memlock {memlock}B" if memlock else ""
    size += f"  map_ids {','.join(map(str, info.map_ids))}" if info.map_ids else ""
    lines = [size, *(f"pinned {path}" for path in pins.of(info.id))]
    if info.loaded_ns:
        lines.insert(0, f"loaded_at {_local_time(_loaded_at(info.loaded_ns))}  uid {info.uid}")
    if info.btf_id:
        lines.append(f"btf_id {info.btf_id}")
    described = _header(prog, view) + "".join(f"\t{line}\n" for line in lines)
    return described + metadata_plain(info, view.dialect)


def _header(prog: OpenProg, view: View) -> str:
    info = prog.info
    kind = view.dialect.prog_type(info.type) or f"type {info.type}"
    name = f"name {full_name(prog)}  " if info.name else ""
    line = f"{info.id}: {kind}  {name}tag {info.tag}{_device(info.device)}{'  gpl' if info.is_gpl else ''}"
    if info.run_time_ns:
        line += f" run_time_ns {info.run_time_ns} run_cnt {info.run_count}"
    if info.missed_count:
        line += f" recursion_misses {info.missed_count}"
    return line + "\n"


def _device(device: Device) -> str:
    if not device.ifindex:
        return ""
    where = f"ifindex {device.ifindex} ns_dev {device.netns_device} ns_ino {device.netns_inode}"
    return f"  offloaded_to {_device_name(device) or where}"


def _device_json(device: Device, view: View, depth: int) -> str:
    name = _device_name(device)
    members = [
        ("ifindex", str(device.ifindex)),
        ("ns_dev", str(device.netns_device)),
        ("ns_inode", str(device.netns_inode)),
        *([("ifname", view.dialect.quote(name))] if name else []),
    ]
    return view.layout.object([(name, text(value)) for name, value in members], depth)(b"", 0)


def _device_name(device: Device) -> str:
    """Return the name of an interface, "" when it is in another namespace or has gone."""
    here = NETNS.stat()
    if (here.st_dev, here.st_ino) != (device.netns_device, device.netns_inode):
        return ""
    try:
        return socket.if_indextoname(device.ifindex)
    except OSError:
        return ""


def _loaded_at(boot_ns: int) -> int:
    return loaded_at(boot_ns, real_ns=time.time_ns(), now_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME))


def _local_time(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))


def _flag(value: bool) -> str:
    return "true" if value else "false"
