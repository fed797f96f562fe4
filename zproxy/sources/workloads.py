"""One workload of the local configuration: its keys and their defaults, which are ztunnel's."""

from collections.abc import Iterator, Mapping
from typing import Final

from zproxy.model.workload import (
    ApplicationTunnel,
    AppProtocol,
    Locality,
    NetworkMode,
    Protocol,
    ServicePort,
    Status,
    Workload,
)
from zproxy.sources.document import Node, Place, Sequence
from zproxy.sources.fields import Fields, checked, decimal, entries_of, number_of, text_of
from zproxy.sources.vocabulary import (
    DESCRIPTION,
    HOSTNAME,
    NAME,
    NAMESPACE,
    NETWORK,
    POLICY,
    PORTS,
    SERVICE,
    STATUSES,
    TRUST_DOMAIN,
    UID,
    gateway,
)

KEYS: Final = (
    *("uid", "name", "namespace", "serviceAccount", "trustDomain", "workloadIps", "protocol"),
    *("node", "network", "clusterId", "canonicalName", "canonicalRevision", "workloadName", "workloadType"),
    *("status", "services", "locality", "networkMode", "hostname", "capacity", "nativeTunnel"),
    *("waypoint", "networkGateway", "applicationTunnel", "authorizationPolicies"),
)
_PROTOCOLS: Final = {protocol.value: protocol for protocol in Protocol}
_WORKLOAD_TYPES: Final = {kind: kind for kind in ("deployment", "cronjob", "job", "pod")}
_NETWORK_MODES: Final = {mode.value: mode for mode in NetworkMode}
_APP_PROTOCOLS: Final = {protocol.value: protocol for protocol in AppProtocol}
_LARGEST: Final = 2**32 - 1


def read_workload(node: Node, here: Place) -> Workload:
    """Return the workload that `node` describes; raise ConfigError."""
    fields = Fields(node, here, KEYS)
    service_ports = _service_ports(fields)
    return Workload(
        uid=fields.text("uid", UID),
        name=fields.text("name", NAME),
        namespace=fields.text("namespace", NAMESPACE),
        service_account=fields.text("serviceAccount", NAME, "default"),
        trust_domain=fields.text("trustDomain", TRUST_DOMAIN, "cluster.local"),
        workload_ips=_workload_ips(fields),
        protocol=_protocol(fields),
        node=fields.text("node", DESCRIPTION, ""),
        network=fields.text("network", NETWORK, ""),
        cluster_id=fields.text("clusterId", DESCRIPTION, "Kubernetes"),
        canonical_name=fields.text("canonicalName", DESCRIPTION, ""),
        canonical_revision=fields.text("canonicalRevision", DESCRIPTION, ""),
        workload_name=fields.text("workloadName", DESCRIPTION, ""),
        workload_type=fields.choice("workloadType", _WORKLOAD_TYPES, "pod"),
        status=fields.choice("status", STATUSES, Status.HEALTHY),
        services=tuple(service_ports),
        service_ports=tuple(port for ports in service_ports.values() for port in ports),
        locality=_locality(fields),
        hostname=fields.text("hostname", HOSTNAME, ""),
        network_mode=fields.choice("networkMode", _NETWORK_MODES, NetworkMode.STANDARD),
        waypoint=gateway(fields, "waypoint"),
        network_gateway=gateway(fields, "networkGateway"),
        application_tunnel=_application_tunnel(fields),
        authorization_policies=tuple(
            text_of(item, POLICY, place) for item, place in fields.items("authorizationPolicies")
        ),
        capacity=fields.number("capacity", 0, _LARGEST, 1),
        native_tunnel=fields.flag("nativeTunnel"),
    )


def _protocol(fields: Fields) -> Protocol:
    return fields.choice("protocol", _PROTOCOLS, Protocol.TCP)


def _workload_ips(fields: Fields) -> tuple[str, ...]:
    ips = fields.ips("workloadIps")
    has_way = "hostname" in fields or "networkGateway" in fields
    if not ips and not has_way and _protocol(fields) is Protocol.HBONE:
        raise fields.place("workloadIps").error(
            "missing; an HBONE workload needs an IP address, a hostname or a networkGateway"
        )
    return ips


def _service_ports(fields: Fields) -> Mapping[str, tuple[ServicePort, ...]]:
    """Return services and their ports; a config dump lists services only, and has ports at the services."""
    if isinstance(fields.node("services"), Sequence):
        return dict.fromkeys(_listed(fields), ())
    return {
        checked(service, SERVICE, place): tuple(_ports(service, ports, place))
        for service, ports, place in fields.entries("services")
    }


def _listed(fields: Fields) -> Iterator[str]:
    found: set[str] = set()
    for item, place in fields.items("services"):
        service = text_of(item, SERVICE, place)
        if service in found:
            raise place.error(f"{service} is listed twice; keep one")
        found.add(service)
        yield service


def _ports(service: str, node: Node, place: Place) -> list[ServicePort]:
    return [
        ServicePort(service, decimal(port, *PORTS, at), number_of(target, *PORTS, at))
        for port, target, at in entries_of(node, place)
    ]


def _locality(fields: Fields) -> Locality:
    node = fields.node("locality")
    if node is None:
        return Locality()
    inner = Fields(node, fields.place("locality"), Locality._fields)
    return Locality(*(inner.text(key, DESCRIPTION, "") for key in Locality._fields))


def _application_tunnel(fields: Fields) -> ApplicationTunnel | None:
    node = fields.node("applicationTunnel")
    if node is None:
        return None
    inner = Fields(node, fields.place("applicationTunnel"), ("protocol", "port"))
    port = inner.number("port", *PORTS, 0)
    return ApplicationTunnel(inner.choice("protocol", _APP_PROTOCOLS, AppProtocol.NONE), port or None)
