"""One workload of the local configuration: a table of good and a table of bad values."""

from pathlib import Path

import pytest

from zproxy.errors import ConfigError
from zproxy.model.service import GatewayAddress, NamespacedHostname, NetworkAddress
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
from zproxy.sources.document import Place, parse
from zproxy.sources.workloads import read_workload

FILE = Path("mesh.yaml")
MINIMAL = "uid: u\nname: n\nnamespace: ns\n"


def read(text: str) -> Workload:
    root = parse(text, FILE)
    assert root is not None
    return read_workload(root, Place(FILE, root.line, "workloads[0]"))


def test_three_keys_are_enough_for_a_plain_tcp_workload() -> None:
    assert read(MINIMAL) == Workload(uid="u", name="n", namespace="ns")


def test_every_key_is_read() -> None:
    text = """\
uid: cluster1//v1/Pod/demo/server-0
name: server-0
namespace: demo
serviceAccount: server
trustDomain: example.org
workloadIps: [10.244.2.5, "FD00:244:2:0::5"]
protocol: HBONE
node: node-b
network: net1
clusterId: cluster1
canonicalName: server
canonicalRevision: v2
workloadName: server
workloadType: deployment
status: Unhealthy
services:
  demo/server.demo.svc.cluster.local: {80: 8080, 443: 8443}
  demo/*.wild.example.com: {}
locality: {region: eu, zone: eu-1, subzone: rack.7}
capacity: 3
hostname: server.example.org
networkMode: HostNetwork
waypoint: {destination: "net1/10.0.0.9"}
networkGateway: {destination: "istio-system/gateway.example.org", hboneMtlsPort: 15009}
applicationTunnel: {protocol: PROXY, port: 15088}
authorizationPolicies: [demo/allow, istio-system/strict]
nativeTunnel: true
"""
    assert read(text) == Workload(
        uid="cluster1//v1/Pod/demo/server-0",
        name="server-0",
        namespace="demo",
        service_account="server",
        trust_domain="example.org",
        workload_ips=("10.244.2.5", "fd00:244:2::5"),
        protocol=Protocol.HBONE,
        node="node-b",
        network="net1",
        cluster_id="cluster1",
        canonical_name="server",
        canonical_revision="v2",
        workload_name="server",
        workload_type="deployment",
        status=Status.UNHEALTHY,
        services=("demo/server.demo.svc.cluster.local", "demo/*.wild.example.com"),
        service_ports=(
            ServicePort("demo/server.demo.svc.cluster.local", 80, 8080),
            ServicePort("demo/server.demo.svc.cluster.local", 443, 8443),
        ),
        locality=Locality("eu", "eu-1", "rack.7"),
        hostname="server.example.org",
        network_mode=NetworkMode.HOST_NETWORK,
        waypoint=GatewayAddress(NetworkAddress("net1", "10.0.0.9")),
        network_gateway=GatewayAddress(NamespacedHostname("istio-system", "gateway.example.org"), 15009),
        application_tunnel=ApplicationTunnel(AppProtocol.PROXY, 15088),
        authorization_policies=("demo/allow", "istio-system/strict"),
        capacity=3,
        native_tunnel=True,
    )


def test_services_may_be_a_list_whose_ports_the_services_tell() -> None:
    item = read(MINIMAL + "services: [demo/a.test, demo/b.test]")
    assert (item.services, item.service_ports) == (("demo/a.test", "demo/b.test"), ())


@pytest.mark.parametrize(
    "line",
    [
        'network: ""',
        "node: ''",
        "canonicalName: ''",
        "workloadIps: []",
        "services: {}",
        "locality: {}",
        "capacity: 0",
    ],
)
def test_empty_values_where_empty_means_something(line: str) -> None:
    read(MINIMAL + line)


