"""Workloads and meshes in one line, and the YAML that a source would read for them."""

from typing import Any

from zproxy.model.workload import Protocol, Workload
from zproxy.state.store import Mesh


def workload(pod: str, *ips: str, protocol: Protocol = Protocol.HBONE, **fields: Any) -> Workload:
    """A workload `namespace/name` with its addresses; its service account is its name if not given."""
    namespace, name = pod.split("/")
    given: dict[str, Any] = {"uid": f"Kubernetes//Pod/{pod}", "service_account": name} | fields
    return Workload(name=name, namespace=namespace, workload_ips=ips, protocol=protocol, **given)


def mesh(*workloads: Workload) -> Mesh:
    return Mesh.of(workloads)


def yaml_of(*workloads: Workload) -> str:
    """The local configuration that describes `workloads`, with what a proxy acts on."""
    lines = ["workloads:" if workloads else "workloads: []"]
    for item in workloads:
        lines += [
            f"- uid: {item.uid}",
            f"  name: {item.name}",
            f"  namespace: {item.namespace}",
            f"  serviceAccount: {item.service_account}",
            f"  trustDomain: {item.trust_domain}",
            f"  workloadIps: {list(item.workload_ips)}",
            f"  protocol: {item.protocol.value}",
            f"  node: {item.node!r}",
            f"  network: {item.network!r}",
        ]
    return "\n".join(lines) + "\n"
