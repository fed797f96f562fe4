"""Everything that the kernel says about one pod's namespace, read in one go.

Costs about half a millisecond for each pod, and a moment in its namespace for the calling thread, which is
NEVER the event loop's.
"""

import socket
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.config import SOURCE_TABLE
from zproxy.model import ports
from zproxy.net import netlink
from zproxy.net.netlink import Address, Interface, Listening, Route, Rule
from zproxy.net.netns import Netns
from zproxy.node import aliases
from zproxy.node.routes import PROC_SYS, SYSCTLS
from zproxy.steering.inspect_pod import Inspector, SteeringFacts

LOOPBACK: Final = "lo"
FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


class NetworkFacts(NamedTuple):
    """A pod's namespace, apart from steering."""

    interfaces: tuple[Interface, ...]
    addresses: tuple[Address, ...]
    """Of global scope; those of lo are left out."""
    rules: tuple[Rule, ...]
    routes: tuple[Route, ...]
    """Of the table for borrowed sources."""
    aliases: tuple[Route, ...]
    """Those to the prefixes of resolvers' aliases, of the table of what is local."""
    sysctls: dict[str, str]
    """Those that enrolment sets, as far as this kernel has them."""
    listening: tuple[Listening, ...]
    datagrams: tuple[int, ...]
    """Inodes of the UDP sockets that take DNS queries."""
    has_ipv6: bool
    """Whether lo takes IPv6 routes."""

    @property
    def ips(self) -> tuple[str, ...]:
        """Every address of the pod, in the kernel's order."""
        return tuple(address.ip for address in self.addresses)

    @property
    def carriers(self) -> tuple[Interface, ...]:
        """The interfaces by which traffic reaches the pod: those with an address, each once."""
        found = dict.fromkeys(address.ifindex for address in self.addresses)
        return tuple(each for each in self.interfaces if each.ifindex in found)


class PodFacts(NamedTuple):
    """A pod as the kernel has it."""

    inode: int
    """Of its namespace."""
    network: NetworkFacts
    steering: SteeringFacts


def gather(inspector: Inspector, cookie: int, netns: Netns, claimed: tuple[str, ...] = ()) -> PodFacts:
    """Look at a pod. `claimed` are addresses that zp_podip may give it beyond those that it has.

    Raise OSError when the kernel does not answer.
    """
    network = netns.run(_network)
    ips = dict.fromkeys((*network.ips, *claimed))
    return PodFacts(netns.key[1], network, inspector.pod(cookie, netns, network.carriers, ips))


def _network() -> NetworkFacts:
    interfaces = tuple(netlink.interfaces())
    loopback = next((each.ifindex for each in interfaces if each.name == LOOPBACK), 0)
    return NetworkFacts(
        interfaces=interfaces,
        addresses=tuple(each for each in netlink.addresses() if each.ifindex != loopback),
        rules=tuple(rule for family in FAMILIES for rule in netlink.rules(family)),
        routes=tuple(route for family in FAMILIES for route in netlink.routes(family, SOURCE_TABLE)),
        aliases=tuple(aliases.routes()),
        sysctls=dict(_sysctls()),
        listening=tuple(netlink.listening()),
        datagrams=tuple(netlink.taking_datagrams(ports.DNS)),
        has_ipv6=_text(PROC_SYS / "net/ipv6/conf/lo/disable_ipv6") == "0",
    )


def _sysctls() -> list[tuple[str, str]]:
    found = ((name, _text(PROC_SYS / name)) for name in SYSCTLS)
    return [(name, value) for name, value in found if value is not None]


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
