"""Outbound decisions: one table, row = destination and what becomes of it."""

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.mesh import mesh, workload
from zproxy.model import ports
from zproxy.model.addr import Endpoint, canonical_ip
from zproxy.model.route import Passthrough, Refuse, Upstream
from zproxy.model.settings import OutboundPolicy, Settings
from zproxy.model.workload import Protocol, Status, Workload
from zproxy.state.resolve import resolve
from zproxy.state.store import REMEMBERED, Change

CLIENT = workload("demo/client", "10.244.1.5", "fd00:244:1::5", node="a")
SERVER = workload("demo/server", "10.244.2.5", "fd00:244:2::5", node="b")
NEIGHBOUR = workload("demo/neighbour", "10.244.1.6", node="a")
SICK = workload("demo/sick", "10.244.2.6", status=Status.UNHEALTHY, trust_domain="other.domain")
PLAIN = workload("demo/plain", "10.244.2.7", protocol=Protocol.TCP)
ELSEWHERE = workload("demo/elsewhere", "10.244.2.8", network="net2")
MESH = mesh(CLIENT, SERVER, NEIGHBOUR, SICK, PLAIN, ELSEWHERE)


def _hbone(to: Workload, ip: str, port: int) -> Upstream:
    authority = str(Endpoint(ip, port))
    return Upstream(to, Endpoint(ip, 15008), authority, (str(to.identity),), port)


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        (
            "10.244.2.5:8080",
            _hbone(SERVER, "10.244.2.5", 8080),
        ),
        (
            "[fd00:244:2::5]:80",
            _hbone(SERVER, "fd00:244:2::5", 80),
        ),
        (
            "10.244.1.6:8080",
            _hbone(NEIGHBOUR, "10.244.1.6", 8080),
        ),
        (
            "10.244.1.5:8080",
            _hbone(CLIENT, "10.244.1.5", 8080),
        ),
        (
            "10.244.2.6:8080",
            _hbone(SICK, "10.244.2.6", 8080),
        ),
        (
            "10.244.2.7:8080",
            Upstream(PLAIN, Endpoint("10.244.2.7", 8080), "", (), 8080),
        ),
        ("10.244.2.8:8080", Passthrough(Endpoint("10.244.2.8", 8080))),
        ("192.0.2.1:443", Passthrough(Endpoint("192.0.2.1", 443))),
        ("192.0.2.1:15008", Passthrough(Endpoint("192.0.2.1", 15008))),
        ("127.0.0.1:8080", Passthrough(Endpoint("127.0.0.1", 8080))),
    ],
    ids=[
        "HBONE",
        "HBONE over IPv6",
        "same node takes the same route",
        "a pod that dials itself",
        "unhealthy but dialled by address",
        "plain TCP",
        "known on another network only",
        "unknown",
        "unknown, port 15008",
        "loopback",
    ],
)
def test_destinations(to: str, expected: object) -> None:
    assert resolve(MESH, CLIENT, Endpoint.parse(to)) == expected


@pytest.mark.parametrize("port", sorted(ports.ILLEGAL))
@pytest.mark.parametrize(
    "ip", ["10.244.2.5", "fd00:244:2::5", "10.244.2.7", "10.244.1.5", "127.0.0.1", "127.9.9.9", "::1"]
)
def test_our_own_ports_are_never_a_target(ip: str, port: int) -> None:
    decision = resolve(MESH, CLIENT, Endpoint(ip, port))
    assert isinstance(decision, Refuse)
    assert str(Endpoint(ip, port)) in decision.reason


def test_the_source_looks_on_its_own_network() -> None:
    source = workload("demo/x", "10.0.0.9", network="net2")
    decision = resolve(MESH, source, Endpoint("10.244.2.8", 80))
    assert isinstance(decision, Upstream)
    assert decision.workload is ELSEWHERE
    assert resolve(MESH, source, Endpoint("10.244.2.5", 80)) == Passthrough(Endpoint("10.244.2.5", 80))


