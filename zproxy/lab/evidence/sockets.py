"""Which sockets a namespace holds, and which processes own them (what `ss -lntp` and `ss -lnup` show).

The sockets come from the kernel's sock_diag dump, the owners from the file descriptors in /proc.
"""

import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.lab.evidence import netlink
from zproxy.model.addr import Endpoint, canonical_ip
from zproxy.net.netns import Netns

_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST: Final = struct.Struct("=BBBxI48x")
"""inet_diag_req_v2: family, protocol, extensions, states; an empty inet_diag_sockid matches every socket."""
_MESSAGE: Final = struct.Struct("=BBBB2s2s16s16sIQIIIII")
"""inet_diag_msg: family, state, timer, retransmissions, inet_diag_sockid, then expiry, queues, uid, inode."""
_LISTEN: Final = 1 << 10
_ESTABLISHED: Final = 1 << 1
_ANY_STATE: Final = 0xFFFFFFFF


class Owner(NamedTuple):
    """A process that holds a file descriptor of a socket."""

    pid: int
    command: str
    fd: int

    def __str__(self) -> str:
        return f'("{self.command}",pid={self.pid},fd={self.fd})'


class SocketInfo(NamedTuple):
    """One socket of a namespace. `inode` is its number in sockfs, the same for all who hold it."""

    protocol: str
    local: Endpoint
    peer: Endpoint
    inode: int
    owners: tuple[Owner, ...] = ()


def tcp_listeners(netns: Netns) -> tuple[SocketInfo, ...]:
    """Return the listening TCP sockets inside `netns`, with their owners, by port."""
    return _with_owners(_dump(netns, socket.IPPROTO_TCP, "tcp", _LISTEN))


def tcp_connections(netns: Netns) -> tuple[SocketInfo, ...]:
    """Return the established TCP sockets inside `netns`, with their owners."""
    return _with_owners(_dump(netns, socket.IPPROTO_TCP, "tcp", _ESTABLISHED))


def udp_sockets(netns: Netns) -> tuple[SocketInfo, ...]:
    """Return the UDP sockets inside `netns`, with their owners, by port."""
    return _with_owners(_dump(netns, socket.IPPROTO_UDP, "udp", _ANY_STATE))


def _dump(netns: Netns, protocol: int, name: str, states: int) -> list[SocketInfo]:
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        request = _REQUEST.pack(family, protocol, 0, states)
        answers = netlink.dump(netns, netlink.SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, request)
        found += [_decode(name, answer) for answer in answers]
    return sorted(found, key=lambda entry: (entry.local.port, entry.local.ip))


def _decode(protocol: str, message: bytes) -> SocketInfo:
    family, _, _, _, sport, dport, src, dst, _, _, _, _, _, _, inode = _MESSAGE.unpack_from(message)
    size = 4 if family == socket.AF_INET else 16
    local = Endpoint(canonical_ip(socket.inet_ntop(family, src[:size])), int.from_bytes(sport, "big"))
    peer = Endpoint(canonical_ip(socket.inet_ntop(family, dst[:size])), int.from_bytes(dport, "big"))
    return SocketInfo(protocol, local, peer, inode)


def _with_owners(sockets: list[SocketInfo]) -> tuple[SocketInfo, ...]:
    owners = owners_of({entry.inode for entry in sockets if entry.inode})
    return tuple(entry._replace(owners=tuple(owners.get(entry.inode, ()))) for entry in sockets)


def owners_of(inodes: Iterable[int]) -> dict[int, list[Owner]]:
    """Return which processes hold the sockets with these inodes, as far as /proc shows them to us."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, list[Owner]] = {}
    if not wanted:
        return found
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            _collect_owners(int(entry), wanted, found)
    return found


def _collect_owners(pid: int, wanted: dict[str, int], found: dict[int, list[Owner]]) -> None:
    try:
        command = Path(f"/proc/{pid}/comm").read_text().strip()
        for fd in os.listdir(f"/proc/{pid}/fd"):
            target = _link_target(f"/proc/{pid}/fd/{fd}")
            if target in wanted:
                found.setdefault(wanted[target], []).append(Owner(pid, command, int(fd)))
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # it ended, or is hidden even from root
        return


def _link_target(path: str) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""
