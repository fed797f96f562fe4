"""The interfaces and addresses of a namespace (what `ip -d link` and `ip addr` show), from rtnetlink."""

import socket
import struct
from typing import Final, NamedTuple

from zproxy.lab.evidence import netlink
from zproxy.net.netns import Netns

OVERLAY_KINDS: Final = frozenset(
    {
        "vxlan", "geneve", "gre", "gretap", "erspan", "ip6gre", "ip6gretap", "ip6erspan", "ipip", "sit",
        "ip6tnl", "vti", "vti6", "xfrm", "tun", "wireguard", "gtp", "bareudp", "amt",
    }
)  # fmt: skip
"""Kinds of interfaces that put packets into packets."""

_RTM_GETLINK: Final = 18
_RTM_GETADDR: Final = 22
_IFINFOMSG: Final = struct.Struct("=BxHiII")
"""family, hardware type, index, flags, change mask."""
_IFADDRMSG: Final = struct.Struct("=BBBBI")
"""family, prefix length, flags, scope, interface index."""
_IFLA_IFNAME: Final = 3
_IFLA_LINKINFO: Final = 18
_IFLA_INFO_KIND: Final = 1
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_IFF_UP: Final = 0x1
_IFF_LOOPBACK: Final = 0x8
_SCOPE_UNIVERSE: Final = 0


class Link(NamedTuple):
    """One interface. `kind` is the driver's (`veth`, `vxlan`, ...), `loopback`, or `physical`."""

    name: str
    kind: str
    is_up: bool

    @property
    def is_overlay(self) -> bool:
        """Whether it can carry packets in packets now; one that is down (the kernel makes some) cannot."""
        return self.is_up and self.kind in OVERLAY_KINDS


def links(netns: Netns) -> tuple[Link, ...]:
    """Return every interface inside `netns`, by index."""
    answers = netlink.dump(netns, netlink.ROUTE, _RTM_GETLINK, _IFINFOMSG.pack(0, 0, 0, 0, 0))
    return tuple(_decode_link(answer) for answer in answers)


def addresses(netns: Netns) -> tuple[str, ...]:
    """Return the global addresses of `netns`, IPv4 and IPv6, in canonical text."""
    answers = netlink.dump(netns, netlink.ROUTE, _RTM_GETADDR, _IFADDRMSG.pack(0, 0, 0, 0, 0))
    return tuple(text for answer in answers if (text := _decode_address(answer)))


def _decode_link(message: bytes) -> Link:
    _, _, _, flags, _ = _IFINFOMSG.unpack_from(message)
    found = netlink.attributes(message[_IFINFOMSG.size :])
    kind = netlink.attributes(found.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND, b"")
    default = "loopback" if flags & _IFF_LOOPBACK else "physical"
    return Link(_text(found.get(_IFLA_IFNAME, b"")), _text(kind) or default, bool(flags & _IFF_UP))


def _decode_address(message: bytes) -> str:
    family, _, _, scope, _ = _IFADDRMSG.unpack_from(message)
    found = netlink.attributes(message[_IFADDRMSG.size :])
    address = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    if address is None or scope != _SCOPE_UNIVERSE:
        return ""
    return socket.inet_ntop(family, address)


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("ascii", "replace")
