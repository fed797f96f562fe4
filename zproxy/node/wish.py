"""Whether a pod that is born on this node is to be enrolled: the one place where that is decided."""

from collections.abc import Collection
from typing import NamedTuple

from zproxy.model.workload import NetworkMode, Protocol
from zproxy.state.store import Mesh


class Wish(NamedTuple):
    """The decision about a pod."""

    is_wanted: bool
    reason: str
    """Half a sentence for logs and answers."""
    is_early: bool = False
    """The mesh does not know this very pod yet: in a moment the decision may be another."""


def wish(mesh: Mesh, node: str, pod: str, ips: Collection[str] = ()) -> Wish:
    """Decide about `namespace/name` on `node`, which has `ips` (canonical text); none are not compared."""
    workload = mesh.by_pod(pod, node)
    if workload is None:
        return Wish(False, f"the mesh has no workload {pod}", is_early=True)
    if workload.node != node:
        where = workload.node or "no node"
        return Wish(False, f"the mesh has {pod} on {where}, not on {node}", is_early=True)
    if workload.network_mode is NetworkMode.HOST_NETWORK:
        return Wish(False, f"{pod} is on its node's network")
    if workload.protocol is not Protocol.HBONE:
        return Wish(False, f"{pod} has protocol {workload.protocol.value} in the mesh")
    if ips and not set(workload.workload_ips) <= set(ips):
        return Wish(True, f"the mesh has {pod} under other addresses", is_early=True)
    return Wish(True, f"{pod} has protocol {workload.protocol.value} in the mesh")
