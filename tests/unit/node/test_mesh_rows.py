"""The mesh as rows: what istioctl's columns need, and what they leave out."""

import json
from dataclasses import replace

import pytest

from tests.support.mesh import behind, mesh, service, workload
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
    LoadBalancer,
    NamespacedHostname,
    NetworkAddress,
    NetworkCidr,
    Scope,
    SessionAffinity,
    Visibility,
    WeightedWaypoint,
)
from zproxy.model.workload import Protocol, Status
from zproxy.node.mesh_rows import policy_rows, service_rows, workload_rows

BY_NAME = GatewayAddress(NamespacedHostname("demo", "waypoint.test"))
BY_VIP = GatewayAddress(NetworkAddress("", "10.96.0.9"))
BY_POD = GatewayAddress(NetworkAddress("", "10.0.0.9"), 15009)
BY_POD_NAME = GatewayAddress(NamespacedHostname("demo", "gate.test"))
NOWHERE = GatewayAddress(NamespacedHostname("demo", "gone.test"))
WAYPOINT = service("demo/waypoint.test", "10.96.0.9")
GATE = workload("demo/gate", "10.0.0.9", hostname="gate.test")


def test_a_workload_has_all_that_a_listing_may_ask() -> None:
    known = mesh(
        workload("demo/server", "10.0.0.2", "fd00::2", node="node-b"),
        workload("aaa/plain", "10.0.0.3", protocol=Protocol.TCP, status=Status.UNHEALTHY),
        behind(
            workload(
                "demo/client",
                "10.0.0.1",
                node="node-a",
                network="net1",
                waypoint=BY_NAME,
                network_gateway=BY_POD,
                authorization_policies=("demo/deny",),
            ),
            WAYPOINT,
        ),
        WAYPOINT,
    )
    plain, client, server = workload_rows(known, {"demo/client"})
    assert client == {
        "namespace": "demo",
        "name": "client",
        "address": ["10.0.0.1"],
        "node": "node-a",
        "waypoint": "waypoint",
        "protocol": "HBONE",
        "identity": "spiffe://cluster.local/ns/demo/sa/client",
        "uid": "Kubernetes//Pod/demo/client",
        "status": "Healthy",
        "network": "net1",
        "services": ["demo/waypoint.test"],
        "policies": ["demo/deny"],
        "waypoint_address": "demo/waypoint.test:15008",
        "gateway_address": "/10.0.0.9:15009",
        "enrolled": True,
    }
    assert (plain["name"], plain["protocol"], plain["status"], plain["enrolled"]) == (
        *("plain", "TCP", "Unhealthy"),
        False,
    )
    assert (server["address"], server["waypoint"]) == (["10.0.0.2", "fd00::2"], "")


def test_a_workload_without_addresses_shows_its_hostname() -> None:
    rows = workload_rows(mesh(workload("demo/a", hostname="a.test"), workload("demo/b")), ())
    assert [row["address"] for row in rows] == [["a.test"], []]


@pytest.mark.parametrize(
    ("waypoint", "name"),
    [
        (BY_NAME, "waypoint"),
        (BY_VIP, "waypoint"),
        (BY_POD, "gate"),
        (BY_POD_NAME, "gate"),
        (NOWHERE, "NA"),
        (GatewayAddress(NetworkAddress("net1", "10.96.0.9")), "NA"),
        (GatewayAddress(NamespacedHostname("shop", "gate.test")), "NA"),
        (None, ""),
    ],
    ids=str,
)
def test_a_waypoint_is_shown_by_its_name(waypoint: GatewayAddress | None, name: str) -> None:
    web = service("demo/web.test", waypoint=waypoint)
    rows = service_rows(mesh(WAYPOINT, GATE, web))
    assert {row["hostname"]: row["waypoint"] for row in rows} == {"waypoint.test": "", "web.test": name}


def test_weighted_waypoints_are_shown_instead_of_the_one() -> None:
    shares = (WeightedWaypoint(BY_NAME, 9), WeightedWaypoint(NOWHERE, 1))
    web = service("demo/web.test", waypoint=BY_POD, weighted_waypoints=shares)
    row = service_rows(mesh(WAYPOINT, GATE, web))[1]
    assert row["waypoint"] == "waypoint,NA"
    assert row["waypoint_address"] == "demo/waypoint.test:15008 (9),demo/gone.test:15008 (1)"


def test_a_service_counts_healthy_endpoints_of_all() -> None:
    web = service(
        "demo/web.test",
        "10.96.0.1",
        cidr_vips=(NetworkCidr("net1", "10.97.0.0", 16),),
        ports={80: 8080, 443: 0},
        port_names=(("http", 80),),
        load_balancer=LoadBalancer(
            (Scope.NETWORK, Scope.REGION),
            BalancerMode.FAILOVER,
            session_affinity=SessionAffinity.CLIENT_IP,
        ),
        visibility=Visibility.NAMESPACE,
        subject_alt_names=("spiffe://cluster.local/ns/demo/sa/web",),
    )
    pods = [behind(workload(f"demo/pod{n}", f"10.0.0.{n}"), web) for n in (1, 2, 3)]
    row = service_rows(mesh(web, *pods[:2], replace(pods[2], status=Status.UNHEALTHY)))[0]
    assert row == {
        "namespace": "demo",
        "name": "web",
        "hostname": "web.test",
        "vip": ["10.96.0.1", "10.97.0.0/16"],
        "waypoint": "",
        "endpoints": "2/3",
        "ports": ["80:8080", "443:0"],
        "port_names": {"http": 80},
        "load_balancer": "Failover by Network/Region, ClientIP",
        "visibility": "Namespace",
        "canonical": False,
        "addresses": ["/10.96.0.1", "net1/10.97.0.0/16"],
        "waypoint_address": "",
        "subject_alt_names": ["spiffe://cluster.local/ns/demo/sa/web"],
    }


def test_policies_show_their_rules_and_who_selects_them() -> None:
    match = Match(
        namespaces=(StringMatch(StringKind.EXACT, "shop"), StringMatch(StringKind.PRESENCE)),
        not_service_accounts=(ServiceAccountMatch("demo", "a"),),
        source_ips=(IpBlock("10.0.0.0", 8),),
        destination_ports=(80,),
    )
    selected = Authorization("b", "demo", PolicyScope.WORKLOAD_SELECTOR, Action.DENY, (((match,), ()), ()))
    wide = Authorization("a", "demo", dry_run=True, defect="a key is not known")
    pods = [workload(f"demo/pod{n}", authorization_policies=("demo/b",)) for n in (1, 2)]
    first, second = policy_rows(mesh(selected, wide, *pods))
    assert first == {
        "namespace": "demo",
        "name": "a",
        "action": "Allow",
        "scope": "Namespace",
        "dry_run": True,
        "rules_count": 0,
        "selected_by": None,
        "defect": "a key is not known",
        "rules": [],
    }
    assert (second["action"], second["scope"], second["selected_by"], second["rules_count"]) == (
        *("Deny", "WorkloadSelector"),
        *(2, 2),
    )
    conditions = {
        "namespaces": ["shop", "*"],
        "not_service_accounts": ["demo/a"],
        "source_ips": ["10.0.0.0/8"],
        "destination_ports": [80],
    }
    assert second["rules"] == [[[conditions], []], []]
    assert json.loads(json.dumps(second)) == second