BAD = [
    # what is there, and how the sentence begins after "mesh.yaml:"
    ("{}", "1: workloads[0].uid: missing; every entry needs a unique id such as"),
    ("uid: u\nnamespace: ns", "1: workloads[0].name: missing; every entry needs a Kubernetes name"),
    ("uid: u\nname: n", "1: workloads[0].namespace: missing; every entry needs a Kubernetes namespace"),
    ("[]", "1: workloads[0]: a list is not a mapping; write `key: value` lines"),
    ("just text", "1: workloads[0]: 'just text' is not a mapping"),
    (MINIMAL + "sevices: {}", "4: workloads[0].sevices: unknown key; did you mean 'services'?"),
    (
        MINIMAL + "service_account: x",
        "4: workloads[0].service_account: unknown key; did you mean 'serviceAccount'?",
    ),
    (MINIMAL + "workloadIPs: []", "4: workloads[0].workloadIPs: unknown key; did you mean 'workloadIps'?"),
    (MINIMAL + "colour: red", "4: workloads[0].colour: unknown key; the keys here are uid, name, namespace,"),
    (MINIMAL + "<<: {}", "4: workloads[0][<<]: unknown key"),
    (MINIMAL + "uid: v", "4: uid: the key is there twice, first in line 1; keep one"),
    (
        "uid: 'has space'\nname: n\nnamespace: ns",
        "1: workloads[0].uid: 'has space' is not a unique id such as",
    ),
    ("uid: ''\nname: n\nnamespace: ns", "1: workloads[0].uid: '' is not a unique id"),
    (
        "uid: 12\nname: n\nnamespace: ns",
        "1: workloads[0].uid: 12 is a number to YAML; if it is meant as text, put it",
    ),
    ("uid: [u]\nname: n\nnamespace: ns", "1: workloads[0].uid: a list is not text; write a unique id"),
    ("uid: " + "u" * 1025 + "\nname: n\nnamespace: ns", "1: workloads[0].uid: 1025 characters are too many;"),
    (
        "uid: u\nname: Upper\nnamespace: ns",
        "2: workloads[0].name: 'Upper' is not a Kubernetes name (a-z, 0-9, - and .)",
    ),
    ("uid: u\nname: -n\nnamespace: ns", "2: workloads[0].name: '-n' is not a Kubernetes name"),
    ("uid: u\nname: a..b\nnamespace: ns", "2: workloads[0].name: 'a..b' is not a Kubernetes name"),
    ("uid: u\nname: n\nnamespace: a.b", "3: workloads[0].namespace: 'a.b' is not a Kubernetes namespace"),
    (
        "uid: u\nname: n\nnamespace: no",
        "3: workloads[0].namespace: no is a boolean to YAML; if it is meant as text",
    ),
    (
        "uid: u\nname: n\nnamespace:",
        "3: workloads[0].namespace: has no value; write one, or leave the key out",
    ),
    ("uid: u\nname: n\nnamespace: " + "a" * 64, "3: workloads[0].namespace: 64 characters are too many;"),
    (MINIMAL + "serviceAccount: ''", "4: workloads[0].serviceAccount: '' is not a Kubernetes name"),
    (MINIMAL + "serviceAccount: a/b", "4: workloads[0].serviceAccount: 'a/b' is not a Kubernetes name"),
    (MINIMAL + 'serviceAccount: "a\\nb"', "4: workloads[0].serviceAccount: 'a\\nb' is not a Kubernetes name"),
    (
        MINIMAL + "trustDomain: Cluster.Local",
        "4: workloads[0].trustDomain: 'Cluster.Local' is not a trust domain",
    ),
    (
        MINIMAL + "trustDomain: a/b",
        "4: workloads[0].trustDomain: 'a/b' is not a trust domain (a-z, 0-9, ., - and _)",
    ),
    (
        MINIMAL + "workloadIps: 10.0.0.1",
        "4: workloads[0].workloadIps: '10.0.0.1' is not a list; write [..] or one `- `",
    ),
    (
        MINIMAL + "workloadIps: [10.0.0.256]",
        "4: workloads[0].workloadIps[0]: '10.0.0.256' is not an IP address",
    ),
    (
        MINIMAL + "workloadIps:\n- 10.0.0.1\n- server",
        "6: workloads[0].workloadIps[1]: 'server' is not an IP address",
    ),
    (
        MINIMAL + "workloadIps: [10.0.0.1/32]",
        "is not an IP address; write the address without a prefix length",
    ),
    (
        MINIMAL + "workloadIps: ['fe80::1%eth0']",
        "4: workloads[0].workloadIps[0]: 'fe80::1%eth0' is not an IP address",
    ),
    (
        MINIMAL + "workloadIps: [0.0.0.0]",
        "4: workloads[0].workloadIps[0]: 0.0.0.0 is not the address of a workload",
    ),
    (MINIMAL + "workloadIps: ['::']", "4: workloads[0].workloadIps[0]: :: is not the address of a workload"),
    (
        MINIMAL + "workloadIps: [224.0.0.1]",
        "4: workloads[0].workloadIps[0]: 224.0.0.1 is not the address of a workload",
    ),
    (MINIMAL + "workloadIps: [[10.0.0.1]]", "4: workloads[0].workloadIps[0]: a list is not an IP address"),
    (MINIMAL + "workloadIps: ['']", "4: workloads[0].workloadIps[0]: an empty value is not an IP address"),
    (
        MINIMAL + "workloadIps:\n- 10.0.0.1\n- '::ffff:10.0.0.1'",
        "6: workloads[0].workloadIps[1]: 10.0.0.1 is listed twice, first in line 5; keep one",
    ),
    (
        MINIMAL + "protocol: HBONE",
        "1: workloads[0].workloadIps: missing; an HBONE workload needs an IP address, a",
    ),
    (
        MINIMAL + "protocol: HBONE\nworkloadIps: []",
        "5: workloads[0].workloadIps: missing; an HBONE workload needs",
    ),
    (
        MINIMAL + "protocol: hbone",
        "4: workloads[0].protocol: 'hbone' is not one of TCP, HBONE; did you mean 'HBONE'?",
    ),
    (MINIMAL + "protocol: UDP", "4: workloads[0].protocol: 'UDP' is not one of TCP, HBONE"),
    (MINIMAL + "protocol: [TCP]", "4: workloads[0].protocol: a list is not one of TCP, HBONE"),
    (
        MINIMAL + "protocol: LEGACY_ISTIO_MTLS",
        "4: workloads[0].protocol: 'LEGACY_ISTIO_MTLS' is not one of TCP, HBONE",
    ),
    (
        MINIMAL + "status: healthy",
        "4: workloads[0].status: 'healthy' is not one of Healthy, Unhealthy; did you mean",
    ),
    (
        MINIMAL + "workloadType: Pod",
        "4: workloads[0].workloadType: 'Pod' is not one of deployment, cronjob, job, pod;",
    ),
    (
        MINIMAL + "node: two words",
        "4: workloads[0].node: 'two words' is not a label (letters, digits and ._:/@+~-)",
    ),
    (MINIMAL + "clusterId: a,b=c", "4: workloads[0].clusterId: 'a,b=c' is not a label"),
    (MINIMAL + "canonicalRevision: 2", "4: workloads[0].canonicalRevision: 2 is a number to YAML"),
    (MINIMAL + "network: ~", "4: workloads[0].network: has no value"),
    (MINIMAL + "hostname: Not_A_Host", "4: workloads[0].hostname: 'Not_A_Host' is not a host name"),
    (
        MINIMAL + "capacity: many",
        "4: workloads[0].capacity: 'many' is not a whole number from 0 to 4294967295",
    ),
    (MINIMAL + "capacity: -1", "4: workloads[0].capacity: '-1' is not a whole number from 0 to 4294967295"),
    (
        MINIMAL + "capacity: '1'",
        "4: workloads[0].capacity: '1' is not a number; write one from 0 to 4294967295, without",
    ),
    (MINIMAL + "capacity: 4294967296", "4: workloads[0].capacity: '4294967296' is not a whole number"),
    (MINIMAL + "services: [a]", "4: workloads[0].services[0]: 'a' is not a service as namespace/hostname"),
    (MINIMAL + "services: [a/b, a/b]", "4: workloads[0].services[1]: a/b is listed twice; keep one"),
    (MINIMAL + "services: a/b", "4: workloads[0].services: 'a/b' is not a mapping"),
    (
        MINIMAL + "services: {b.example.com: {}}",
        "4: workloads[0].services[b.example.com]: 'b.example.com' is not a service as",
    ),
    (MINIMAL + "services: {a/b: 80}", "4: workloads[0].services[a/b]: '80' is not a mapping"),
    (
        MINIMAL + "services:\n  a/b: {80: http}",
        "5: workloads[0].services[a/b][80]: 'http' is not a whole number from 1 to",
    ),
    (
        MINIMAL + "services: {a/b: {http: 80}}",
        "4: workloads[0].services[a/b].http: 'http' is not a whole number from 1",
    ),
    (
        MINIMAL + "services: {a/b: {0: 80}}",
        "4: workloads[0].services[a/b][0]: '0' is not a whole number from 1 to 65535",
    ),
    (
        MINIMAL + "services: {a/b: {80: 0}}",
        "4: workloads[0].services[a/b][80]: '0' is not a whole number from 1 to 65535",
    ),
    (
        MINIMAL + "services: {a/b: {80: 65536}}",
        "4: workloads[0].services[a/b][80]: '65536' is not a whole number",
    ),
    (
        MINIMAL + "services: {a/b: {080: 80}}",
        "4: workloads[0].services[a/b][080]: '080' is not a whole number",
    ),
    (
        MINIMAL + "services: {a/b: {80: '80'}}",
        "4: workloads[0].services[a/b][80]: '80' is not a number; write one from 1",
    ),
    (
        MINIMAL + "services: {a/b: {80: 1, 80: 2}}",
        "4: services[a/b][80]: the key is there twice, first in line 4",
    ),
    (MINIMAL + "locality: eu", "4: workloads[0].locality: 'eu' is not a mapping"),
    (MINIMAL + "locality: {Zone: a}", "4: workloads[0].locality.Zone: unknown key; did you mean 'zone'?"),
    (MINIMAL + "locality:\n  region: 1", "5: workloads[0].locality.region: 1 is a number to YAML"),
    (
        MINIMAL + "networkMode: Host",
        "4: workloads[0].networkMode: 'Host' is not one of Standard, HostNetwork",
    ),
    (MINIMAL + "waypoint:", "4: workloads[0].waypoint: an empty value is not a mapping"),
    (MINIMAL + "waypoint: {}", "4: workloads[0].waypoint.destination: missing; every entry needs network/ip"),
    (
        MINIMAL + "waypoint: {destination: 10.0.0.1}",
        "4: workloads[0].waypoint.destination: '10.0.0.1' is not network/ip or namespace/hostname",
    ),
    (
        MINIMAL + "networkGateway: {destination: net/10.0.0.1, hboneMtlsPort: 0}",
        "4: workloads[0].networkGateway.hboneMtlsPort: '0' is not a whole number from 1 to 65535",
    ),
    (
        MINIMAL + "applicationTunnel: {protocol: proxy}",
        "4: workloads[0].applicationTunnel.protocol: 'proxy' is not one of NONE, PROXY; did you mean 'PROXY",
    ),
    (
        MINIMAL + "authorizationPolicies: [deny]",
        "4: workloads[0].authorizationPolicies[0]: 'deny' is not a policy as namespace/name",
    ),
]


@pytest.mark.parametrize(("text", "says"), BAD)
def test_a_bad_value_names_file_line_and_key(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    message = str(caught.value)
    assert says in message
    assert message.startswith("mesh.yaml:")
    assert message.isprintable()
    assert "  " not in message


def test_json_port_keys_are_text_and_still_ports() -> None:
    assert read(
        '{"uid": "u", "name": "n", "namespace": "ns", "services": {"a/b": {"80": 8080}}}'
    ).service_ports == (ServicePort("a/b", 80, 8080),)
