"""References that lead nowhere. A mesh may have them: what they name can come later, or was misspelt."""

from collections.abc import Iterator

from zproxy.model.workload import Workload
from zproxy.state.reference import leads_to
from zproxy.state.store import Mesh


def dangling(mesh: Mesh) -> Iterator[str]:
    """Yield a sentence per reference of a workload or service to something that the mesh does not know."""
    for service in mesh.services:
        waypoints = [each.destination for each in service.weighted_waypoints]
        if not waypoints and service.waypoint is not None:
            waypoints = [service.waypoint]
        for waypoint in waypoints:
            if leads_to(mesh, waypoint) is None:
                yield _says(f"the service {service.key}", "the waypoint", waypoint.destination)
    for workload in mesh.workloads:
        yield from _of_workload(mesh, workload)


def _of_workload(mesh: Mesh, workload: Workload) -> Iterator[str]:
    who = f"the workload {workload.pod}"
    for what, reference in (
        ("the waypoint", workload.waypoint),
        ("the network gateway", workload.network_gateway),
    ):
        if reference is not None and leads_to(mesh, reference) is None:
            yield _says(who, what, reference.destination)
    for policy in workload.authorization_policies:
        if mesh.policy(policy) is None:
            yield _says(who, "the policy", policy)
    for service in workload.services:
        if mesh.service(service) is None:
            yield _says(who, "the service", service)


def _says(who: str, what: str, name: object) -> str:
    return f"{who} names {what} {name}, and there is none"
