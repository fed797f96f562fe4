"""An enrolled pod: its namespace, its straw, and what has to be undone when it leaves."""

from datetime import UTC, datetime
from typing import Any

from zproxy.model.workload import Workload
from zproxy.net.netns import Netns
from zproxy.node.routes import PodNetwork
from zproxy.proxy.straw import Straw


class Pod:
    """Owns the namespace handle and the straw's identity source."""

    def __init__(
        self,
        workload: Workload,
        netns: Netns,
        cookie: int,
        straw: Straw,
        network: PodNetwork,
        former_sysctls: dict[str, str],
    ) -> None:
        self.workload = workload
        self.netns = netns
        self.cookie = cookie
        self.straw = straw
        self.network = network
        self.former_sysctls = former_sysctls
        self.since = datetime.now(UTC)

    @property
    def name(self) -> str:
        """`namespace/name`."""
        return self.workload.pod

    def record(self) -> dict[str, Any]:
        """Return what a restarted daemon needs to enrol the pod again."""
        return {
            "pod": self.name,
            "service_account": self.workload.service_account,
            "netns": self.netns.path,
            "cookie": self.cookie,
            "former_sysctls": self.former_sysctls,
        }

    def close(self) -> None:
        """Drop the handles."""
        self.straw.pod.certificates.close()
        self.netns.close()
