"""The routes that make a pod's resolver aliases local to it; see zproxy/steering/resolvers.py.

Routes of table local at the pod's own interface, with the pod's own address as source: so sockets that
are bound to the address or to the interface reach the DNS listener as well.
"""

import errno
import socket
from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network
from typing import Final

from zproxy.errors import EnrollError
from zproxy.net import netlink, netlink_change
from zproxy.net.netlink import Route
from zproxy.steering.resolvers import PREFIX4, PREFIX6

PREFIXES: Final = (PREFIX4, PREFIX6)
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
_GONE: Final = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EAFNOSUPPORT})


def sources(ips: Sequence[str], version: int) -> list[str]:
    """Return those of a pod's addresses that the route of a family, 4 or 6, may have as source."""
    found = map(ip_address, ips)
    return [str(ip) for ip in found if ip.version == version and not ip.is_link_local]


def routes() -> Iterator[Route]:
    """Yield the routes of the local table to these prefixes, wherever they lead; raise OSError."""
    for family in _FAMILIES:
        for route in netlink.routes(family, netlink_change.TABLE_LOCAL):
            if f"{route.destination}/{route.prefix_length}" in PREFIXES:
                yield route


def install(ips: Sequence[str], interface: str) -> None:
    """Make the prefixes local, each if the pod has an address of its family; raise EnrollError."""
    for prefix in PREFIXES:
        own = sources(ips, ip_network(prefix).version)
        if not own:
            continue
        try:
            _put(prefix, own[0], socket.if_nametoindex(interface))
        except OSError as error:
            raise EnrollError(f"cannot make {prefix} local in the pod: {error.strerror}") from error


def _put(prefix: str, source: str, ifindex: int) -> None:
    try:
        netlink_change.put_local_prefix(prefix, source, ifindex)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        netlink_change.put_local_prefix(prefix, "", ifindex)  # nothing is sent from it yet, soon it is


def uninstall() -> None:
    """Remove the routes, wherever they lead; what is not there is fine. Raise OSError."""
    for prefix in PREFIXES:
        try:
            netlink_change.delete_local_prefix(prefix)
        except OSError as error:
            if error.errno not in _GONE:
                raise
