"""Hypothesis strategies for records with anything in them that a mesh file can say."""

import string
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from zproxy.model.policy import (
    Action,
    Authorization,
    IpBlock,
    Match,
    PolicyScope,
    ServiceAccountMatch,
    StringKind,
    StringMatch,
)
from zproxy.model.service import (
    BalancerMode,
    GatewayAddress,
    HealthPolicy,
    IpFamilies,
    LoadBalancer,
    NamespacedHostname,
    NetworkAddress,
    NetworkCidr,
    Scope,
    Service,
    SessionAffinity,
    Visibility,
    WeightedWaypoint,
)
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

_RANGES = (IpBlock("0.0.0.0", 0), IpBlock("10.0.0.0", 8), IpBlock("192.0.2.1", 32), IpBlock("fd00::", 8))

names = st.text(string.ascii_lowercase + string.digits, max_size=4).map(lambda text: f"n{text}")
labels = st.one_of(st.just(""), names)
hosts = st.builds("{}.{}".format, names, names)
ports = st.integers(1, 65535)
ips = st.one_of(st.integers(1, 99).map("10.0.0.{}".format), st.integers(1, 9).map("fd00::{}".format))
addresses = st.builds(NetworkAddress, labels, ips)
gateways = st.builds(GatewayAddress, st.one_of(addresses, st.builds(NamespacedHostname, names, hosts)), ports)
blocks = st.sampled_from(_RANGES)


def several(values: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    """Tuples of distinct values."""
    return st.lists(values, max_size=most, unique=True).map(tuple)


strings = st.one_of(
    st.builds(StringMatch, st.sampled_from([StringKind.EXACT, StringKind.PREFIX, StringKind.SUFFIX]), names),
    st.just(StringMatch(StringKind.PRESENCE)),
)
accounts = st.builds(ServiceAccountMatch, names, names)
matches = st.builds(
    Match,
    *(several(strings, 2) for _ in range(4)),
    *(several(accounts, 2) for _ in range(2)),
    *(several(blocks, 2) for _ in range(4)),
    *(several(ports, 2) for _ in range(2)),
)


def _few(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(values, max_size=2).map(tuple)


policies = st.builds(
    Authorization,
    names,
    names,
    st.sampled_from(PolicyScope),
    st.sampled_from(Action),
    st.lists(st.lists(st.lists(matches, max_size=2).map(tuple), max_size=2).map(tuple), max_size=2).map(
        tuple
    ),
    dry_run=st.booleans(),
)
balancers = st.builds(
    LoadBalancer,
    several(st.sampled_from(Scope)),
    st.sampled_from(BalancerMode),
    st.sampled_from(HealthPolicy),
    st.sampled_from(SessionAffinity),
)
_plain_services = st.builds(
    Service,
    names,
    names,
    st.one_of(hosts, hosts.map("*.{}".format)),
    several(addresses),
    several(st.builds(NetworkCidr, labels, st.just("10.96.0.0"), st.integers(11, 32))),
    st.dictionaries(ports, st.integers(0, 65535), max_size=3).map(lambda found: tuple(found.items())),
    several(names.map("spiffe://td/ns/{}".format)),
    st.none() | gateways,
    several(st.builds(WeightedWaypoint, gateways, st.integers(1, 2**32 - 1))),
    balancers,
    st.sampled_from(IpFamilies),
    canonical=st.booleans(),
    visibility=st.sampled_from(Visibility),
)


@st.composite
def _named_ports(draw: st.DrawFn) -> Service:
    """Services of whose ports some have names."""
    item = draw(_plain_services)
    if not item.ports:
        return item
    known = st.sampled_from([port for port, _ in item.ports])
    return replace(item, port_names=tuple(draw(st.dictionaries(names, known, max_size=2)).items()))


services = _named_ports()


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Workloads that a file may have: one with HBONE has some way to be reached."""
    served = draw(
        st.dictionaries(st.builds("{}/{}".format, names, hosts), st.dictionaries(ports, ports, max_size=2))
    )
    own, hostname = draw(several(ips)), draw(st.one_of(st.just(""), hosts))
    gateway = draw(st.none() | gateways)
    name, namespace = draw(names), draw(names)
    can_be_reached = bool(own or hostname or gateway)
    return Workload(
        uid=f"cluster//Pod/{namespace}/{name}",
        name=name,
        namespace=namespace,
        service_account=draw(names),
        trust_domain=draw(names),
        workload_ips=own,
        protocol=draw(st.sampled_from(Protocol)) if can_be_reached else Protocol.TCP,
        node=draw(labels),
        network=draw(labels),
        cluster_id=draw(names),
        canonical_name=draw(labels),
        canonical_revision=draw(labels),
        workload_name=draw(labels),
        workload_type=draw(st.sampled_from(["deployment", "cronjob", "job", "pod"])),
        status=draw(st.sampled_from(Status)),
        services=tuple(served),
        service_ports=tuple(
            ServicePort(service, port, target)
            for service, of in served.items()
            for port, target in of.items()
        ),
        locality=draw(st.builds(Locality, labels, labels, labels)),
        hostname=hostname,
        network_mode=draw(st.sampled_from(NetworkMode)),
        waypoint=draw(st.none() | gateways),
        network_gateway=gateway,
        application_tunnel=draw(
            st.none() | st.builds(ApplicationTunnel, st.sampled_from(AppProtocol), st.none() | ports)
        ),
        authorization_policies=draw(several(st.builds("{}/{}".format, names, names))),
        capacity=draw(st.integers(0, 2**32 - 1)),
        native_tunnel=draw(st.booleans()),
    )
