"""What is kept of Kubernetes' objects: the fields that are used, a few hundred bytes of several thousand.

Readers take the JSON of the API (core/v1, discovery.k8s.io/v1) and may raise what indexing and iterating
raise; an object that cannot be read is left out, and named in the log.
"""

from collections.abc import Iterator, Mapping
from sys import intern
from typing import Any, Final, NamedTuple

from zproxy.kube.ledger import Json, Kind
from zproxy.kube.owner import Owner, owner_of
from zproxy.model.addr import canonical_ip

DATAPLANE_MODE: Final = "istio.io/dataplane-mode"
"""Label of namespaces and pods; the pod's counts."""
AMBIENT: Final = "ambient"
NO_DATAPLANE: Final = "none"
REDIRECTION: Final = "ambient.istio.io/redirection"
"""Annotation of pods that are in the mesh: what says to all others that they are reached by HBONE."""
REDIRECTED: Final = "enabled"
BYPASS_INBOUND: Final = "ambient.istio.io/bypass-inbound-capture"
DNS_CAPTURE: Final = "ambient.istio.io/dns-capture"
SIDECAR: Final = "sidecar.istio.io/status"
"""Annotation of pods that a sidecar was injected into."""
TUNNEL: Final = "networking.istio.io/tunnel"
"""Label of pods whose app speaks HBONE itself, with the value `http`."""
DISTRIBUTION: Final = "networking.istio.io/traffic-distribution"
SERVICE_NAME: Final = "kubernetes.io/service-name"
_CANONICAL_NAME: Final = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
_CANONICAL_REVISION: Final = ("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")
_ZONES: Final = (
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
)


class Pod(NamedTuple):
    """A pod of any node."""

    uid: str
    namespace: str
    name: str
    node: str
    ips: tuple[str, ...]
    """Canonical text; empty until the pod has a network."""
    service_account: str
    owner: Owner
    canonical_name: str
    canonical_revision: str
    is_ready: bool
    """Its condition Ready is true, and it is not being deleted."""
    is_over: bool
    """It succeeded or failed: nothing runs in it any more, and its addresses may be another's."""
    host_network: bool
    mode: str
    """Its label for the data plane; empty where it has none."""
    redirected: bool
    dns: bool | None
    """What its annotation says about DNS; None where there is none."""
    bypass_inbound: bool
    has_sidecar: bool
    native_tunnel: bool

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


class Namespace(NamedTuple):
    """What a namespace says for all that is in it."""

    mode: str
    distribution: str


class Node(NamedTuple):
    """Where a node is."""

    region: str
    zone: str
    subzone: str


class ServicePort(NamedTuple):
    """A TCP port of a service."""

    name: str
    port: int
    target: int
    """0 where it has a name, which each pod has its own number for."""


class KubeService(NamedTuple):
    """A service."""

    namespace: str
    name: str
    is_external_name: bool
    cluster_ips: tuple[str, ...]
    """Canonical text; empty for a headless one."""
    ports: tuple[ServicePort, ...]
    families: tuple[str, ...]
    """`IPv4` and `IPv6`, the first is the primary one."""
    is_local: bool
    """Internal traffic stays on the node."""
    distribution: str
    """How near endpoints should be, in lower case; empty where nothing is said."""
    publish_not_ready: bool
    client_affinity: bool


class Endpoint(NamedTuple):
    """One address of a slice."""

    ip: str
    is_ready: bool
    pod: str
    """`namespace/name`; empty where it is no pod's."""


class Slice(NamedTuple):
    """Some of a service's endpoints, and the ports that these have."""

    namespace: str
    name: str
    service: str
    """Its name, in the same namespace; empty where the slice is no service's."""
    ports: tuple[tuple[str, int], ...]
    """(name of the service's port, number at the endpoints), TCP only."""
    endpoints: tuple[Endpoint, ...]


def read_pod(item: Json) -> Pod:
    """Return what is used of a v1 Pod."""
    metadata, spec, status = item["metadata"], item["spec"], item.get("status") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    owner = owner_of(metadata)
    conditions = {each["type"]: each["status"] for each in status.get("conditions") or ()}
    return Pod(
        uid=metadata["uid"],
        namespace=intern(metadata["namespace"]),
        name=metadata["name"],
        node=intern(spec.get("nodeName") or ""),
        ips=tuple(_ips(status)),
        service_account=intern(spec.get("serviceAccountName") or "default"),
        owner=owner,
        canonical_name=intern(_first(labels, _CANONICAL_NAME, owner.name)),
        canonical_revision=intern(_first(labels, _CANONICAL_REVISION, "latest")),
        is_ready=conditions.get("Ready") == "True" and "deletionTimestamp" not in metadata,
        is_over=status.get("phase") in {"Succeeded", "Failed"},
        host_network=bool(spec.get("hostNetwork")),
        mode=intern(labels.get(DATAPLANE_MODE) or ""),
        redirected=annotations.get(REDIRECTION) == REDIRECTED,
        dns=_flag(annotations.get(DNS_CAPTURE)),
        bypass_inbound=_flag(annotations.get(BYPASS_INBOUND)) is True,
        has_sidecar=SIDECAR in annotations,
        native_tunnel="http" in (labels.get(TUNNEL) or "").split(","),
    )


