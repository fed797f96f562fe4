"""`bpftool link show|list`, byte for byte: what a link runs, and what it hangs on.

Of kprobe_multi, uprobe_multi and perf_event links only the first line is printed, which is all that bpftool
prints before v7.3.
"""

import ctypes
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.config import PIN_ROOT
from zproxy.steering.dialect import Dialect
from zproxy.steering.dump_entries import View
from zproxy.steering.dump_json import text
from zproxy.steering.dump_list import Describe, show_list, show_these
from zproxy.steering.dump_netfilter import netfilter_json, netfilter_plain
from zproxy.steering.grammar import DumpError, is_short_for
from zproxy.steering.handles import LINK, every_fd, is_bare, open_id, open_pin, pins_named, reason
from zproxy.steering.handles_pins import Pins
from zproxy.steering.info import prog_info
from zproxy.steering.syscall import Kind, fd_by_id, object_info

LINK_INFO_SIZE: Final = 64
NAME_ROOM: Final = 4096
RAW_TRACEPOINT, TRACING, CGROUP, ITER, NETNS, XDP, STRUCT_OPS = 1, 2, 3, 4, 5, 6, 9
NETFILTER, TCX, NETKIT, SOCKMAP = 10, 11, 13, 14
_ORDERS: Final = ("order_unspec", "self_only", "descendants_pre", "descendants_post", "ancestors_up")

Field = tuple[str, str | int]
"""A member of an object: a text is quoted, a number is not."""


class OpenLink(NamedTuple):
    """A link, and struct bpf_link_info as the kernel filled it."""

    fd: int
    raw: bytes
    name: str
    """Of a raw tracepoint or an iterator: what it is attached to."""

    @property
    def type(self) -> int:
        """One of enum bpf_link_type."""
        return self.number(0)

    @property
    def id(self) -> int:
        """The link's own id."""
        return self.number(4)

    def number(self, at: int, code: str = "I") -> int:
        """Return the number that stands `at` bytes into the structure."""
        return int(struct.unpack_from(f"={code}", self.raw, at)[0])


@contextmanager
def select_links(
    words: Sequence[str], node: str | None, dialect: Dialect, root: Path = PIN_ROOT
) -> Iterator[list[OpenLink]]:
    """Open the links that `words` name and close them at the end of the block.

    A bare NAME is the pin of a link that serves a node or one of its pods, and may find several. Raise
    DumpError where bpftool would fail, SteeringError when no node pinned a link of a bare NAME.
    """
    with ExitStack() as stack:
        if is_bare(words[0], LINK):
            fds = [open_pin(LINK, str(path), stack) for path in pins_named(LINK, words[0], node, root)]
        elif is_short_for(words[0], "id"):
            fds = [open_id(LINK, words[1], dialect.missing_link, stack)]
        else:
            fds = [open_pin(LINK, words[1], stack)]
        yield [_described(fd) for fd in fds]


def show_links(links: list[OpenLink] | None, view: View, pins: Pins) -> Iterator[str]:
    """Print the links that were asked for, all of this machine for None."""
    if links is None:
        return show_list(_every_link(), view, _describe(view, pins))
    return show_these(links, view, _describe(view, pins))


def _every_link() -> Iterator[OpenLink]:
    for _, fd in every_fd(LINK):
        try:
            yield _described(fd)
        finally:
            os.close(fd)


def _described(fd: int) -> OpenLink:
    try:
        raw = object_info(fd, LINK_INFO_SIZE)
        link = OpenLink(fd, raw, "")
        if link.type not in (RAW_TRACEPOINT, ITER):
            return link
        room = ctypes.create_string_buffer(NAME_ROOM)
        request = bytes(16) + struct.pack("=QI", ctypes.addressof(room), NAME_ROOM)
        return OpenLink(fd, object_info(fd, LINK_INFO_SIZE, request), os.fsdecode(room.value))
    except OSError as error:
        raise DumpError(f"can't get link info: {reason(error)}") from error


def _describe(view: View, pins: Pins) -> Describe[OpenLink]:
    return lambda link, depth: _json(link, view, pins, depth) if view.is_json else _plain(link, view, pins)


def _json(link: OpenLink, view: View, pins: Pins, depth: int) -> str:
    dialect, layout = view.dialect, view.layout
    kind = dialect.link_type(link.type)
    fields: list[Field] = [("id", link.id), ("type", kind or link.type), ("prog_id", link.number(8))]
    fields += _fields(link, dialect)
    members = [
        (name, text(dialect.quote(value) if isinstance(value, str) else str(value))) for name, value in fields
    ]
    if pins:
        paths = [text(dialect.quote(path)) for path in pins.of(link.id)]
        members.append(("pinned", layout.array(paths, depth + 1)))
    return layout.object(members, depth)(b"", 0)


def _plain(link: OpenLink, view: View, pins: Pins) -> str:
    kind = view.dialect.link_type(link.type) or f"type {link.type}"
    is_ops = link.type == STRUCT_OPS and view.dialect.shows_link_devices
    runs = f"map {link.number(16)}" if is_ops else f"prog {link.number(8)}"
    lines = [f"{link.id}: {kind}  {runs}  {_lines(link, view.dialect)}"]
    lines += [f"pinned {path}" for path in pins.of(link.id)]
    return "\n\t".join(lines) + "\n"


