"""Workloads, services and meshes in one line."""

from dataclasses import replace
from typing import Any

from zproxy.model.policy import Authorization
from zproxy.model.service import NetworkAddress, Service
from zproxy.model.workload import Protocol, ServicePort, Workload
from zproxy.state.policy import ALLOWED, Attempt, Verdict
from zproxy.state.store import Mesh
from zproxy.state.trace import Trace


def workload(pod: str, *ips: str, protocol: Protocol = Protocol.HBONE, **fields: Any) -> Workload:
    """A workload `namespace/name` with its addresses; its service account is its name if not given."""
    namespace, name = pod.split("/")
    given: dict[str, Any] = {"uid": f"Kubernetes//Pod/{pod}", "service_account": name} | fields
    return Workload(name=name, namespace=namespace, workload_ips=ips, protocol=protocol, **given)


def service(key: str, *vips: str, ports: dict[int, int] | None = None, **fields: Any) -> Service:
    """A service `namespace/hostname` with its VIPs on the nameless network; 80 leads to 8080 if not given."""
    namespace, hostname = key.split("/")
    addresses = tuple(NetworkAddress("", ip) for ip in vips)
    leads = tuple((ports or {80: 8080}).items())
    return Service(hostname.partition(".")[0], namespace, hostname, addresses, ports=leads, **fields)


def behind(workload: Workload, *services: Service) -> Workload:
    """The workload as an endpoint of `services`; a target port of 0 is the port of the service itself."""
    ports = tuple(ServicePort(each.key, port, to or port) for each in services for port, to in each.ports)
    return replace(workload, services=tuple(each.key for each in services), service_ports=ports)


def mesh(*records: Workload | Service | Authorization) -> Mesh:
    return Mesh.of(
        [each for each in records if isinstance(each, Workload)],
        [each for each in records if isinstance(each, Service)],
        [each for each in records if isinstance(each, Authorization)],
    )


def allow_all(mesh: Mesh, attempt: Attempt, trace: Trace | None = None) -> Verdict:
    """Stands for policy where a test is about something else."""
    return ALLOWED
