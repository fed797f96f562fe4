"""Builds and removes the lab's network: named namespaces, veth pairs, addresses, routes, forwarding.

Nothing in the host's namespace changes except names in /run/netns. Runs in the CLI process only:
pyroute2 blocks, and does not live with uvloop.
"""

import os
from pathlib import Path
from typing import Final

from pyroute2 import IPRoute, NetlinkError, netns

from zproxy.errors import RequirementError, ZproxyError
from zproxy.lab.layout import (
    CLUSTER_DNS,
    NODE_PREFIX4,
    NODE_PREFIX6,
    OTHER_DNS,
    Layout,
    NodeSite,
    PodSite,
)
from zproxy.net.netns import NAMED, Netns

UPLINK: Final = "eth0"
"""Name of a node's link to the other node, and of a pod's link to its node."""
POD_LINK: Final = "pod0"
"""Name of the node's end of its pod's link."""
IFA_F_NODAD: Final = 0x02
"""linux/if_addr.h: the address is usable at once, without duplicate address detection."""
_BEFORE_LINKS: Final = {
    "ipv6/conf/default/accept_dad": "0",
    "ipv6/conf/default/accept_ra": "0",
}
"""Defaults that interfaces take over when they are made."""
_FORWARDING: Final = {"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"}


def present(layout: Layout) -> list[str]:
    """Return the names of the lab's namespaces that are in /run/netns, whole or half-made."""
    return [name for name in layout.namespaces if os.path.lexists(NAMED / name)]


def build(layout: Layout) -> None:
    """Make the network of `layout`, of which nothing may exist yet.

    Raise RequirementError when the kernel refuses. What was made stays; `dismantle` removes it.
    """
    try:
        for name in layout.namespaces:
            _make_namespace(name)
        for node, pod in zip(layout.nodes, layout.pods, strict=True):
            _join_pod(node, pod)
        _join_nodes(layout)
    except (OSError, NetlinkError) as error:
        raise RequirementError(
            f"the lab's network could not be built: {error}; it needs root (CAP_SYS_ADMIN, CAP_NET_ADMIN) "
            "and a kernel with network namespaces and veth"
        ) from error


def dismantle(layout: Layout) -> list[str]:
    """Remove what there is of `layout`, in any state, and return what went."""
    return [f"network namespace {name}" for name in layout.namespaces if _remove_namespace(name)]


def _make_namespace(name: str) -> None:
    netns.create(name)
    try:
        handle = Netns.named(name)
    except OSError as error:
        raise RequirementError(
            f"network namespace {name} could not be made: {error}; are you root?"
        ) from error
    with handle:
        handle.run(lambda: _write_sysctls(_BEFORE_LINKS))
    with IPRoute(netns=name) as route:
        route.link("set", index=_index(route, "lo"), state="up")


def _join_pod(node: NodeSite, pod: PodSite) -> None:
    with IPRoute(netns=pod.netns) as in_pod, IPRoute(netns=node.netns) as in_node:
        in_pod.link("add", ifname=UPLINK, kind="veth", peer={"ifname": POD_LINK, "net_ns_fd": node.netns})
        _address(in_pod, UPLINK, pod.ip4, pod.ip6)
        _address(in_node, POD_LINK, node.pod_gateway4, node.pod_gateway6)
        in_pod.route("add", dst="default", gateway=node.pod_gateway4)
        in_pod.route("add", dst="::/0", gateway=node.pod_gateway6)


def _join_nodes(layout: Layout) -> None:
    here, there = layout.nodes
    with IPRoute(netns=here.netns) as a, IPRoute(netns=there.netns) as b:
        a.link("add", ifname=UPLINK, kind="veth", peer={"ifname": UPLINK, "net_ns_fd": there.netns})
        _address(a, UPLINK, here.ip4, here.ip6)
        _address(b, UPLINK, there.ip4, there.ip6)
        _route_to(a, layout.pods[1], via=there)
        _route_to(b, layout.pods[0], via=here)
        for resolver in (CLUSTER_DNS, OTHER_DNS):  # both are answered on the first node
            a.addr("add", index=_index(a, "lo"), address=resolver, prefixlen=32)
            b.route("add", dst=f"{resolver}/32", gateway=here.ip4)
    for node in layout.nodes:
        with Netns.named(node.netns) as handle:
            handle.run(lambda: _write_sysctls(_FORWARDING))


def _address(route: IPRoute, link: str, ip4: str, ip6: str) -> None:
    index = _index(route, link)
    route.addr("add", index=index, address=ip4, prefixlen=NODE_PREFIX4)
    route.addr("add", index=index, address=ip6, prefixlen=NODE_PREFIX6, flags=IFA_F_NODAD)
    route.link("set", index=index, state="up")


def _route_to(route: IPRoute, pod: PodSite, via: NodeSite) -> None:
    route.route("add", dst=pod.pod_net4, gateway=via.ip4)
    route.route("add", dst=pod.pod_net6, gateway=via.ip6)


def _index(route: IPRoute, link: str) -> int:
    found = route.link_lookup(ifname=link)
    if not found:
        raise ZproxyError(f"interface {link} is not in its namespace; another program may have taken it")
    return int(found[0])


def _write_sysctls(values: dict[str, str]) -> None:
    for key, value in values.items():
        path = Path("/proc/sys/net") / key
        if path.exists():  # a kernel without IPv6 has none of its keys
            path.write_text(value)


def _remove_namespace(name: str) -> bool:
    """Remove one name and first its links: a process that still stands inside keeps the namespace alive."""
    if not os.path.lexists(NAMED / name):
        return False
    try:
        Netns.named(name).close()
    except OSError:  # killed between making the name and mounting the namespace on it
        (NAMED / name).unlink()
        return True
    with IPRoute(netns=name) as route:
        for link in (UPLINK, POD_LINK):
            for index in route.link_lookup(ifname=link):
                route.link("del", index=index)
    netns.remove(name)
    return True
