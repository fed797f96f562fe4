"""The routes that make a pod's resolver aliases local to it; see zproxy/steering/resolvers.py.

Routes of table local at the pod's own interface, with the pod's own address as source: so sockets that
are bound to the address or to the interface reach the DNS listener as well.
"""

import errno
import socket
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Final

from zproxy.errors import EnrollError
from zproxy.net import netlink_change
from zproxy.steering.resolvers import PREFIX4, PREFIX6

PREFIXES: Final = (PREFIX4, PREFIX6)
_GONE: Final = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EAFNOSUPPORT})


def install(ips: Sequence[str], interface: str) -> None:
    """Make the prefixes local, each if the pod has an address of its family; raise EnrollError."""
    for prefix in PREFIXES:
        own = next((ip for ip in ips if ip_address(ip).version == ip_network(prefix).version), None)
        if own is None:
            continue
        try:
            netlink_change.put_local_prefix(prefix, own, socket.if_nametoindex(interface))
        except OSError as error:
            raise EnrollError(f"cannot make {prefix} local in the pod: {error.strerror}") from error


def uninstall() -> None:
    """Remove the routes, wherever they lead; what is not there is fine. Raise OSError."""
    for prefix in PREFIXES:
        try:
            netlink_change.delete_local_prefix(prefix)
        except OSError as error:
            if error.errno not in _GONE:
                raise
