"""Changes of policy routing through netlink: one request each, and the kernel's answer before the next.

For the namespace of the calling thread, like `netlink.py`. Layouts are those of linux/rtnetlink.h and
linux/fib_rules.h.
"""

import os
import socket
import struct
from ipaddress import ip_address, ip_network
from typing import Final

from zproxy.net.netlink import DEADLINE_S, Rule

TABLE_LOCAL: Final = 255
"""Where the kernel keeps what is delivered to this namespace itself."""
LOOPBACK: Final = 1
"""Index of lo in every namespace: it is the first interface that the kernel makes there."""

_NEWROUTE, _DELROUTE, _NEWRULE, _DELRULE = 24, 25, 32, 33
_REQUEST_ACK: Final = 0x5
_CREATE_EXCLUSIVE: Final = 0x600
_CREATE_OR_REPLACE: Final = 0x500
_HEADER: Final = struct.Struct("=IHHII")
_ERROR: Final = struct.Struct("=i")
_NUMBER: Final = struct.Struct("=HHI")
"""An attribute with a number: length, kind, value."""
_MESSAGE: Final = struct.Struct("=BBBBBBBBI")
"""struct rtmsg and struct fib_rule_hdr, whose fields differ from the fifth on."""
_STATIC, _HOST, _LOCAL = 4, 254, 2
_TO_TABLE: Final = 1
_DST, _OIF, _PREFSRC, _TABLE = 1, 4, 7, 15
_FRA_PRIORITY, _FRA_FWMARK, _FRA_TABLE, _FRA_FWMASK = 6, 10, 15, 16


def add_rule(rule: Rule) -> None:
    """Add a rule that sends what has its mark to its table; raise OSError, FileExistsError for a second."""
    _ask(_NEWRULE, _CREATE_EXCLUSIVE, _rule(rule))


def delete_rule(rule: Rule) -> None:
    """Delete one such rule; raise OSError, FileNotFoundError when there is none."""
    _ask(_DELRULE, 0, _rule(rule))


def put_local_route(family: int, table: int) -> None:
    """Let everything that is looked up in `table` be local, by way of lo; raise OSError. Idempotent."""
    _ask(_NEWROUTE, _CREATE_OR_REPLACE, _local_route(family, table))


def delete_local_route(family: int, table: int) -> None:
    """Undo `put_local_route`; raise OSError, ProcessLookupError when there is no such route."""
    _ask(_DELROUTE, 0, _local_route(family, table))


def put_local_prefix(prefix: str, source: str, ifindex: int) -> None:
    """Make a whole prefix local at an interface; what is sent there comes from `source`. Idempotent.

    An empty source leaves the choice to the kernel. Raise OSError; EINVAL for an IPv6 address that the kernel
    still looks for duplicates of (RFC 4862 5.4).
    """
    whence = _attribute(_PREFSRC, ip_address(source).packed) if source else b""
    place = _NUMBER.pack(_NUMBER.size, _OIF, ifindex)
    _ask(_NEWROUTE, _CREATE_OR_REPLACE, _local_prefix(prefix) + place + whence)


def delete_local_prefix(prefix: str) -> None:
    """Undo `put_local_prefix`; raise OSError, ProcessLookupError when there is no such route."""
    _ask(_DELROUTE, 0, _local_prefix(prefix))


def _local_prefix(prefix: str) -> bytes:
    network = ip_network(prefix)
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    head = _MESSAGE.pack(family, network.prefixlen, 0, 0, TABLE_LOCAL, _STATIC, _HOST, _LOCAL, 0)
    return head + _attribute(_DST, network.network_address.packed)


def _attribute(kind: int, value: bytes) -> bytes:
    """Addresses are whole words, so nothing has to be padded."""
    return struct.pack("=HH", 4 + len(value), kind) + value


def _rule(rule: Rule) -> bytes:
    head = _MESSAGE.pack(rule.family, 0, 0, 0, 0, 0, 0, _TO_TABLE, 0)
    return head + b"".join(
        _NUMBER.pack(_NUMBER.size, kind, value)
        for kind, value in (
            (_FRA_PRIORITY, rule.priority),
            (_FRA_FWMARK, rule.mark),
            (_FRA_FWMASK, rule.mask),
            (_FRA_TABLE, rule.table),
        )
    )


def _local_route(family: int, table: int) -> bytes:
    head = _MESSAGE.pack(family, 0, 0, 0, 0, _STATIC, _HOST, _LOCAL, 0)
    return head + _NUMBER.pack(_NUMBER.size, _OIF, LOOPBACK) + _NUMBER.pack(_NUMBER.size, _TABLE, table)


def _ask(kind: int, flags: int, body: bytes) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(DEADLINE_S)
        sock.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST_ACK | flags, 1, 0) + body)
        (code,) = _ERROR.unpack_from(sock.recv(1 << 13), _HEADER.size)
    if code:
        raise OSError(-code, os.strerror(-code))
