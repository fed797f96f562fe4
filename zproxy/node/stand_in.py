"""The workload of a pod that istio-cni handed over, which the mesh may not know yet."""

import asyncio
from typing import NamedTuple

from zproxy.errors import EnrollError
from zproxy.model.identity import SpiffeId
from zproxy.model.workload import Protocol, Workload
from zproxy.net.netns import Netns
from zproxy.node.enroll import refuse_own_namespace
from zproxy.node.records import Record
from zproxy.node.routes import PodNetwork
from zproxy.state.awaited import awaited
from zproxy.state.store import Mesh


class Handed(NamedTuple):
    """What istio-cni says of a pod."""

    uid: str
    namespace: str
    name: str
    service_account: str
    trust_domain: str

    @classmethod
    def of(cls, record: Record) -> "Handed":
        """Return what was said when the pod was enrolled."""
        namespace, _, name = record.pod.partition("/")
        return cls(record.handed, namespace, name, record.service_account or "default", record.trust_domain)

    def workload(self, node: str) -> Workload:
        """Return it as a workload without addresses; raise EnrollError where that cannot be."""
        made = Workload(
            self.uid,
            self.name,
            self.namespace,
            self.service_account,
            self.trust_domain,
            protocol=Protocol.HBONE,
            node=node,
        )
        if not self.name or "/" in self.name:
            raise EnrollError(f"{self.name[:128]!r} is not the name of a pod")
        try:
            SpiffeId.parse(str(made.identity))
        except ValueError as error:
            raise EnrollError(str(error)) from error
        return made


async def stand_in(handed: Handed, node: str, netns: Netns, mesh: Mesh) -> Workload:
    """Return what stands for the record of the pod in `netns`; raise EnrollError."""
    workload = handed.workload(node)
    try:
        refuse_own_namespace(netns)
        addresses, _ = await asyncio.to_thread(PodNetwork(netns).addresses)
    except OSError as error:
        raise EnrollError(f"cannot look into the namespace of {workload.pod}: {error}") from error
    if not addresses:
        raise EnrollError(f"the network namespace of {workload.pod} has no address yet")
    return awaited(workload, addresses, mesh)