def _fields(link: OpenLink, dialect: Dialect) -> list[Field]:
    """Return what JSON says about a link's target."""
    plain = _TARGETS.get(link.type)
    if plain is not None:
        return [*plain(link), _attach_type(link, dialect)]
    if link.type == RAW_TRACEPOINT:
        return [("tp_name", link.name), *_cookie(link, dialect)]
    if link.type == TRACING:
        return [*_tracing_fields(link, dialect), *_cookie(link, dialect)]
    if link.type == ITER:
        return _iterator(link)
    return _later_fields(link, dialect) if dialect.shows_link_devices else []


def _lines(link: OpenLink, dialect: Dialect) -> str:
    """Return what follows the first line's words in plain text; it mostly begins a second line."""
    plain = _TARGETS.get(link.type)
    if plain is not None:
        return "\n\t" + _words([*plain(link), _attach_type(link, dialect)])
    if link.type == RAW_TRACEPOINT:
        return f"\n\ttp '{link.name}'  " + _words(_set(_cookie(link, dialect)))
    if link.type == TRACING:
        return _tracing_lines(link, dialect)
    if link.type == ITER:
        return "".join(
            f"{name} {value}" + (" " if name in ("tid", "pid") else "  ") for name, value in _iterator(link)
        )
    return _later_lines(link, dialect) if dialect.shows_link_devices else ""


_TARGETS: Final[dict[int, Callable[[OpenLink], list[Field]]]] = {
    CGROUP: lambda link: [("cgroup_id", link.number(16, "Q"))],
    NETNS: lambda link: [("netns_ino", link.number(16))],
}
"""Links that every release describes by their target and attach type."""


def _attach_type(link: OpenLink, dialect: Dialect) -> Field:
    at = {CGROUP: 24, TRACING: 16}.get(link.type, 20)
    number = link.number(at)
    return "attach_type", dialect.attach_type(number) or number


def _tracing_fields(link: OpenLink, dialect: Dialect) -> list[Field]:
    number = _prog_type(link)
    return [
        ("prog_type", dialect.prog_type(number) or number),
        _attach_type(link, dialect),
        ("target_obj_id", link.number(20)),
        ("target_btf_id", link.number(24)),
    ]


def _tracing_lines(link: OpenLink, dialect: Dialect) -> str:
    fields = _tracing_fields(link, dialect)
    lines = "\n\t" + _words(fields[:2])
    if _set(fields[2:]):
        lines += "\n\t" + _words(fields[2:])
    cookie = _set(_cookie(link, dialect))
    return lines + (f"\n\t{_words(cookie)}" if cookie else "")


def _prog_type(link: OpenLink) -> int:
    try:
        fd = fd_by_id(Kind.PROG, link.number(8))
    except OSError as error:
        raise DumpError from error
    try:
        return prog_info(fd).type
    except OSError as error:
        raise DumpError(f"can't get prog info: {reason(error)}") from error
    finally:
        os.close(fd)


def _cookie(link: OpenLink, dialect: Dialect) -> list[Field]:
    return [("cookie", link.number(32, "Q"))] if dialect.shows_link_cookies else []


def _iterator(link: OpenLink) -> list[Field]:
    fields: list[Field] = [("target_name", link.name)]
    if link.name in ("bpf_map_elem", "bpf_sk_storage_map"):
        fields.append(("map_id", link.number(28)))
    elif link.name in ("task", "task_file", "task_vma"):
        fields += _set([("tid", link.number(32)), ("pid", link.number(36))])[:1]
    elif link.name == "cgroup":
        order = link.number(40)
        fields.append(("cgroup_id", link.number(32, "Q")))
        fields.append(("order", _ORDERS[order] if order < len(_ORDERS) else "unknown"))
    return fields


def _later_fields(link: OpenLink, dialect: Dialect) -> list[Field]:
    if link.type == NETFILTER:
        return netfilter_json(link.raw)
    if link.type in (TCX, NETKIT):
        return [*_device(link), _attach_type(link, dialect)]
    if link.type == SOCKMAP and dialect.link_type(SOCKMAP):
        return [("map_id", link.number(16)), _attach_type(link, dialect)]
    if link.type == XDP:
        return _device(link)
    return [("map_id", link.number(16))] if link.type == STRUCT_OPS else []


def _later_lines(link: OpenLink, dialect: Dialect) -> str:
    if link.type == NETFILTER:
        return netfilter_plain(link.raw)
    fields = _later_fields(link, dialect)
    if link.type in (TCX, NETKIT, XDP):
        name, ifindex = str(fields[0][1]), link.number(16)
        shown = name if name.startswith("(") else f"{name}({ifindex})"
        fields = [("ifindex", shown), *fields[2:]]
    return f"\n\t{_words(fields)}" if fields and link.type != STRUCT_OPS else ""


def _device(link: OpenLink) -> list[Field]:
    """Return the interface of a link, by name in the namespace of whoever asks."""
    ifindex = link.number(16)
    name = "(unknown)" if ifindex else "(detached)"
    if ifindex:
        with suppress(OSError):
            name = socket.if_indextoname(ifindex)
    return [("devname", name), ("ifindex", ifindex)]


def _set(fields: list[Field]) -> list[Field]:
    return [field for field in fields if field[1]]


def _words(fields: list[Field]) -> str:
    return "".join(f"{name} {value}  " for name, value in fields)
