"""The routes that make a pod's resolver aliases local to it; see zproxy/steering/resolvers.py.

Routes of table local at the pod's own interface, with the pod's own address as source: so sockets that
are bound to the address or to the interface reach the DNS listener as well.
"""

import errno
import os
import socket
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Any, Final

from pyroute2.netlink.exceptions import NetlinkError

from zproxy.errors import EnrollError
from zproxy.steering.resolvers import PREFIX4, PREFIX6

TABLE_LOCAL: Final = 255
SCOPE_HOST: Final = 254
_GONE: Final = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV})


def install(ipr: Any, ips: Sequence[str], interface: str) -> None:
    """Make the prefixes local, each if the pod has an address of its family; raise EnrollError."""
    index = ipr.link_lookup(ifname=interface)[0]
    for route in _routes(ips, index):
        try:
            ipr.route("replace", **route)
        except NetlinkError as error:
            raise EnrollError(
                f"cannot make {route['dst']} local in the pod: {os.strerror(error.code)}"
            ) from error


def uninstall(ipr: Any) -> None:
    """Remove the routes, wherever they lead; what is not there is fine. Raise OSError."""
    for prefix in (PREFIX4, PREFIX6):
        try:
            ipr.route("del", **_route(prefix))
        except NetlinkError as error:
            if error.code not in _GONE:
                raise OSError(error.code, os.strerror(error.code)) from error


def _routes(ips: Sequence[str], index: int) -> list[dict[str, Any]]:
    routes = []
    for prefix in (PREFIX4, PREFIX6):
        version = ip_network(prefix).version
        own = next((ip for ip in ips if ip_address(ip).version == version), None)
        if own is not None:
            routes.append(_route(prefix) | {"oif": index, "prefsrc": own})
    return routes


def _route(prefix: str) -> dict[str, Any]:
    """The scope is a part of what is meant: Linux finds no local IPv4 route by another one."""
    return {
        "dst": prefix,
        "type": "local",
        "scope": SCOPE_HOST,
        "table": TABLE_LOCAL,
        "family": socket.AF_INET6 if ":" in prefix else socket.AF_INET,
    }
