"""The records of a mesh from what Kubernetes has: pure, all of it at a time.

Workloads, services and their names are those that istiod would tell ztunnel. Which pods are behind a service
is what its EndpointSlices say, as for kube-proxy.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from zproxy.kube.membership import NO_NAMESPACE, membership
from zproxy.kube.objects import Endpoint, KubeService, Namespace, Node, Pod, Slice
from zproxy.kube.services import ports_by_name, service_of
from zproxy.model.service import HealthPolicy, Service
from zproxy.model.workload import (
    NOWHERE,
    Locality,
    NetworkMode,
    Protocol,
    ServicePort,
    Status,
    Workload,
)
from zproxy.sources.pace import Pause, hurry
from zproxy.state.store import Records

CLUSTER = "Kubernetes"

Ports = dict[str, tuple[ServicePort, ...]]
"""Of one workload: its services, and its ports for each."""


class Snapshot(NamedTuple):
    """All that is known at one moment; by `namespace/name`, or name."""

    pods: Mapping[str, Pod]
    namespaces: Mapping[str, Namespace]
    nodes: Mapping[str, Node]
    services: Mapping[str, KubeService]
    slices: Mapping[str, Slice]


class Place(NamedTuple):
    """For whom the records are made."""

    node: str
    domain: str
    """What names of the cluster's services end in."""


def records_of(snapshot: Snapshot, place: Place, pause: Pause = hurry) -> Records:
    """Return the mesh: workloads of all nodes, and services."""
    return _Translation(snapshot, place, pause).records()


class _Translation:
    def __init__(self, snapshot: Snapshot, place: Place, pause: Pause) -> None:
        self._snapshot = snapshot
        self._place = place
        self._pause = pause
        self._ports: dict[str, Ports] = {}
        """By `namespace/name` of the pod."""
        self._others: list[Workload] = []
        """Endpoints that are no pods."""
        self._localities = {name: Locality(*node) for name, node in snapshot.nodes.items()}

    def records(self) -> Records:
        services = []
        made: dict[str, tuple[KubeService, Service]] = {}
        for key, each in self._snapshot.services.items():
            self._pause()
            if not each.is_external_name:
                namespace = self._snapshot.namespaces.get(each.namespace, NO_NAMESPACE)
                service = service_of(each, namespace, self._place.domain)
                services.append(service)
                made[key] = each, service
        for part in self._snapshot.slices.values():
            found = made.get(f"{part.namespace}/{part.service}")
            if found is not None:
                self._take_slice(part, *found)
        workloads = [self._workload(pod) for pod in self._snapshot.pods.values() if self._is_shown(pod)]
        return Records([*workloads, *self._others], services)

    def _take_slice(self, part: Slice, kube_service: KubeService, service: Service) -> None:
        by_name = ports_by_name(kube_service)
        ports = tuple(
            ServicePort(service.key, by_name[name], number) for name, number in part.ports if name in by_name
        )
        takes_all = service.load_balancer.health_policy is HealthPolicy.ALLOW_ALL
        for endpoint in part.endpoints:
            self._pause()
            if not endpoint.pod:
                self._others.append(_other(part, endpoint, service.key, ports))
                continue
            pod = self._snapshot.pods.get(endpoint.pod)
            # What a pod that is ready is left out for is known to whoever wrote the slice; the health of one
            # that is not ready is its own, and it stays in sight.
            if pod is not None and (endpoint.is_ready or takes_all or not pod.is_ready):
                of_pod = self._ports.setdefault(endpoint.pod, {})
                of_pod[service.key] = tuple(dict.fromkeys((*of_pod.get(service.key, ()), *ports)))

    def _is_shown(self, pod: Pod) -> bool:
        """A pod of this node is shown before it has addresses: it may be enrolled at birth."""
        self._pause()
        return not pod.is_over and bool(pod.ips or (pod.node and pod.node == self._place.node))

    def _workload(self, pod: Pod) -> Workload:
        ports = self._ports.get(pod.key, {})
        return Workload(
            uid=f"{CLUSTER}//Pod/{pod.namespace}/{pod.name}",
            name=pod.name,
            namespace=pod.namespace,
            service_account=pod.service_account,
            workload_ips=pod.ips,
            protocol=self._protocol(pod),
            node=pod.node,
            canonical_name=pod.canonical_name,
            canonical_revision=pod.canonical_revision,
            workload_name=pod.owner.name,
            workload_type=pod.owner.type,
            status=Status.HEALTHY if pod.is_ready else Status.UNHEALTHY,
            services=tuple(ports),
            service_ports=tuple(each for of_service in ports.values() for each in of_service),
            locality=self._localities.get(pod.node, NOWHERE),
            network_mode=NetworkMode.HOST_NETWORK if pod.host_network else NetworkMode.STANDARD,
            native_tunnel=pod.native_tunnel,
        )

    def _protocol(self, pod: Pod) -> Protocol:
        """HBONE to pods whose annotation says that they take it; and to those that this node is to enrol."""
        if pod.native_tunnel or (pod.redirected and not pod.host_network):
            return Protocol.HBONE
        namespace = self._snapshot.namespaces.get(pod.namespace, NO_NAMESPACE)
        is_ours = pod.node == self._place.node and membership(pod, namespace).is_wanted
        return Protocol.HBONE if is_ours else Protocol.TCP


def _other(part: Slice, endpoint: Endpoint, service: str, ports: tuple[ServicePort, ...]) -> Workload:
    """Return an endpoint of which only the address is known; others may have that as well."""
    return Workload(
        uid=f"{CLUSTER}/discovery.k8s.io/EndpointSlice/{part.namespace}/{part.name}/{endpoint.ip}",
        name=part.name,
        namespace=part.namespace,
        workload_ips=(endpoint.ip,),
        status=Status.HEALTHY if endpoint.is_ready else Status.UNHEALTHY,
        services=(service,),
        service_ports=ports,
        network_mode=NetworkMode.HOST_NETWORK,
    )


def local_pods(snapshot: Snapshot, node: str) -> Iterator[tuple[Pod, Namespace]]:
    """Yield the pods of `node`, each with its namespace."""
    for pod in snapshot.pods.values():
        if pod.node == node:
            yield pod, snapshot.namespaces.get(pod.namespace, NO_NAMESPACE)
