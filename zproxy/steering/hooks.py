"""The programs: kernel type, hook, and where each is attached."""

from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple

from zproxy.steering.info import AttachType, ProgType


class Place(Enum):
    """What a program's link hangs on."""

    ROOT = "the root of the cgroup v2 hierarchy, and the pod's own cgroup"
    """At the root so that every process in a pod's netns is steered, also one that came by nsenter; at the
    pod's cgroup so that it runs before others' programs at the root. See `zproxy.model.attach`."""
    OWN = "the daemon's own cgroup"
    """The hook makes each getsockopt() below its cgroup copy its value: nobody else is to pay for it."""
    NETNS = "the pod's network namespace"
    INTERFACE = "the pod's interfaces"
    KUBELET = "kubelet's cgroup"
    """In probe mode `cgroup` only: what it notes is let past the proxy."""


class Hook(NamedTuple):
    """How a program is loaded and attached. `pin` is the name of its link's pin."""

    pin: str
    prog_type: ProgType
    attach_type: AttachType
    place: Place
    serves_daemon: bool = False
    """Needed for the daemon's own sockets too: without a link at the root, one hangs on its own cgroup."""


HOOKS: Final[Mapping[str, Hook]] = {
    "zp_connect4": Hook("connect4", ProgType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT, Place.ROOT),
    "zp_connect6": Hook("connect6", ProgType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET6_CONNECT, Place.ROOT),
    "zp_getpeername4": Hook(
        "getpeername4", ProgType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_GETPEERNAME, Place.ROOT
    ),
    "zp_getpeername6": Hook(
        "getpeername6", ProgType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET6_GETPEERNAME, Place.ROOT
    ),
    "zp_sendmsg4": Hook("sendmsg4", ProgType.CGROUP_SOCK_ADDR, AttachType.CGROUP_UDP4_SENDMSG, Place.ROOT),
    "zp_sendmsg6": Hook("sendmsg6", ProgType.CGROUP_SOCK_ADDR, AttachType.CGROUP_UDP6_SENDMSG, Place.ROOT),
    "zp_recvmsg4": Hook("recvmsg4", ProgType.CGROUP_SOCK_ADDR, AttachType.CGROUP_UDP4_RECVMSG, Place.ROOT),
    "zp_recvmsg6": Hook("recvmsg6", ProgType.CGROUP_SOCK_ADDR, AttachType.CGROUP_UDP6_RECVMSG, Place.ROOT),
    "zp_sock_release": Hook(
        "sock_release", ProgType.CGROUP_SOCK, AttachType.CGROUP_INET_SOCK_RELEASE, Place.ROOT
    ),
    "zp_sockops": Hook(
        "sock_ops", ProgType.SOCK_OPS, AttachType.CGROUP_SOCK_OPS, Place.ROOT, serves_daemon=True
    ),
    "zp_getsockopt": Hook("getsockopt", ProgType.CGROUP_SOCKOPT, AttachType.CGROUP_GETSOCKOPT, Place.OWN),
    "zp_ingress": Hook("tcx_ingress", ProgType.SCHED_CLS, AttachType.TCX_INGRESS, Place.INTERFACE),
    "zp_egress": Hook("tcx_egress", ProgType.SCHED_CLS, AttachType.TCX_EGRESS, Place.INTERFACE),
    "zp_lookup": Hook("sk_lookup", ProgType.SK_LOOKUP, AttachType.SK_LOOKUP, Place.NETNS),
    "zp_kubelet": Hook("kubelet", ProgType.SOCK_OPS, AttachType.CGROUP_SOCK_OPS, Place.KUBELET),
}
