"""What is known of a runtime's pods, and which of them can be enrolled. Pure: nothing here asks anybody."""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

FOREIGN_KERNELS: Final = ("kata", "runsc", "gvisor", "firecracker", "urunc")
"""Parts of the names of runtimes whose pods have a network stack that is not the node's kernel's."""


class Brief(NamedTuple):
    """A sandbox as a list shows it."""

    id: str
    namespace: str
    name: str
    uid: str
    is_ready: bool
    created_ns: int
    """Nanoseconds since 1970, by the runtime's clock."""
    runtime_handler: str = ""

    @property
    def pod(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


class PodSandbox(NamedTuple):
    """All that the runtime knows of one sandbox, and zproxy has a use for."""

    brief: Brief
    ips: tuple[str, ...] = ()
    """The first is the pod's main one."""
    is_host_network: bool = False
    netns: str = ""
    """Path of its network namespace in the host's mount namespace; empty where the runtime does not tell."""
    pid: int | None = None
    """Its first process, in the runtime's PID namespace; None when none lives."""
    cgroup_parent: str = ""
    runtime_type: str = ""
    """What containerd calls the shim, `io.containerd.runc.v2` for instance."""
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}

    @property
    def pod(self) -> str:
        """`namespace/name`."""
        return self.brief.pod


def refusal(of: PodSandbox) -> str:
    """Say in a sentence why this sandbox cannot be enrolled; empty when it can."""
    pod = of.pod
    if of.is_host_network:
        return f"{pod} is on its node's network (hostNetwork), which is not its own to steer; leave it out"
    if not of.brief.is_ready:
        return not_ready(pod, of.brief)
    if kind := _foreign_kernel(of):
        return (
            f"{pod} runs under {kind}, with a network stack of its own that this node's kernel does not see; "
            "such pods cannot be steered"
        )
    if not of.netns and of.pid is None:
        return (
            f"{pod} is ready, but the runtime tells neither its network namespace nor a process of it; "
            "name one with --netns or --pid"
        )
    return ""


def choose(found: Iterable[Brief], wanted: str) -> Brief | str:
    """Return the one sandbox to be taken of all that `wanted` describes, or a sentence why there is none.

    Sandboxes that ended may still be listed beside the one that came after them. Empty text means that none
    was found at all.
    """
    everything = list(found)
    ready = [each for each in everything if each.is_ready]
    ended = [each for each in everything if not each.is_ready]
    if len(ready) == 1:
        return ready[0]
    if ready:
        uids = sorted({each.uid for each in ready})
        way = "--pod-uid" if len(uids) > 1 else "--netns"
        which = ", ".join(uids) if len(uids) > 1 else ", ".join(short(each.id) for each in ready)
        return f"{wanted} has {len(ready)} sandboxes that are ready ({which}); choose with {way}"
    if ended:
        return not_ready(wanted, max(ended, key=lambda each: each.created_ns))
    return ""


def not_ready(wanted: str, latest: Brief) -> str:
    """Say that the newest sandbox of a pod has ended."""
    return f"{wanted} is not ready: its sandbox {short(latest.id)} has ended; try again when it has a new one"


def short(name: str) -> str:
    """Return the part of an id that people and other tools use."""
    return name[:13]


def _foreign_kernel(of: PodSandbox) -> str:
    names = (of.runtime_type, of.brief.runtime_handler)
    return next((name for name in names if any(part in name.lower() for part in FOREIGN_KERNELS)), "")
