"""How pods come into steering, and how probes are told from traffic: what `zproxy run` is asked for."""

from enum import Enum
from typing import Final, NamedTuple


class Attach(Enum):
    """At which cgroups the connect programs hang."""

    ROOT = "root"
    """At the root of cgroup v2: every process in a pod's netns is steered, however it came there."""
    POD = "pod"
    """At each pod's own cgroup: they run before anybody's programs at the root."""
    BOTH = "both"
    """At both; at the root alone where a pod has no cgroup of its own."""


class ProbeMode(Enum):
    """By what a connection to a pod is known as a probe, which reaches the app without the proxy."""

    CGROUP = "cgroup"
    """By the cgroup of the process that began it: kubelet's."""
    NODE_IP = "node-ip"
    """By its source, an address of the node: kubelet's, and every other process's on the node."""
    NONE = "none"
    """By nothing: what comes from the node is carried like anybody's traffic."""


class ProbeWish(NamedTuple):
    """What was asked for; a mode of None leaves the choice to the machine."""

    mode: ProbeMode | None = None
    kubelet_cgroup: str | None = None
    """Instead of looking for it: its directory, or its path as in /proc/PID/cgroup."""
    node_ips: tuple[str, ...] = ()
    """Instead of the addresses of the host's interfaces."""


DEFAULT_PROBES: Final = ProbeWish()
ISTIO_PROBE_IPS: Final = ("169.254.7.127", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff")
"""The source that Istio's host rules give to kubelet's connections."""
