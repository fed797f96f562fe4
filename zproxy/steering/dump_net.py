"""`bpftool net show|list`, byte for byte: programs at the interfaces of the caller's network namespace.

bpftool before v7.3 knows neither TCX nor netkit nor netfilter links, and so shows none of them.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.steering import rtnetlink
from zproxy.steering.dump_entries import View
from zproxy.steering.dump_json import text
from zproxy.steering.dump_netfilter import decode, netfilter_json, netfilter_plain
from zproxy.steering.grammar import DumpError, Misuse, is_short_for
from zproxy.steering.handles import LINK, every_fd, reason
from zproxy.steering.info import prog_info
from zproxy.steering.progs import OpenProg, full_name
from zproxy.steering.queries import attached
from zproxy.steering.rtnetlink import CLASSES, FILTERS, QDISCS, Message, Routes
from zproxy.steering.syscall import Kind, fd_by_id, object_info

NETNS: Final = Path("/proc/thread-self/ns/net")
FLOW_DISSECTOR: Final = 17
"""An attach type, as those of LOCATIONS are."""
LOCATIONS: Final = {46: "tcx/ingress", 47: "tcx/egress", 54: "netkit/primary", 55: "netkit/peer"}
CAPACITY: Final = 64
"""Programs at one interface and hook; bpftool shows none of more."""
_IFNAME, _XDP = 3, 43
_MODES: Final = {1: "driver", 2: "generic", 3: "offload"}
_MULTI: Final = 4
_KIND, _OPTIONS = 1, 2
_PARENTS: Final = {0xFFFFFFFF: "root", 0xFFFFFFF2: "clsact/ingress", 0xFFFFFFF3: "clsact/egress"}
_MOST_ACTIONS: Final = 32


class Part(NamedTuple):
    """A member of an object: its text in JSON, and what stands for it in plain text."""

    name: str
    json: str
    plain: str


class Interface(NamedTuple):
    """An interface of the namespace."""

    ifindex: int
    name: str


def show_net(words: Sequence[str], view: View) -> Iterator[str]:
    """Print what is attached in this namespace, at all interfaces or at the one that `words` name."""
    ifindex = _chosen(words)
    dissector = _flow_dissector()
    net = _Net(view)
    try:
        links = [found for found in net.routes.links() if ifindex in (0, found.ifindex)]
        sections = [
            _section("xdp", net.xdp(links), view),
            _section("tc", net.traffic(links), view),
            ("flow_dissector", _dissector(dissector, view)),
        ]
        if view.dialect.shows_link_devices:
            sections.append(("netfilter", _netfilter(view)))
    except OSError as error:
        raise DumpError(reason(error)) from error
    finally:
        net.routes.close()
    if not view.is_json:
        yield "".join(f"{name}:\n{body}\n" for name, body in sections)
        return
    whole = text(view.layout.object([(name, text(body)) for name, body in sections], 1)(b"", 0))
    yield view.layout.array([whole], 0)(b"", 0) + "\n"


def _chosen(words: Sequence[str]) -> int:
    """Return the index of the interface that is meant, 0 for all."""
    if not words:
        return 0
    if len(words) != 2:
        raise Misuse("`net` takes nothing, or dev NAME")
    if not is_short_for(words[0], "dev"):
        raise DumpError(f"expected 'dev', got: '{words[0]}'?")
    try:
        return socket.if_nametoindex(words[1])
    except (OSError, ValueError) as error:
        raise DumpError(f"invalid devname {words[1]}") from error


def _flow_dissector() -> int:
    """Return the id of the program that dissects flows here, 0 when there is none."""
    fd = os.open(NETNS, os.O_RDONLY)
    try:
        found = attached(fd, FLOW_DISSECTOR, capacity=1)
        return found[0].prog_id if found else 0
    except OSError as error:
        if error.errno == errno.EINVAL:  # before Linux 5.7
            return 0
        raise DumpError(f"can't query prog: {reason(error)}") from error
    finally:
        os.close(fd)


class _Net:
    """Asks for the programs of interfaces and writes one entry for each."""

    __slots__ = ("_view", "routes")

    def __init__(self, view: View) -> None:
        self._view = view
        self.routes = Routes()

    def xdp(self, links: Sequence[Message]) -> Iterator[list[Part]]:
        """Yield an entry for each interface that has XDP programs."""
        for link in links:
            found = rtnetlink.attributes(link.attributes.get(_XDP, b""))
            mode = rtnetlink.number(found.get(2, b""))
            if not mode:
                continue
            yield [*self._interface(link.ifindex, link.text(_IFNAME)), *self._modes(mode, found)]

    def traffic(self, links: Sequence[Message]) -> Iterator[list[Part]]:
        """Yield an entry for each program in the path of packets: TCX and netkit, then filters."""
        for link in links:
            interface = Interface(link.ifindex, link.text(_IFNAME) or "")
            if self._view.dialect.shows_link_devices:
                for attach_type, where in LOCATIONS.items():
                    yield from self._linked(interface, attach_type, where)
            with suppress(OSError):  # what comes after a refused request is not shown
                yield from self._filters(interface)

    def _interface(self, ifindex: int, name: str | None) -> list[Part]:
        parts = [] if name is None else [self._text("devname", name, "{}")]
        return [*parts, _number("ifindex", ifindex, "({})")]

    def _modes(self, mode: int, found: dict[int, bytes]) -> list[Part]:
        if mode != _MULTI:
            return self._program(_MODES.get(mode, ""), found.get(4))
        layout = self._view.layout
        several = [("generic", found.get(6)), ("driver", found.get(5)), ("offload", found.get(7))]
        parts = [self._program(name, number) for name, number in several]
        objects = [text(_object(each, self._view, 5)) for each in parts if each]
        plain = "".join(part.plain for each in parts for part in each)
        return [Part("multi_attachments", layout.array(objects, 4)(b"", 0), plain)]

    def _program(self, mode: str, prog_id: bytes | None) -> list[Part]:
        if prog_id is None or not mode:
            return []
        return [self._text("mode", mode, " {}"), _number("id", rtnetlink.number(prog_id), " id {}")]

    def _linked(self, interface: Interface, attach_type: int, where: str) -> Iterator[list[Part]]:
        try:
            found = attached(interface.ifindex, attach_type, capacity=CAPACITY, with_links=True)
        except OSError:
            return
        layout = self._view.layout

        def flags(name: str, value: int) -> list[Part]:
            bits = [1 << bit for bit in range(32) if value >> bit & 1]
            if not bits and not self._view.is_json:
                return []
            listed = layout.array([text(str(bit)) for bit in bits], 4)(b"", 0)
            return [Part(name, listed, f"{name} " + "".join(f"{bit} " for bit in bits))]

        for each in found:
            name = _name_of(each.prog_id)
            parts = [*self._interface(*interface), self._text("kind", where, " {}")]
            parts += [self._text("name", name, " {}")] if name else []
            parts.append(_number("prog_id", each.prog_id, " prog_id {} "))
            parts += flags("prog_flags", each.flags)
            if each.link_id or self._view.is_json:
                parts.append(_number("link_id", each.link_id, "link_id {} "))
                parts += flags("link_flags", each.link_flags)
            yield parts

    def _filters(self, interface: Interface) -> Iterator[list[Part]]:
        for handle, kind in self._parents(interface.ifindex):
            for found in self.routes.traffic(FILTERS, interface.ifindex, handle):
                options = found.attributes.get(_OPTIONS)
                if options is None or found.text(_KIND) != "bpf":
                    continue
                parts = [self._text("devname", interface.name, "{}")] if interface.name else []
                parts += [_number("ifindex", interface.ifindex, "({})"), self._text("kind", kind, " {}")]
                yield [*parts, *self._filter(rtnetlink.attributes(options))]

    def _parents(self, ifindex: int) -> Iterator[tuple[int, str]]:
        """Yield what filters may hang on; as in bpftool, queues of all interfaces."""
        for found in self.routes.traffic(CLASSES, ifindex):
            yield found.handle, found.text(_KIND) or "unknown"
        for found in self.routes.traffic(QDISCS, ifindex):
            if found.text(_KIND) != "clsact" and found.handle:
                yield found.handle, found.text(_KIND) or "unknown"
        yield from _PARENTS.items()

    def _filter(self, options: dict[int, bytes]) -> list[Part]:
        parts = []
        name = rtnetlink.text(options.get(7))
        if name is not None:
            parts.append(self._text("name", name, " {}"))
        if 11 in options:
            parts.append(_number("id", rtnetlink.number(options[11]), " id {}"))
        if 1 in options:
            parts.append(self._actions(rtnetlink.attributes(options[1])))
        return parts

    def _actions(self, listed: dict[int, bytes]) -> Part:
        layout = self._view.layout
        objects, plain = [], ""
        for number in range(_MOST_ACTIONS + 1):
            action = rtnetlink.attributes(listed.get(number, b""))
            if rtnetlink.text(action.get(1)) != "bpf":
                continue
            options = rtnetlink.attributes(action.get(2, b""))
            name = rtnetlink.text(options.get(6))
            parts = [] if name is None else [self._text("name", name, "{}")]
            parts += [_number("id", rtnetlink.number(options[9]), " id {}")] if 9 in options else []
            objects.append(text(_object(parts, self._view, 5)))
            plain += "{" + "".join(part.plain for part in parts) + "}"
        return Part("act", layout.array(objects, 4)(b"", 0), f" act [{plain}] ")

    def _text(self, name: str, value: str, plain: str) -> Part:
        return Part(name, self._view.dialect.quote(value), plain.format(value))


def _number(name: str, value: int, plain: str) -> Part:
    return Part(name, str(value), plain.format(value))


def _name_of(prog_id: int) -> str:
    """Return the name of a program, "" when it has none or has gone."""
    try:
        fd = fd_by_id(Kind.PROG, prog_id)
    except OSError:
        return ""
    try:
        info = prog_info(fd)
        return full_name(OpenProg(fd, info)) if info.name else ""
    except OSError:
        return ""
    finally:
        os.close(fd)


def _section(name: str, entries: Iterator[list[Part]], view: View) -> tuple[str, str]:
    if not view.is_json:
        return name, "".join("".join(part.plain for part in parts) + "\n" for parts in entries)
    objects = [text(_object(parts, view, 3)) for parts in entries]
    return name, view.layout.array(objects, 2)(b"", 0)


def _object(parts: Sequence[Part], view: View, depth: int) -> str:
    return view.layout.object([(part.name, text(part.json)) for part in parts], depth)(b"", 0)


def _dissector(prog_id: int, view: View) -> str:
    """Return the section; bpftool writes a member into what should be a list."""
    if not view.is_json:
        return f"id {prog_id}" if prog_id else ""
    layout = view.layout
    return f"[{layout.name('id', 2)}{prog_id}{layout.line(2)}]" if prog_id else "[]"


def _netfilter(view: View) -> str:
    found = []
    for _, fd in every_fd(LINK):
        try:
            raw = object_info(fd, 64)
        finally:
            os.close(fd)
        kind, _, prog_id = struct.unpack_from("=III", raw)
        if kind == 10:
            found.append((decode(raw), prog_id, raw))
    found.sort(key=lambda each: each[0])
    if not view.is_json:
        return "".join(f"{netfilter_plain(raw)} prog_id {prog_id}" for _, prog_id, raw in found)
    objects = [
        text(
            view.layout.object(
                [(name, text(str(value))) for name, value in [*netfilter_json(raw), ("id", prog_id)]], 3
            )(b"", 0)
        )
        for _, prog_id, raw in found
    ]
    return view.layout.array(objects, 2)(b"", 0)
