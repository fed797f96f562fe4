"""Netlink without a library: links, addresses, rules, routes, sockets, as the kernel has them.

A dump costs some tens of microseconds, because a namespace is looked at every minute by a process that has
two hundred of them. Everything concerns the namespace of the calling thread, see `Netns.run`. Layouts are
those of linux/netlink.h, rtnetlink.h, fib_rules.h and inet_diag.h; what is too short is left out.
"""

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

from zproxy.model.addr import Endpoint, canonical_ip

DEADLINE_S: Final = 2.0
"""A dump is answered from memory; a kernel that needs longer is asked again in a minute."""
MAX_ENTRIES: Final = 4096
"""Of one dump: a pod that makes more of anything is not worth the daemon's time."""
TRIES: Final = 3
"""The kernel says when a dump was taken while things changed."""

_NETLINK_SOCK_DIAG: Final = 4
_SOL_NETLINK: Final = 270
_GET_STRICT_CHK: Final = 12
"""Linux 4.20: the kernel filters a dump of routes by table."""
_REQUEST_DUMP: Final = 0x301
_DUMP_INTR: Final = 0x10
_ERROR: Final = 2
_DONE: Final = 3
_GETLINK, _GETADDR, _GETROUTE, _GETRULE, _DIAG_BY_FAMILY = 18, 22, 26, 34, 20
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_TCP_SYN_SENT, _CLOSE, _TCP_LISTEN = 2, 7, 10
"""States; a UDP socket without a peer is in CLOSE."""

GROUPS: Final = (1, 5, 7, 8, 9, 11, 19)
"""Multicast groups LINK, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, and those of IPv6."""
_WATCH_BUFFER: Final = 16384
"""A notice only says that something changed, so those that do not fit may be lost."""


class Interface(NamedTuple):
    """A network interface; `is_up` is its administrative state."""

    ifindex: int
    name: str
    is_up: bool


class Address(NamedTuple):
    """An address of global scope and the interface that carries it."""

    ifindex: int
    ip: str


class Rule(NamedTuple):
    """A rule of policy routing. `mark` and `mask` are 0 for a rule that does not look at marks."""

    family: int
    priority: int
    mark: int
    mask: int
    table: int


class Route(NamedTuple):
    """A route of one table; `type` as in `ip route` (2 is local). An address that it has not is empty."""

    family: int
    type: int
    prefix_length: int
    out_index: int
    destination: str = ""
    """Of the prefix; empty for the default."""
    source: str = ""
    """The one that is preferred for what goes there."""


class Listening(NamedTuple):
    """A listening TCP socket: who it is, and how many connections wait for accept(2) of how many that may."""

    family: int
    port: int
    cookie: int
    inode: int
    waiting: int
    backlog: int


def interfaces() -> list[Interface]:
    """Return the interfaces of this namespace; raise OSError."""
    found = []
    without_statistics = struct.pack("=HHI", 8, 29, 1 << 3)  # IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS
    for body, attributes in _dump(socket.NETLINK_ROUTE, _GETLINK, bytes(16) + without_statistics, 16):
        _, index, flags = struct.unpack_from("=HiI", body, 2)
        found.append(Interface(index, _text(attributes.get(3, b"")), bool(flags & 1)))
    return found


def addresses() -> list[Address]:
    """Return the addresses of global scope. On a point-to-point link the peer's is another attribute."""
    found = []
    for body, attributes in _dump(socket.NETLINK_ROUTE, _GETADDR, bytes(8), 8):
        family, _, _, scope, index = struct.unpack_from("=BBBBI", body)
        raw = attributes.get(2) or attributes.get(1) or b""
        if scope == 0 and family in (socket.AF_INET, socket.AF_INET6) and raw:
            found.append(Address(index, socket.inet_ntop(family, raw)))
    return found


def rules(family: int) -> list[Rule]:
    """Return the rules of a family; none where the kernel runs without it."""
    found = []
    for body, attributes in _dump(socket.NETLINK_ROUTE, _GETRULE, bytes((family,)) + bytes(11), 12):
        table = _number(attributes, 15) or body[4]
        found.append(
            Rule(family, _number(attributes, 6), _number(attributes, 10), _number(attributes, 16), table)
        )
    return found


def routes(family: int, table: int) -> list[Route]:
    """Return the routes of one table; none when there is no such table."""
    request = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0) + struct.pack("=HHI", 8, 15, table)
    found = []
    for body, attributes in _dump(socket.NETLINK_ROUTE, _GETROUTE, request, 12):
        if (_number(attributes, 15) or body[4]) == table:
            ips = (_ip(family, attributes.get(kind)) for kind in (1, 7))  # RTA_DST, RTA_PREFSRC
            found.append(Route(family, body[7], body[1], _number(attributes, 4), *ips))
    return found


