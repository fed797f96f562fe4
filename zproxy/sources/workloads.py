"""One workload of the local configuration: its keys, their defaults, and what this version refuses.

Keys and defaults are ztunnel's. All text is restricted to characters that need no quoting in a SPIFFE ID,
a header or a log line.
"""

import re
from collections.abc import Mapping
from typing import Final

from zproxy.model.workload import Locality, Protocol, ServicePort, Status, Workload
from zproxy.sources.document import Node, Place, Sequence
from zproxy.sources.fields import Fields, Text, checked, decimal, entries_of, number_of

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_SUBDOMAIN: Final = rf"{_LABEL}(?:\.{_LABEL})*"
NAMESPACE: Final = Text("a Kubernetes namespace (a-z, 0-9 and -)", re.compile(_LABEL), 63)
NAME: Final = Text("a Kubernetes name (a-z, 0-9, - and .)", re.compile(_SUBDOMAIN), 253)
HOSTNAME: Final = Text("a host name (a-z, 0-9, - and .)", NAME.pattern, 253)
TRUST_DOMAIN: Final = Text("a trust domain (a-z, 0-9, ., - and _)", re.compile(r"[a-z0-9._-]+"), 255)
UID: Final = Text(
    "a unique id such as cluster1//Pod/namespace/name (no spaces, quotes or commas)",
    re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+~-]*"),
    1024,
)
DESCRIPTION: Final = Text(
    "a label (letters, digits and ._:/@+~-)", re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._:/@+~-]*)?"), 253
)
SERVICE: Final = Text(
    "a service as namespace/hostname", re.compile(rf"{_LABEL}/(?:\*\.)?{_SUBDOMAIN}"), 63 + 1 + 253
)

UNSUPPORTED: Final = {
    "waypoint": "traffic would walk past the waypoint and its policies",
    "networkGateway": "traffic would be sent to an address that is not reachable directly",
    "applicationTunnel": "the app would get connections without the tunnel that it expects",
    "authorizationPolicies": "connections would be let in that those policies deny",
}
"""Keys whose neglect would show on the wire, and how."""

_DESCRIBES: Final = ("capacity", "hostname")
"""Keys that say something about services or names only, and so change nothing for who dials an address."""

_KEYS: Final = (
    *("uid", "name", "namespace", "serviceAccount", "trustDomain", "workloadIps", "protocol"),
    *("node", "network", "clusterId", "canonicalName", "canonicalRevision", "workloadName", "workloadType"),
    *("status", "services", "locality", "networkMode"),
    *_DESCRIBES,
    *UNSUPPORTED,
)
_PROTOCOLS: Final = {protocol.value: protocol for protocol in Protocol}
_WORKLOAD_TYPES: Final = {kind: kind for kind in ("deployment", "cronjob", "job", "pod")}
_STATUSES: Final = {status.value: status for status in Status}
_NETWORK_MODES: Final = {mode: mode for mode in ("Standard", "HostNetwork")}
_PORTS: Final = (1, 65535)


def read_workload(node: Node, here: Place) -> Workload:
    """Return the workload that `node` describes; raise ConfigError."""
    fields = Fields(node, here, _KEYS)
    _refuse_unsupported(fields)
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
        network=fields.text("network", DESCRIPTION, ""),
        cluster_id=fields.text("clusterId", DESCRIPTION, "Kubernetes"),
        canonical_name=fields.text("canonicalName", DESCRIPTION, ""),
        canonical_revision=fields.text("canonicalRevision", DESCRIPTION, ""),
        workload_name=fields.text("workloadName", DESCRIPTION, ""),
        workload_type=fields.choice("workloadType", _WORKLOAD_TYPES, "pod"),
        status=fields.choice("status", _STATUSES, Status.HEALTHY),
        services=tuple(service_ports),
        service_ports=tuple(port for ports in service_ports.values() for port in ports),
        locality=_locality(fields),
    )


def _refuse_unsupported(fields: Fields) -> None:
    for key, consequence in UNSUPPORTED.items():
        if key in fields:
            refuse_unless_empty(fields.node(key), fields.place(key), consequence)
    if fields.choice("networkMode", _NETWORK_MODES, "Standard") == "HostNetwork":
        raise fields.place("networkMode").error(
            "HostNetwork is not supported by this version: all that shares the node's address would pass for "
            "this workload; take the workload out, and its traffic passes through unchanged"
        )
    fields.number("capacity", 0, 2**32 - 1, 1)
    fields.text("hostname", HOSTNAME, "")


def refuse_unless_empty(node: Node | None, place: Place, consequence: str) -> None:
    """Raise ConfigError unless `node` is absent or an empty list."""
    if node is not None and not (isinstance(node, Sequence) and not node.items):
        raise place.error(f"not supported by this version: {consequence}; take it out if that is acceptable")


def _protocol(fields: Fields) -> Protocol:
    return fields.choice("protocol", _PROTOCOLS, Protocol.TCP)


def _workload_ips(fields: Fields) -> tuple[str, ...]:
    ips = fields.ips("workloadIps")
    if not ips and _protocol(fields) is Protocol.HBONE:
        raise fields.place("workloadIps").error("missing; an HBONE workload needs at least one IP address")
    return ips


def _service_ports(fields: Fields) -> Mapping[str, tuple[ServicePort, ...]]:
    return {
        checked(service, SERVICE, place): tuple(_ports(service, ports, place))
        for service, ports, place in fields.entries("services")
    }


def _ports(service: str, node: Node, place: Place) -> list[ServicePort]:
    return [
        ServicePort(service, decimal(port, *_PORTS, at), number_of(target, *_PORTS, at))
        for port, target, at in entries_of(node, place)
    ]


def _locality(fields: Fields) -> Locality:
    node = fields.node("locality")
    if node is None:
        return Locality()
    inner = Fields(node, fields.place("locality"), Locality._fields)
    return Locality(*(inner.text(key, DESCRIPTION, "") for key in Locality._fields))
