"""Steering by somebody else: istio-cni puts its rules into the pod, and nothing of ours is in the kernel."""

from pathlib import Path
from typing import Final

from zproxy.config import PIN_ROOT
from zproxy.errors import ConfigError
from zproxy.model.addr import Endpoint
from zproxy.model.attach import Attach, ProbeMode
from zproxy.model.pod import PodOptions
from zproxy.net.marked import mark
from zproxy.net.netns import Netns
from zproxy.steering.exemption import Exemption
from zproxy.steering.heart import Heart
from zproxy.steering.inspect_pod import Inspector
from zproxy.steering.kubelet import ProbeChoice
from zproxy.steering.layout import PodEntry
from zproxy.steering.pins import NodePins
from zproxy.steering.pod_cgroups import PodCgroup
from zproxy.steering.pods import PodSteering
from zproxy.steering.steering import Steering

WHY: Final = "istio-cni steers the pods of this daemon"


class External(Steering):
    """What the daemon asks of steering, answered by doing nothing; no BPF, no pins."""

    is_external = True

    def __init__(self) -> None:
        self.attach_mode = Attach.ROOT
        self.probes = ProbeChoice(ProbeMode.NONE, "istio-cni's rules know kubelet by its address")
        self.exempt = Marking()
        self.heart = Still()
        self.inspector = Blind()

    @classmethod
    def open_for(cls, node: str, pin_root: Path = PIN_ROOT) -> "External":
        """Begin, unless eBPF of an earlier daemon steers pods of `node` still: raise ConfigError."""
        directory = NodePins(node, pin_root).directory
        if directory.exists():
            raise ConfigError(
                f"{directory} has the eBPF steering of an earlier daemon; take it down with "
                f"`zproxy cleanup --node {node}` before others steer"
            )
        return cls()

    def examine(self, name: str, netns: Netns, pid: int | None, cgroup: str | None) -> PodCgroup:
        """Return the cgroup that was given; whose rules are in the pod is not looked at."""
        return PodCgroup(Path(cgroup) if cgroup else None, WHY)

    def attach(self, pod: PodSteering) -> None:
        """Do nothing."""

    def choose(self, cookie: int, options: PodOptions) -> None:
        """Do nothing."""

    def detach(self, cookie: int) -> None:
        """Do nothing."""

    def find_resolver(self, cookie: int, alias: str) -> Endpoint | None:
        """Return None: UDP that was redirected does not tell where it was meant to go."""

    def close(self) -> None:
        """Do nothing."""


class Marking(Exemption):
    """A mark instead of an entry in a map."""

    __slots__ = ()

    def __init__(self) -> None:
        """Hold no map."""

    def __call__(self, fd: int) -> None:
        """Mark the socket behind `fd`; raise OSError."""
        mark(fd)


class Blind(Inspector):
    """Sees nothing, since nothing is there."""

    def __init__(self) -> None:
        """Hold no maps."""

    def traces(self) -> set[int]:
        """Return none."""
        return set()

    def entries(self) -> list[PodEntry]:
        """Return none."""
        return []


class Still(Heart):
    """No heart: without the daemon the rules lead to closed ports."""

    def __init__(self) -> None:
        """Hold no map."""

    def beat(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""
