"""Another mesh's traces inside a pod: netfilter chains, listeners on a straw's ports, XDP programs.

Read from the kernel without iptables or nft being installed: chains of nf_tables (and so of iptables-nft) by
netlink, chains of the older x_tables by getsockopt.
"""

import ctypes
import errno
import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from zproxy.errors import SteeringError
from zproxy.model import ports
from zproxy.net.netns import Netns
from zproxy.steering import netlink

PROC: Final = Path("/proc")
SEARCH_S: Final = 0.5
"""For the search for whose a socket is; only done when one is in the way."""
STRAW_PORTS: Final = (ports.OUTBOUND, ports.INBOUND_PLAINTEXT, ports.INBOUND_HBONE, ports.DNS)
_OWNERS: Final = {b"ISTIO": "Istio", b"istio": "Istio", b"PROXY": "Linkerd", b"KUMA_": "Kuma"}
_MESH: Final = re.compile(rb"(?:ISTIO_|istio-ambient-|PROXY_INIT_|KUMA_MESH_)[A-Za-z0-9_]+")
"""Chains of iptables rules, and tables of Istio's nft rules."""
_GET_CHAINS: Final = 10 << 8 | 4
"""NFNL_SUBSYS_NFTABLES, NFT_MSG_GETCHAIN."""
_CHAIN_TABLE, _CHAIN_NAME = 1, 3
_GETLINK: Final = 18
_IFNAME, _XDP, _XDP_PROG_ID = 3, 43, 4
_GET_INFO, _GET_ENTRIES = 64, 65
_LISTEN: Final = 1 << 10
_SOCK_DIAG_BY_FAMILY: Final = 20

_libc = ctypes.CDLL(None, use_errno=True)


def refuse(name: str, netns: Netns) -> None:
    """Raise SteeringError when another mesh has rules or listeners in the pod."""
    chain = netns.run(lambda: next(mesh_chains(), b""))
    if chain:
        owner = next((who for prefix, who in _OWNERS.items() if chain.startswith(prefix)), "another mesh")
        raise SteeringError(
            f"{owner} redirects the traffic of {name} already: its netfilter chain {chain.decode()} is in "
            f"the pod's namespace; take the pod out of {owner} first, or start it again without its sidecar"
        )
    port = netns.run(lambda: next(filter(is_taken, STRAW_PORTS), 0))
    if port:
        raise SteeringError(
            f"port {port} of {name} is taken: {holder(netns, port)} listens there, an app or the proxy of "
            "another mesh; zproxy needs 15001, 15006, 15008 and 15053, so stop it first"
        )


def mesh_chains() -> Iterator[bytes]:
    """Yield chains and tables of other meshes in the calling thread's namespace."""
    for text in (*_nft_names(), *_xtables_blobs()):
        yield from _MESH.findall(text)


def xdp_programs() -> list[tuple[str, int]]:
    """Return the interfaces of the calling thread's namespace that have an XDP program, with its id."""
    found = []
    for answer in netlink.dump(netlink.ROUTE, _GETLINK, bytes(16)):
        values = dict(netlink.attributes(answer, 16))
        number = dict(netlink.attributes(values.get(_XDP, b""))).get(_XDP_PROG_ID)
        if number:
            found.append((values[_IFNAME].rstrip(b"\0").decode(), struct.unpack("=I", number)[0]))
    return found


def is_taken(port: int) -> bool:
    """Whether somebody listens on `port` at any address of the calling thread's namespace.

    Connections that a straw of ours has left behind do not count.
    """
    return any(_refuses(family, port) for family in (socket.AF_INET, socket.AF_INET6))


def _refuses(family: int, port: int) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(("", port))
    except OSError as error:
        return error.errno == errno.EADDRINUSE  # anything else: the namespace lacks the family
    return False


def holder(netns: Netns, port: int, proc: Path = PROC) -> str:
    """Name the process that listens on `port`, as far as it can be found in time."""
    inodes = {f"socket:[{inode}]" for inode in netns.run(lambda: _listening(port))}
    ends = time.monotonic() + SEARCH_S
    for pid in filter(str.isdigit, os.listdir(proc)):
        if time.monotonic() > ends:
            break
        try:
            if any(os.readlink(entry) in inodes for entry in (proc / pid / "fd").iterdir()):
                return f"{(proc / pid / 'comm').read_text().strip()} (process {pid})"
        except OSError:
            continue  # it has ended, or closed a file, meanwhile
    return "somebody"


def _listening(port: int) -> list[int]:
    """Return the inodes of the sockets that listen on `port` in the calling thread's namespace."""
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        request = struct.pack("=BBBBI48x", family, socket.IPPROTO_TCP, 0, 0, _LISTEN)
        for answer in netlink.dump(netlink.SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, request):
            (source,) = struct.unpack_from("!H", answer, 4)
            if source == port:
                found.append(struct.unpack_from("=I", answer, 68)[0])
    return found


def _nft_names() -> list[bytes]:
    """Return names of nf_tables' chains and of their tables; none where the kernel has no nf_tables."""
    try:
        answers = netlink.dump(netlink.NETFILTER, _GET_CHAINS, bytes(4))
    except OSError:
        return []
    of_answers = (netlink.attributes(answer, 4) for answer in answers)
    return [value for names in of_answers for kind, value in names if kind in (_CHAIN_TABLE, _CHAIN_NAME)]


def _xtables_blobs() -> Iterator[bytes]:
    """Yield the rules of each x_tables table in use; a chain's name stands at its head."""
    for family, level, names in (
        (socket.AF_INET, socket.IPPROTO_IP, "ip_tables_names"),
        (socket.AF_INET6, socket.IPPROTO_IPV6, "ip6_tables_names"),
    ):
        try:
            tables = Path("/proc/thread-self/net", names).read_bytes().split()
        except OSError:
            continue
        for table in tables:
            yield _entries(family, level, table)


def _entries(family: int, level: int, table: bytes) -> bytes:
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        try:
            info = _getsockopt(sock, level, _GET_INFO, table.ljust(84, b"\0"))
            size = struct.unpack_from("=I", info, 80)[0]
            request = struct.pack("=32sI4x", table, size).ljust(40 + size, b"\0")
            return _getsockopt(sock, level, _GET_ENTRIES, request)[40:]
        except OSError:
            return b""


def _getsockopt(sock: socket.socket, level: int, option: int, request: bytes) -> bytes:
    """Ask with a question in the buffer, which Python's own does not."""
    buffer = ctypes.create_string_buffer(request, len(request))
    length = ctypes.c_uint32(len(request))
    if _libc.getsockopt(sock.fileno(), level, option, buffer, ctypes.byref(length)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return buffer.raw
