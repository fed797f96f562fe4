"""An enrolled pod: its namespace, its straw, and what has to be undone when it leaves."""

import os
from datetime import UTC, datetime
from typing import Any

from zproxy.model.attach import Attach
from zproxy.model.pod import PodOptions
from zproxy.model.workload import Workload
from zproxy.net.netns import Netns
from zproxy.node.records import NO_RUNTIME, Record
from zproxy.node.routes import ExternalNetwork, PodNetwork
from zproxy.node.workers import PlacedStraw
from zproxy.steering.pod_cgroups import PodCgroup


class Pod:
    """Owns the namespace handle. `straw` is closed by whoever ends the enrolment."""

    def __init__(
        self,
        workload: Workload,
        netns: Netns,
        cookie: int,
        straw: PlacedStraw,
        network: PodNetwork,
        options: PodOptions,
    ) -> None:
        self.workload = workload
        self.netns = netns
        self.cookie = cookie
        self.straw = straw
        self.network = network
        self.former_sysctls: dict[str, str] = {}
        """Values that come back when the pod leaves."""
        self.options = options
        self.cgroup = PodCgroup(None, "not looked for")
        self.pid: int | None = None
        """A process of it, where enrolment was told one."""
        self.given_cgroup = ""
        """As enrolment asked for it."""
        self.handed = ""
        """By which uid istio-cni handed it over; empty for one that somebody enrolled."""
        self.origin = NO_RUNTIME
        self.attachment = ""
        """What its runtime calls it, where that enrolled it."""
        self.since = datetime.now(UTC)

    @property
    def name(self) -> str:
        """`namespace/name`."""
        return self.workload.pod

    def record(self, service_account: str | None) -> Record:
        """Return what a restarted daemon needs to enrol the pod again as it was asked for."""
        return Record(
            self.name,
            self.netns.path,
            self.cookie,
            service_account,
            self.former_sysctls,
            self.options,
            self.given_cgroup,
            self.handed,
            self.workload.trust_domain if self.handed else "",
            self.origin,
            self.attachment,
            isinstance(self.network, ExternalNetwork),
        )

    def row(self, node: str, mode: Attach) -> dict[str, Any]:
        """Return the pod as `zproxy pods` shows it; the keys are stable. `mode` is the node's `--attach`."""
        device, inode = self.netns.key
        workload = self.workload
        return {
            "pod": self.name,
            "namespace": workload.namespace,
            "name": workload.name,
            "node": node,
            "ips": list(workload.workload_ips),
            "netns": {"path": self.netns.path, "dev": device, "inode": inode, "cookie": self.cookie},
            "service_account": workload.service_account,
            "identity": str(workload.identity),
            "state": "enrolled",
            "reason": "",
            **self.options.as_json(),
            "attach": mode.value if self.cgroup.path is not None else Attach.ROOT.value,
            "cgroup": str(self.cgroup.path or ""),
            "cgroup_why": self.cgroup.why,
            "sandbox": self.origin.sandbox,
            "pod_uid": self.origin.uid,
            "since": self.since.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "listeners": self.straw.ports,
            "worker": self.straw.worker.number,
            "pid": os.getpid(),
        }

    def close(self) -> None:
        """Drop the handle."""
        self.netns.close()
