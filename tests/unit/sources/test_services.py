"""One service of the local configuration: every key, and a table of bad values."""

from pathlib import Path

import pytest

from zproxy.errors import ConfigError
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
from zproxy.model.workload import ServicePort, Status
from zproxy.sources.document import Place, parse
from zproxy.sources.services import Endpoint, read_endpoints, read_service

FILE = Path("mesh.yaml")
NEWLINE = "\n"
MINIMAL = "name: n\nnamespace: ns\nhostname: n.test\n"


def read(text: str) -> Service:
    root = parse(text, FILE)
    assert root is not None
    return read_service(root, Place(FILE, root.line, "services[0]"))


def test_three_keys_are_enough() -> None:
    assert read(MINIMAL) == Service("n", "ns", "n.test")


def test_every_key_is_read() -> None:
    text = """\
name: web
namespace: demo
hostname: "*.web.example.com"
vips: [/10.96.0.1, "net1/FD00:96:0::1", /10.97.0.0/16]
cidrVips: [{network: net1, cidr: "fd00:97::/32"}]
ports: {80: 8080, 443: 0}
subjectAltNames: ["spiffe://cluster.local/ns/demo/sa/web"]
waypoint: {destination: demo/waypoint.demo.svc.cluster.local}
weightedWaypoints:
- {destination: {destination: /10.0.0.9, hboneMtlsPort: 15009}, weight: 3}
loadBalancer:
  routingPreferences: [Network, Region]
  mode: Failover
  healthPolicy: AllowAll
  sessionAffinity: ClientIP
ipFamilies: Dual
canonical: true
visibility: Namespace
portNames: {http: 80, dns-tcp: 443, h2: 80}
"""
    assert read(text) == Service(
        "web",
        "demo",
        "*.web.example.com",
        (NetworkAddress("", "10.96.0.1"), NetworkAddress("net1", "fd00:96::1")),
        (NetworkCidr("", "10.97.0.0", 16), NetworkCidr("net1", "fd00:97::", 32)),
        ((80, 8080), (443, 0)),
        ("spiffe://cluster.local/ns/demo/sa/web",),
        GatewayAddress(NamespacedHostname("demo", "waypoint.demo.svc.cluster.local")),
        (WeightedWaypoint(GatewayAddress(NetworkAddress("", "10.0.0.9"), 15009), 3),),
        LoadBalancer(
            (Scope.NETWORK, Scope.REGION),
            BalancerMode.FAILOVER,
            HealthPolicy.ALLOW_ALL,
            SessionAffinity.CLIENT_IP,
        ),
        IpFamilies.DUAL,
        canonical=True,
        visibility=Visibility.NAMESPACE,
        port_names=(("http", 80), ("dns-tcp", 443), ("h2", 80)),
    )


def told(text: str) -> list[Endpoint]:
    root = parse(text, FILE)
    assert root is not None
    return list(read_endpoints(root, Place(FILE, root.line, "services[0]"), "ns/n.test"))