def read_namespace(item: Json) -> Namespace:
    """Return what is used of a v1 Namespace; its metadata are enough."""
    labels, annotations = (item["metadata"].get(each) or {} for each in ("labels", "annotations"))
    return Namespace(labels.get(DATAPLANE_MODE) or "", (annotations.get(DISTRIBUTION) or "").lower())


def read_node(item: Json) -> Node:
    """Return what is used of a v1 Node; its metadata are enough."""
    labels = item["metadata"].get("labels") or {}
    return Node(*(intern(labels.get(each) or "") for each in _ZONES))


def read_service(item: Json) -> KubeService:
    """Return what is used of a v1 Service."""
    metadata, spec = item["metadata"], item["spec"]
    annotation = (metadata.get("annotations") or {}).get(DISTRIBUTION)
    ips = spec.get("clusterIPs") or (spec.get("clusterIP"),)
    return KubeService(
        namespace=intern(metadata["namespace"]),
        name=metadata["name"],
        is_external_name=spec.get("type") == "ExternalName",
        cluster_ips=tuple(canonical_ip(ip) for ip in ips if ip and ip != "None"),
        ports=tuple(_service_ports(spec.get("ports") or ())),
        families=tuple(intern(each) for each in spec.get("ipFamilies") or ()),
        is_local=spec.get("internalTrafficPolicy") == "Local",
        distribution=(spec.get("trafficDistribution") or annotation or "").lower(),
        publish_not_ready=bool(spec.get("publishNotReadyAddresses")),
        client_affinity=spec.get("sessionAffinity") == "ClientIP",
    )


def read_slice(item: Json) -> Slice:
    """Return what is used of a discovery.k8s.io/v1 EndpointSlice; host names are no addresses."""
    metadata = item["metadata"]
    has_addresses = item.get("addressType") in {"IPv4", "IPv6"}
    endpoints = item.get("endpoints") or () if has_addresses else ()
    return Slice(
        namespace=intern(metadata["namespace"]),
        name=metadata["name"],
        service=(metadata.get("labels") or {}).get(SERVICE_NAME) or "",
        ports=tuple(
            (intern(each.get("name") or ""), int(each["port"]))
            for each in item.get("ports") or ()
            if each.get("port") and (each.get("protocol") or "TCP") == "TCP"
        ),
        endpoints=tuple(_endpoint(each, metadata["namespace"]) for each in endpoints),
    )


PODS: Final = Kind("pods", "/api/v1/pods", read_pod)
NAMESPACES: Final = Kind("namespaces", "/api/v1/namespaces", read_namespace, only_metadata=True)
NODES: Final = Kind("nodes", "/api/v1/nodes", read_node, only_metadata=True)
SERVICES: Final = Kind("services", "/api/v1/services", read_service)
SLICES: Final = Kind("endpointslices", "/apis/discovery.k8s.io/v1/endpointslices", read_slice)
KINDS: Final[tuple[Kind[Any], ...]] = (PODS, NAMESPACES, NODES, SERVICES, SLICES)


def _ips(status: Json) -> Iterator[str]:
    listed = [each.get("ip") for each in status.get("podIPs") or ()] or [status.get("podIP")]
    return (canonical_ip(ip) for ip in listed if ip)


def _service_ports(ports: Any) -> Iterator[ServicePort]:
    for each in ports:
        if (each.get("protocol") or "TCP") == "TCP":
            target = each.get("targetPort", each["port"])
            number = target if isinstance(target, int) else 0
            yield ServicePort(intern(each.get("name") or ""), int(each["port"]), number)


def _endpoint(item: Json, namespace: str) -> Endpoint:
    target = item.get("targetRef") or {}
    is_pod = target.get("kind") == "Pod"
    return Endpoint(
        canonical_ip(item["addresses"][0]),
        (item.get("conditions") or {}).get("ready") is not False,
        f"{target.get('namespace') or namespace}/{target['name']}" if is_pod else "",
    )


def _first(labels: Mapping[str, str], names: tuple[str, ...], otherwise: str) -> str:
    return next((labels[name] for name in names if labels.get(name)), otherwise)


def _flag(text: str | None) -> bool | None:
    return {"true": True, "false": False}.get((text or "").lower())