@given(st.ip_addresses(), st.integers(1, 65535))
def test_only_members_get_the_mesh_and_identity_goes_with_15008(ip: object, port: int) -> None:
    to = Endpoint(canonical_ip(str(ip)), port)
    decision = resolve(MESH, CLIENT, to)
    if isinstance(decision, Upstream):
        assert to.ip in decision.workload.workload_ips
        assert decision.authority in {"", str(to)}
        assert bool(decision.identities) == bool(decision.authority) == (decision.address.port == 15008)
    elif isinstance(decision, Passthrough):
        assert decision.to == to
        assert MESH.by_ip(to.ip) is None
    else:
        assert port in ports.ILLEGAL or is_link_local6(to)


@pytest.mark.parametrize("to", ["192.0.2.1:443", "10.244.2.8:8080", "[2001:db8::1]:80"])
def test_registry_only_refuses_what_the_mesh_does_not_know(to: str) -> None:
    decision = resolve(MESH, CLIENT, Endpoint.parse(to), Settings(OutboundPolicy.REGISTRY_ONLY))
    assert decision == Refuse(f"{to} is no part of the mesh, and the outbound policy is registry_only", True)


@pytest.mark.parametrize("to", ["10.244.2.5:8080", "10.244.2.7:8080", "127.0.0.1:8080", "[::1]:8080"])
def test_registry_only_lets_pods_dial_workloads_and_themselves(to: str) -> None:
    endpoint = Endpoint.parse(to)
    assert resolve(MESH, CLIENT, endpoint, Settings(OutboundPolicy.REGISTRY_ONLY)) == resolve(
        MESH, CLIENT, endpoint
    )


@pytest.mark.parametrize("policy", list(OutboundPolicy))
def test_an_ipv6_link_local_address_is_refused(policy: OutboundPolicy) -> None:
    verdict = resolve(MESH, CLIENT, Endpoint("fe80::9", 80), Settings(policy))
    assert isinstance(verdict, Refuse)
    assert "[fe80::9]:80 is link-local" in verdict.reason


def test_an_ipv4_link_local_address_is_dialled() -> None:
    """It needs no link's number: a cloud's metadata service has one."""
    to = Endpoint("169.254.169.254", 80)
    assert resolve(MESH, CLIENT, to) == Passthrough(to)


def is_link_local6(to: Endpoint) -> bool:
    return to.is_v6 and ipaddress.ip_address(to.ip) in ipaddress.ip_network("fe80::/10")


def test_a_route_without_a_choice_is_remembered_for_as_long_as_the_snapshot_lives() -> None:
    here, there = workload("demo/here", "10.0.0.1"), workload("demo/there", "10.0.0.2")
    known, to, outside = mesh(here, there), Endpoint("10.0.0.2", 80), Endpoint("192.0.2.1", 80)
    for where in (to, outside):
        assert resolve(known, here, where) is resolve(known, here, where)
    strict = Settings(outbound_policy=OutboundPolicy.REGISTRY_ONLY)
    assert isinstance(resolve(known, here, outside, strict), Refuse)
    assert isinstance(resolve(known, here, outside), Passthrough)
    moved = known.changed(Change((replace(there, service_account="moved"),)))
    assert resolve(moved, here, to) != resolve(known, here, to)
    elsewhere = replace(here, network="net2")
    assert isinstance(resolve(known, elsewhere, to), Passthrough)


def test_what_is_remembered_is_bounded() -> None:
    here, there = workload("demo/here", "10.0.0.1"), workload("demo/there", "10.0.0.2")
    known = mesh(here, there)
    for port in range(1, 2 * REMEMBERED + 100):
        resolve(known, here, Endpoint("10.0.0.2", port))
    assert len(known.memo) <= REMEMBERED
    assert len(known.memo.older) <= REMEMBERED


def test_a_client_that_dials_everything_makes_nobody_else_s_route_be_forgotten() -> None:
    here, scanner, there = (workload(f"demo/w{number}", f"10.0.0.{number}") for number in (1, 2, 3))
    known, to = mesh(here, scanner, there), Endpoint("10.0.0.3", 80)
    route = resolve(known, here, to)
    for port in range(1, 3 * REMEMBERED):
        resolve(known, scanner, Endpoint("10.0.0.3", port))
        if port % 1000 == 0:
            assert resolve(known, here, to) is route