def test_endpoints_of_a_config_dump_are_read() -> None:
    assert told(MINIMAL) == []
    text = (
        MINIMAL
        + "endpoints:\n  a//Pod/ns/x: {workloadUid: a//Pod/ns/x, port: {80: 8080}, status: Unhealthy}\n"
    )
    (endpoint,) = told(text + "  b: {workloadUid: b}\n")[:1]
    assert endpoint[:3] == ("a//Pod/ns/x", (ServicePort("ns/n.test", 80, 8080),), Status.UNHEALTHY)
    assert endpoint.place.key == "services[0].endpoints[a//Pod/ns/x]"
    assert told(text + "  b: {}\n")[1][:3] == ("b", (), None)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{workloadUid: b}", "endpoints.a.workloadUid: is another workload than the entry's, a"),
        ("{port: {80: 0}}", "endpoints.a.port[80]: '0' is not a whole number from 1 to 65535"),
        ("{status: Sick}", "endpoints.a.status: 'Sick' is not one of Healthy, Unhealthy"),
        ("{uid: a}", "endpoints.a.uid: unknown key"),
        ("[]", "endpoints.a: a list is not a mapping"),
    ],
)
def test_a_bad_endpoint_names_file_line_and_key(entry: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        told(MINIMAL + f"endpoints:\n  a: {entry}\n")
    assert str(caught.value).startswith("mesh.yaml:5: services[0].")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("vips: [10.96.0.1]", "vips[0]: '10.96.0.1' is not network/ip, or /ip on the nameless network"),
        ("vips: [/nobody]", "vips[0]: '/nobody' is not network/ip"),
        (
            "vips: [/10.0.0.1/8]",
            "vips[0]: '10.0.0.1/8' is not an address range such as 10.0.0.0/8; bits behind",
        ),
        ("vips: [[]]", "vips[0]: a list is not text"),
        ("cidrVips: [{cidr: 10.0.0.0/40}]", "cidrVips[0].cidr: '10.0.0.0/40' is not an address range"),
        ("ports: {0: 80}", "ports[0]: '0' is not a whole number from 1 to 65535"),
        ("ports: {80: 65536}", "ports[80]: '65536' is not a whole number from 0 to 65535"),
        ("ports: [80]", "ports: a list is not a mapping"),
        ("subjectAltNames: [web]", "subjectAltNames[0]: 'web' is not an identity as spiffe://"),
        ("weightedWaypoints: [{weight: 1}]", "weightedWaypoints[0].destination: missing"),
        ("loadBalancer: {mode: failover}", "mode: 'failover' is not one of Standard, Strict, Failover, Pass"),
        ("loadBalancer: {routingPreferences: [Rack]}", "routingPreferences[0]: 'Rack' is not one of Region,"),
        ("loadBalancer: {routingPreferences: [Node, Node]}", "routingPreferences[1]: 'Node' is listed twice"),
        ("loadBalancer: {routingPreference: []}", "unknown key; did you mean 'routingPreferences'?"),
        ("ipFamilies: IPv5", "ipFamilies: 'IPv5' is not one of IPv4, IPv6, Dual"),
        ("canonical: yes", "canonical: 'yes' is not one of true, false"),
        ("visibility: Private", "visibility: 'Private' is not one of Public, Namespace"),
        ("portNames: [http]", "portNames: a list is not a mapping"),
        ("portNames: {http: 80}", "portNames.http: 80 is none of the ports that the service has"),
        ("ports: {80: 80}\nportNames: {http: 8080}", "portNames.http: 8080 is none of the ports"),
        ("portNames: {http: '80'}", "portNames.http: '80' is not a number; write one from 1 to 65535"),
        ("portNames: {http: 0}", "portNames.http: '0' is not a whole number from 1 to 65535"),
        ("portname: {}", "portname: unknown key; did you mean 'portNames'?"),
        ("hostnames: x", "hostnames: unknown key; did you mean 'hostname'?"),
    ],
)
def test_a_bad_value_names_file_line_and_key(line: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(MINIMAL + line)
    message = str(caught.value)
    assert message.startswith(f"mesh.yaml:{4 + line.count(NEWLINE)}: services[0].")
    assert says in message


@pytest.mark.parametrize("name", ["http", "a", "9p", "1-a", "h2-c", "a23456789012345"])
def test_a_ports_name_is_a_service_name(name: str) -> None:
    assert read(f"{MINIMAL}ports: {{80: 80}}\nportNames: {{{name}: 80}}").port_names == ((name, 80),)


@pytest.mark.parametrize("name", ["80", "1-2", "-a", "a-", "a--b", "HTTP", "a_b", "a.b", "ä", "''"])
def test_what_is_no_service_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^mesh\.yaml:5: services\[0\]\.portNames.*is not a port's name"):
        read(f"{MINIMAL}ports: {{80: 80}}\nportNames: {{{name}: 80}}")


def test_a_ports_name_of_16_characters_is_too_long() -> None:
    with pytest.raises(ConfigError, match="16 characters are too many; write a port's name"):
        read(f"{MINIMAL}ports: {{80: 80}}\nportNames: {{{'a' * 16}: 80}}")
