"""Pods that are enrolled before the mesh has a record of them: what stands in its place, and how it is known.

A pod is handed over while its sandbox is made; its addresses become known to a control plane only after that.
So enrolment cannot wait for the record, and connections have to.
"""

from dataclasses import replace

from zproxy.model.workload import Workload
from zproxy.state.store import Mesh


def awaited(workload: Workload, ips: tuple[str, ...], mesh: Mesh) -> Workload:
    """Return what stands for the record of the pod that `workload` names, which has the addresses `ips`.

    Its trust domain is the record's where there is one already.
    """
    made = replace(workload, workload_ips=ips, is_awaited=True)
    found = mesh.by_pod(made.pod, made.node)
    if found is not None and _is_of(found, replace(made, trust_domain=found.trust_domain)):
        return replace(made, trust_domain=found.trust_domain)
    return made


def record_of(mesh: Mesh, made: Workload) -> Workload | None:
    """Return the record that a pod waited for, None when it is not there yet.

    One of the same name with other addresses is that of a pod which had the name before (StatefulSets).
    """
    found = mesh.by_pod(made.pod, made.node)
    return found if found is not None and _is_of(found, made) else None


def _is_of(found: Workload, made: Workload) -> bool:
    return (
        found.node == made.node
        and found.identity == made.identity
        and not set(found.workload_ips).isdisjoint(made.workload_ips)
    )
