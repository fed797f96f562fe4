"""A pod whose kernel state is exactly as wanted, for tests that spoil one thing of it."""

from socket import AF_INET, AF_INET6

from zproxy.model.pod import DEFAULT_OPTIONS
from zproxy.net.netlink import Address, Interface, Listening, Route, Rule
from zproxy.node.drift import Wanted
from zproxy.node.facts import NetworkFacts, PodFacts
from zproxy.node.routes import SYSCTLS
from zproxy.steering.hooks import HOOKS
from zproxy.steering.info import LinkInfo
from zproxy.steering.inspect_pod import LinkFact, SteeringFacts
from zproxy.steering.layout import PodEntry

COOKIE, INODE, SLOT = 4711, 4026532001, 3
LO, ETH0 = Interface(1, "lo", True), Interface(7, "eth0", True)
PROGRAMS = {name: number for number, name in enumerate(HOOKS, start=100)}
WANTED = Wanted("demo/client", COOKIE, DEFAULT_OPTIONS, PROGRAMS, frozenset({501, 506, 508, 553, 554}))
ENTRY = PodEntry(
    COOKIE, "demo/client", "uid", "10.0.0.1", "fd00::1", SLOT, 1, 15001, 15006, 15008, 15053, DEFAULT_OPTIONS
)


def link(program: str, pin: str, where: str, target: int) -> LinkFact:
    """Return a link that is as it should be."""
    info = LinkInfo(11, 55, PROGRAMS[program], target, HOOKS[program].attach_type)
    return LinkFact(pin, program, where, target, info, (PROGRAMS[program],))


LOOKUP = link("zp_lookup", "sk_lookup", "its namespace", INODE)
INGRESS = link("zp_ingress", "tcx_ingress-eth0", "eth0", ETH0.ifindex)
STEERING = SteeringFacts(
    ENTRY, {"10.0.0.1": SLOT, "fd00::1": SLOT}, 9006, has_counters=True, links=(LOOKUP, INGRESS), strays=()
)
NETWORK = NetworkFacts(
    interfaces=(LO, ETH0),
    addresses=(Address(ETH0.ifindex, "10.0.0.1"), Address(ETH0.ifindex, "fd00::1")),
    rules=tuple(
        rule
        for family in (AF_INET, AF_INET6)
        for rule in (Rule(family, 0, 0, 0, 255), Rule(family, 32764, 0x111, 0xFFF, 100))
    ),
    routes=tuple(Route(family, 2, 0, LO.ifindex) for family in (AF_INET, AF_INET6)),
    aliases=(
        Route(AF_INET, 2, 24, ETH0.ifindex, "240.15.53.0", "10.0.0.1"),
        Route(AF_INET6, 2, 64, ETH0.ifindex, "fd16:9254:7127:1553::", "fd00::1"),
    ),
    sysctls=dict(SYSCTLS),
    listening=tuple(
        Listening(AF_INET6, port, port - 6000, inode, 0, 1024)
        for port, inode in ((15001, 501), (15006, 506), (15008, 508), (15053, 553))
    ),
    datagrams=(554,),
    has_ipv6=True,
)
HEALTHY = PodFacts(INODE, NETWORK, STEERING)
