"""Inbound decisions: one table, row = authority and the answer; the order of the checks is ztunnel's."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.mesh import behind, mesh, service, workload
from zproxy.model import ports
from zproxy.model.addr import Endpoint
from zproxy.model.service import (
    GatewayAddress,
    NamespacedHostname,
    NetworkAddress,
    NetworkCidr,
    Service,
    WeightedWaypoint,
)
from zproxy.model.settings import Compat, Settings
from zproxy.model.workload import ApplicationTunnel, AppProtocol, ServicePort, Status, Workload
from zproxy.state.inbound import Admit, Reject, admit
from zproxy.state.trace import Trace

SERVER = workload("demo/server", "10.244.2.5", "fd00:244:2::5")
CLIENT = workload("demo/client", "10.244.1.5")
MESH = mesh(SERVER, CLIENT)
V4, V6 = Endpoint("10.244.2.5", 15008), Endpoint("fd00:244:2::5", 15008)


@pytest.mark.parametrize(
    ("dst", "authority", "target"),
    [
        (V4, "10.244.2.5:8080", Endpoint("10.244.2.5", 8080)),
        (V4, "[::ffff:10.244.2.5]:8080", Endpoint("10.244.2.5", 8080)),
        (V6, "[fd00:244:2::5]:8080", Endpoint("fd00:244:2::5", 8080)),
        (V6, "[FD00:244:2:0::5]:1", Endpoint("fd00:244:2::5", 1)),
        (V4, "10.244.2.5:65535", Endpoint("10.244.2.5", 65535)),
    ],
)
def test_a_port_of_this_pod_is_admitted(dst: Endpoint, authority: str, target: Endpoint) -> None:
    assert admit(MESH, SERVER, dst, authority) == Admit(target, target)


@pytest.mark.parametrize(
    ("dst", "authority", "status", "reason"),
    [
        (V4, "", 400, "invalid CONNECT address: ''"),
        (V4, "10.244.2.5", 400, "invalid CONNECT address: '10.244.2.5'"),
        (V4, "10.244.2.5:", 400, "invalid CONNECT address"),
        (V4, "10.244.2.5:0", 400, "invalid CONNECT address"),
        (V4, "10.244.2.5:65536", 400, "invalid CONNECT address"),
        (V4, "10.244.2.5:99999999999", 400, "invalid CONNECT address"),
        (V4, "server:http", 400, "invalid CONNECT address"),
        (V4, "server:0", 400, "invalid CONNECT address"),
        (V4, "user@10.244.2.5:80", 400, "invalid CONNECT address"),
        (V4, "http://10.244.2.5:80", 400, "invalid CONNECT address"),
        (V4, "10.244.2.5:80/path", 400, "invalid CONNECT address"),
        (V4, " 10.244.2.5:80", 400, "invalid CONNECT address"),
        (V4, "fd00:244:2::5:80", 400, "invalid CONNECT address"),
        (V6, "[fd00:244:2::5%1]:80", 400, "invalid CONNECT address"),
        (V4, "[10.244.2.5]:80", 400, "invalid CONNECT address"),
        (V4, "-server:80", 400, "invalid CONNECT address"),
        (V4, "a" * 254 + ":80", 400, "invalid CONNECT address"),
        (V4, "10.244.1.5:8080", 400, "ip mismatch: 10.244.2.5 != 10.244.1.5"),
        (V4, "127.0.0.1:8080", 400, "ip mismatch: 10.244.2.5 != 127.0.0.1"),
        (V4, "[fd00:244:2::5]:8080", 400, "ip mismatch: 10.244.2.5 != fd00:244:2::5"),
        (V4, "10.244.1.5:15008", 400, "ip mismatch"),
        (V4, "server:8080", 503, "no service or workload for hostname: 'server:8080'"),
        (V4, "server.demo.svc.cluster.local:80", 503, "no service or workload for hostname"),
        (V4, "server.demo.svc.cluster.local.:80", 503, "no service or workload for hostname"),
        (V4, "a" * 253 + ":80", 503, "no service or workload for hostname"),
        (V4, "server:15008", 503, "no service or workload for hostname"),
        (V4, "10.244.2.5:15001", 503, "attempted recursive call to ourselves"),
        (V4, "10.244.2.5:15006", 503, "attempted recursive call to ourselves"),
        (V4, "10.244.2.5:15008", 503, "attempted recursive call to ourselves"),
        (V6, "[fd00:244:2::5]:15008", 503, "attempted recursive call to ourselves"),
    ],
)
def test_everything_else_is_rejected(dst: Endpoint, authority: str, status: int, reason: str) -> None:
    decision = admit(MESH, SERVER, dst, authority)
    assert isinstance(decision, Reject)
    assert decision.status == status
    assert reason in decision.reason


def test_a_long_authority_does_not_fill_the_log() -> None:
    decision = admit(MESH, SERVER, V4, "x" * 60_000)
    assert isinstance(decision, Reject)
    assert len(decision.reason) < 200


@given(st.text(max_size=300))
def test_whatever_a_peer_sends_only_its_own_pod_is_reached(authority: str) -> None:
    decision = admit(MESH, SERVER, V4, authority)
    if isinstance(decision, Admit):
        assert decision.target.ip == V4.ip
        assert decision.target.port not in ports.ILLEGAL
    else:
        assert decision.status in {400, 503}
        assert decision.reason.isprintable()
        assert len(decision.reason) < 1000


@given(st.integers(0, 70000))
def test_every_port_but_ours_is_admitted(port: int) -> None:
    is_admitted = isinstance(admit(MESH, SERVER, V4, f"10.244.2.5:{port}"), Admit)
    assert is_admitted == (0 < port < 65536 and port not in ports.ILLEGAL)


WEB = service("demo/web.demo.svc.cluster.local", "10.96.0.1", ports={80: 8080, 443: 0})
POD = replace(
    behind(SERVER, WEB),
    service_ports=(ServicePort(WEB.key, 80, 8080), ServicePort(WEB.key, 443, 9443)),
)
ELSEWHERE = service("demo/elsewhere.test", "10.96.0.2")
NAMED = workload("demo/named", "10.244.2.7", hostname="named.example.com")


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("web.demo.svc.cluster.local:80", Endpoint("10.244.2.5", 8080)),
        ("web.demo.svc.cluster.local:443", Endpoint("10.244.2.5", 9443)),
        ("WEB.demo.svc.cluster.local.:80", Endpoint("10.244.2.5", 8080)),
        ("web.demo.svc.cluster.local:81", 503),
        ("elsewhere.test:80", 400),
        ("named.example.com:80", 400),
        ("nobody.example.com:80", 503),
    ],
)
def test_names(authority: str, expected: Endpoint | int) -> None:
    decision = admit(mesh(WEB, POD, ELSEWHERE, NAMED), POD, V4, authority)
    if isinstance(expected, int):
        assert isinstance(decision, Reject)
        assert decision.status == expected
    else:
        assert isinstance(decision, Admit)
        assert decision.target == expected


def test_ztunnels_way_takes_every_name_that_has_a_port() -> None:
    settings = Settings(compat=Compat.ZTUNNEL)
    known = mesh(WEB, POD, ELSEWHERE, NAMED)
    for authority, port in (("elsewhere.test:80", 8080), ("named.example.com:80", 80)):
        decision = admit(known, POD, V4, authority, settings)
        assert isinstance(decision, Admit)
        assert decision.target == Endpoint("10.244.2.5", port)


def test_a_workloads_own_hostname_is_its_own() -> None:
    decision = admit(mesh(NAMED), NAMED, Endpoint("10.244.2.7", 15008), "named.example.com:81")
    assert decision == Admit(Endpoint("10.244.2.7", 81), Endpoint("10.244.2.7", 81))


# The rows of ztunnel's find_inbound_upstream and build_inbound_request: the waypoint is a pod, 10.10.0.9,
# with a service, 10.10.0.8; behind it are the workload 10.10.0.5 and the service 10.10.0.4.
WAYPOINT_SERVICE = service("demo/waypoint.test", "10.10.0.8", ports={15008: 15008})
WAYPOINT = behind(workload("demo/waypoint", "10.10.0.9"), WAYPOINT_SERVICE)
AT_WAYPOINT = Endpoint("10.10.0.9", 15008)
TARGET = workload("demo/target", "10.10.0.5")
TARGET_SERVICE = service("demo/target.test", "10.10.0.4", ports={80: 80})
BY_POD = GatewayAddress(NetworkAddress("", "10.10.0.9"))
BY_VIP = GatewayAddress(NetworkAddress("", "10.10.0.8"))
BY_NAME = GatewayAddress(NamespacedHostname("demo", "waypoint.test"))
PROXIED = replace(WAYPOINT, application_tunnel=ApplicationTunnel(AppProtocol.PROXY, 15088))
PLAIN_TUNNEL = replace(WAYPOINT, application_tunnel=ApplicationTunnel(AppProtocol.NONE, 15088))
HERE = Endpoint("10.10.0.9", 80)
LOOPBACK = Endpoint("127.0.0.1", 15088)
TUNNELLED = Endpoint("10.10.0.9", 15088)
Record = Workload | Service


def guarded(by: GatewayAddress) -> tuple[Record, Service]:
    """The workload and the service, both behind a waypoint."""
    return replace(TARGET, waypoint=by), replace(TARGET_SERVICE, waypoint=by)


VIP_SERVICE = guarded(BY_VIP)[1]
TO_WORKLOAD, TO_SERVICE = Endpoint("10.10.0.5", 80), Endpoint("10.10.0.4", 80)
OUTSIDE = Endpoint("192.0.2.1", 80)
ROWS: dict[str, tuple[tuple[Record, ...], str, Admit | int]] = {
    "itself": ((WAYPOINT,), "10.10.0.9:80", Admit(HERE, HERE)),
    "workload, by pod IP": ((WAYPOINT, *guarded(BY_POD)), "10.10.0.5:80", Admit(HERE, HERE)),
    "workload, by VIP": ((WAYPOINT, *guarded(BY_VIP)), "10.10.0.5:80", Admit(HERE, HERE)),
    "workload, by name": ((WAYPOINT, *guarded(BY_NAME)), "10.10.0.5:80", Admit(HERE, HERE)),
    "service, by pod IP": (
        (WAYPOINT, *guarded(BY_POD)),
        "10.10.0.4:80",
        Admit(HERE, HERE, guarded(BY_POD)[1]),
    ),
    "service, by VIP": ((WAYPOINT, *guarded(BY_VIP)), "10.10.0.4:80", Admit(HERE, HERE, VIP_SERVICE)),
    "service, asked for by name": (
        (WAYPOINT, *guarded(BY_VIP)),
        "target.test:80",
        Admit(HERE, HERE, VIP_SERVICE),
    ),
    "application tunnel, workload": (
        (PROXIED, *guarded(BY_VIP)),
        "10.10.0.5:80",
        Admit(TUNNELLED, LOOPBACK, None, TO_WORKLOAD),
    ),
    "application tunnel, service": (
        (PROXIED, *guarded(BY_VIP)),
        "10.10.0.4:80",
        Admit(TUNNELLED, LOOPBACK, VIP_SERVICE, TO_SERVICE),
    ),
    "application tunnel, name": (
        (PROXIED, *guarded(BY_VIP)),
        "target.test:80",
        Admit(TUNNELLED, LOOPBACK, VIP_SERVICE, TO_SERVICE),
    ),
    "application tunnel without a header": (
        (PLAIN_TUNNEL, *guarded(BY_VIP)),
        "10.10.0.5:80",
        Admit(TUNNELLED, TUNNELLED),
    ),
    "application tunnel, anything": (
        (PROXIED,),
        "192.0.2.1:80",
        Admit(TUNNELLED, LOOPBACK, None, OUTSIDE),
    ),
    "a workload that is not behind it": ((WAYPOINT, TARGET, TARGET_SERVICE), "10.10.0.5:80", 400),
    "a service that is not behind it": ((WAYPOINT, TARGET, TARGET_SERVICE), "10.10.0.4:80", 400),
    "a workload whose service is behind it": (
        (WAYPOINT, TARGET, replace(TARGET_SERVICE, waypoint=BY_POD)),
        "10.10.0.5:80",
        400,
    ),
    "a service whose workload is behind it": (
        (WAYPOINT, replace(TARGET, waypoint=BY_POD), TARGET_SERVICE),
        "10.10.0.4:80",
        400,
    ),
    "nobody": ((WAYPOINT, *guarded(BY_POD)), "10.10.0.6:80", 400),
}


@pytest.mark.parametrize(("records", "authority", "expected"), ROWS.values(), ids=ROWS)
def test_waypoints(records: tuple[Record, ...], authority: str, expected: Admit | int) -> None:
    known = mesh(WAYPOINT_SERVICE, *records)
    local = known.by_pod("demo/waypoint")
    assert local is not None
    decision = admit(known, local, AT_WAYPOINT, authority)
    if isinstance(expected, int):
        assert isinstance(decision, Reject)
        assert decision.status == expected
    else:
        assert decision == expected


@pytest.mark.parametrize(("ip", "is_of_it"), [("10.10.0.5", False), ("10.10.0.77", True)])
def test_what_a_tunnel_takes_for_a_pod_is_not_of_the_range_around_it(ip: str, is_of_it: bool) -> None:
    around = replace(service("demo/around.test"), cidr_vips=(NetworkCidr("", "10.10.0.0", 16),))
    gate = replace(WAYPOINT, application_tunnel=ApplicationTunnel(AppProtocol.PROXY, 15088))
    found = admit(mesh(gate, TARGET, around), gate, AT_WAYPOINT, f"{ip}:80")
    assert isinstance(found, Admit)
    assert found.service == (around if is_of_it else None)


@pytest.mark.parametrize("authority", ["10.10.0.5:80", "10.10.0.4:80"])
def test_a_waypoint_that_is_unhealthy_is_one_all_the_same(authority: str) -> None:
    sick = replace(WAYPOINT, status=Status.UNHEALTHY)
    known = mesh(WAYPOINT_SERVICE, sick, *guarded(BY_NAME))
    assert isinstance(admit(known, sick, AT_WAYPOINT, authority), Admit)


def test_a_waypoint_among_several_with_weights_is_one_too() -> None:
    shared = replace(TARGET_SERVICE, weighted_waypoints=(WeightedWaypoint(BY_NAME, 1),))
    known = mesh(WAYPOINT_SERVICE, WAYPOINT, shared)
    assert isinstance(admit(known, WAYPOINT, AT_WAYPOINT, "10.10.0.4:80"), Admit)


@pytest.mark.parametrize("authority", ["10.10.0.5:15008", "10.10.0.9:15006"])
def test_an_application_tunnel_is_no_way_to_our_own_ports(authority: str) -> None:
    decision = admit(mesh(PROXIED), PROXIED, AT_WAYPOINT, authority)
    assert isinstance(decision, Reject)
    assert decision.status == 503
    loop = replace(WAYPOINT, application_tunnel=ApplicationTunnel(AppProtocol.PROXY, 15001))
    assert isinstance(admit(mesh(loop), loop, AT_WAYPOINT, "10.10.0.9:80"), Reject)


def test_over_ipv6_the_tunnel_is_the_loopback_of_ipv6() -> None:
    pod = replace(PROXIED, workload_ips=("fd00::9",))
    decision = admit(mesh(pod), pod, Endpoint("fd00::9", 15008), "[fd00::5]:80")
    assert isinstance(decision, Admit)
    assert decision.dial == Endpoint("::1", 15088)


def test_the_trace_says_what_was_checked() -> None:
    trace = Trace()
    known = mesh(WAYPOINT_SERVICE, WAYPOINT, *guarded(BY_POD))
    admit(known, WAYPOINT, AT_WAYPOINT, "10.10.0.5:80", trace=trace)
    assert [(step.subject, step.outcome) for step in trace.steps] == [
        ("waypoint", "its own"), ("authority", "accepted"),
    ]  # fmt: skip