def listening() -> list[Listening]:
    """Return the listening TCP sockets of both families."""
    found = []
    for body in _sockets(_TCP_LISTEN):
        (port,) = struct.unpack_from("!H", body, 4)
        (cookie,) = struct.unpack_from("=Q", body, 44)
        waiting, backlog, _, inode = struct.unpack_from("=IIII", body, 56)
        found.append(Listening(body[0], port, cookie, inode, waiting, backlog))
    return found


def dialling() -> list[tuple[Endpoint, Endpoint]]:
    """Return source and destination of the TCP sockets whose SYN has had no answer yet."""
    found = []
    for body in _sockets(_TCP_SYN_SENT):
        size = 16 if body[0] == socket.AF_INET6 else 4
        sport, dport = struct.unpack_from("!HH", body, 4)
        ips = [canonical_ip(socket.inet_ntop(body[0], body[at : at + size])) for at in (8, 24)]
        found.append((Endpoint(ips[0], sport), Endpoint(ips[1], dport)))
    return found


def taking_datagrams(port: int) -> list[int]:
    """Return the inodes of the UDP sockets that take what anybody sends to a port."""
    return [struct.unpack_from("=I", body, 68)[0] for body in _sockets(_CLOSE, socket.IPPROTO_UDP, port)]


def _sockets(state: int, protocol: int = socket.IPPROTO_TCP, port: int = 0) -> Iterator[bytes]:
    """Yield an inet_diag_msg for each socket of both families in one state, on one port if it is given."""
    for family in (socket.AF_INET, socket.AF_INET6):
        request = struct.pack("=BBBBI", family, protocol, 0, 0, 1 << state) + struct.pack("!H46x", port)
        for body, _ in _dump(_NETLINK_SOCK_DIAG, _DIAG_BY_FAMILY, request, 72):
            yield body


def open_watch() -> socket.socket:
    """Return a non-blocking socket that becomes readable when links, addresses, rules or routes change.

    It belongs to this namespace whoever reads it, and does not keep the namespace from being noticed as gone.
    """
    watch = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    try:
        watch.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WATCH_BUFFER)
        watch.bind((0, sum(1 << (group - 1) for group in GROUPS)))
    except BaseException:
        watch.close()
        raise
    return watch


def drain(watch: socket.socket, most: int = 256) -> bool:
    """Read what a watch has to say, at most `most` notices; return whether it said anything."""
    for count in range(most):
        try:
            watch.recv(1)  # the rest of a notice goes with it
        except BlockingIOError:
            return count > 0
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # some were lost, which is as good as one
                raise
    return True


def _dump(protocol: int, kind: int, request: bytes, size: int) -> list[tuple[bytes, dict[int, bytes]]]:
    for _ in range(TRIES):
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as sock:
            sock.settimeout(DEADLINE_S)
            sock.setsockopt(_SOL_NETLINK, _GET_STRICT_CHK, 1)
            sock.send(_HEADER.pack(_HEADER.size + len(request), kind, _REQUEST_DUMP, 1, 0) + request)
            found, is_torn = _answers(sock, size)
        if not is_torn:
            break
    return found


def _answers(sock: socket.socket, size: int) -> tuple[list[tuple[bytes, dict[int, bytes]]], bool]:
    found: list[tuple[bytes, dict[int, bytes]]] = []
    is_torn = False
    while True:
        data = sock.recv(1 << 17)
        for kind, flags, body in _messages(data):
            is_torn = is_torn or bool(flags & _DUMP_INTR)
            if kind in (_DONE, _ERROR):
                _raise_unless_absent(body)
                return found, is_torn
            if len(body) >= size and len(found) < MAX_ENTRIES:
                found.append((body[:size], dict(_attributes(body, size))))


def _raise_unless_absent(body: bytes) -> None:
    """A family or table that this kernel does not have is empty."""
    code = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
    if code and code not in (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
        raise OSError(code, os.strerror(code))


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, flags, data[at + _HEADER.size : at + length]
        at += length + 3 & ~3


def _attributes(body: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, body[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3


def _ip(family: int, raw: bytes | None) -> str:
    return socket.inet_ntop(family, raw) if raw else ""


def _number(attributes: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(attributes.get(kind, b""), sys.byteorder)


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode(errors="replace")
