"""One service of the local configuration.

Keys and spellings are ztunnel's; `portNames` and `sessionAffinity` are ours.
"""

import re
from collections.abc import Container, Iterator
from typing import Final, NamedTuple

from zproxy.model.service import (
    DEFAULT_BALANCER,
    BalancerMode,
    HealthPolicy,
    IpFamilies,
    LoadBalancer,
    NetworkAddress,
    NetworkCidr,
    Scope,
    Service,
    SessionAffinity,
    Visibility,
    WeightedWaypoint,
)
from zproxy.model.workload import ServicePort, Status
from zproxy.sources.document import Node, Place, Scalar
from zproxy.sources.fields import Fields, Text, checked, decimal, entries_of, number_of, text_of
from zproxy.sources.vocabulary import (
    NAME,
    NAMESPACE,
    NETWORK,
    PORT_NAME,
    PORTS,
    SERVICE_HOSTNAME,
    STATUSES,
    UID,
    address_of,
    block_of,
    gateway,
    gateway_of,
)

KEYS: Final = (
    *("name", "namespace", "hostname", "vips", "cidrVips", "ports", "subjectAltNames", "waypoint"),
    *("weightedWaypoints", "loadBalancer", "ipFamilies", "canonical", "visibility", "endpoints"),
    "portNames",
)
BALANCER_KEYS: Final = ("routingPreferences", "mode", "healthPolicy", "sessionAffinity")
_IDENTITY: Final = Text(
    "an identity as spiffe://trust-domain/path",
    re.compile(r"spiffe://[a-z0-9._-]+(?:/[A-Za-z0-9._-]+)*"),
    2048,
)
_FAMILIES: Final = {each.value: each for each in IpFamilies if each.value}
_VISIBILITIES: Final = {each.value: each for each in Visibility}
_MODES: Final = {each.value: each for each in BalancerMode}
_HEALTH: Final = {each.value: each for each in HealthPolicy}
_AFFINITIES: Final = {each.value: each for each in SessionAffinity}
_SCOPES: Final = {each.value: each for each in Scope}
_HEAVIEST: Final = 2**32 - 1


class Endpoint(NamedTuple):
    """A workload behind a service, as the service tells it; workloads tell the same of themselves."""

    uid: str
    ports: tuple[ServicePort, ...]
    status: Status | None
    """None where it is not said."""
    place: Place


def read_service(node: Node, here: Place) -> Service:
    """Return the service that `node` describes; raise ConfigError."""
    fields = Fields(node, here, KEYS)
    vips, cidrs = _vips(fields)
    ports = tuple(_ports(fields))
    return Service(
        name=fields.text("name", NAME),
        namespace=fields.text("namespace", NAMESPACE),
        hostname=fields.text("hostname", SERVICE_HOSTNAME),
        vips=tuple(vips),
        cidr_vips=(*cidrs, *_cidrs(fields)),
        ports=ports,
        subject_alt_names=tuple(
            text_of(item, _IDENTITY, place) for item, place in fields.items("subjectAltNames")
        ),
        waypoint=gateway(fields, "waypoint"),
        weighted_waypoints=tuple(_weighted(fields)),
        load_balancer=_balancer(fields),
        ip_families=fields.choice("ipFamilies", _FAMILIES, IpFamilies.AUTOMATIC),
        canonical=fields.flag("canonical"),
        visibility=fields.choice("visibility", _VISIBILITIES, Visibility.PUBLIC),
        port_names=tuple(_port_names(fields, {port for port, _ in ports})),
    )


def read_endpoints(node: Node, here: Place, key: str) -> Iterator[Endpoint]:
    """Yield the endpoints that the service `key` has in a config dump, by the uid of the workload."""
    fields = Fields(node, here, KEYS)
    for uid, entry, place in fields.entries("endpoints"):
        inner = Fields(entry, place, ("workloadUid", "port", "status"))
        if inner.text("workloadUid", UID, uid) != uid:
            raise inner.place("workloadUid").error(f"is another workload than the entry's, {uid}")
        ports = inner.entries("port")
        yield Endpoint(
            uid,
            tuple(
                ServicePort(key, decimal(port, *PORTS, at), number_of(target, *PORTS, at))
                for port, target, at in ports
            ),
            inner.choice("status", STATUSES, None),
            place,
        )


def _vips(fields: Fields) -> tuple[list[NetworkAddress], list[NetworkCidr]]:
    """Return addresses and ranges of the list `vips`, in which a range has a second slash."""
    vips: list[NetworkAddress] = []
    cidrs: list[NetworkCidr] = []
    for item, place in fields.items("vips"):
        if isinstance(item, Scalar) and item.text.count("/") == 2:
            network, _, block = item.text.partition("/")
            cidrs.append(_cidr(network, block, place))
        else:
            vips.append(address_of(item, place))
    return vips, cidrs


def _cidrs(fields: Fields) -> Iterator[NetworkCidr]:
    """Yield the list `cidrVips`, which a config dump has."""
    for item, place in fields.items("cidrVips"):
        inner = Fields(item, place, ("network", "cidr"))
        cidr = inner.node("cidr")
        text = cidr.text if isinstance(cidr, Scalar) else ""
        yield _cidr(inner.text("network", NETWORK, ""), text, inner.place("cidr"))


def _cidr(network: str, text: str, place: Place) -> NetworkCidr:
    if NETWORK.pattern.fullmatch(network) is None:
        raise place.error(f"{network[:60]!r} is not {NETWORK.says}")
    return NetworkCidr(network, *block_of(text, place))


def _ports(fields: Fields) -> Iterator[tuple[int, int]]:
    """Yield service port and target port; a target of 0 is each endpoint's to say."""
    node = fields.node("ports")
    if node is not None:
        for port, target, place in entries_of(node, fields.place("ports")):
            yield decimal(port, *PORTS, place), number_of(target, 0, PORTS[1], place)


def _port_names(fields: Fields, served: Container[int]) -> Iterator[tuple[str, int]]:
    """Yield names of service ports; one port may have several."""
    for name, node, place in fields.entries("portNames"):
        checked(name, PORT_NAME, place)
        port = number_of(node, *PORTS, place)
        if port not in served:
            raise place.error(f"{port} is none of the ports that the service has under `ports`")
        yield name, port


def _weighted(fields: Fields) -> Iterator[WeightedWaypoint]:
    for item, place in fields.items("weightedWaypoints"):
        inner = Fields(item, place, ("destination", "weight"))
        destination = inner.node("destination")
        if destination is None:
            raise inner.place("destination").error("missing; every entry needs a waypoint")
        waypoint = gateway_of(destination, inner.place("destination"))
        yield WeightedWaypoint(waypoint, inner.number("weight", 0, _HEAVIEST, 1))


def _balancer(fields: Fields) -> LoadBalancer:
    node = fields.node("loadBalancer")
    if node is None:
        return DEFAULT_BALANCER
    inner = Fields(node, fields.place("loadBalancer"), BALANCER_KEYS)
    return LoadBalancer(
        inner.choices("routingPreferences", _SCOPES),
        inner.choice("mode", _MODES, BalancerMode.STANDARD),
        inner.choice("healthPolicy", _HEALTH, HealthPolicy.ONLY_HEALTHY),
        inner.choice("sessionAffinity", _AFFINITIES, SessionAffinity.NONE),
    )
