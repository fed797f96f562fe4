"""Inbound decisions: one table, row = authority and the answer; the order of the checks is ztunnel's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zproxy.model import ports
from zproxy.model.addr import Endpoint
from zproxy.state.inbound import Admit, Reject, admit

V4, V6 = Endpoint("10.244.2.5", 15008), Endpoint("fd00:244:2::5", 15008)


@pytest.mark.parametrize(
    ("dst", "authority", "target"),
    [
        (V4, "10.244.2.5:8080", Endpoint("10.244.2.5", 8080)),
        (V4, "[::ffff:10.244.2.5]:8080", Endpoint("10.244.2.5", 8080)),
        (V6, "[fd00:244:2::5]:8080", Endpoint("fd00:244:2::5", 8080)),
        (V6, "[FD00:244:2:0::5]:1", Endpoint("fd00:244:2::5", 1)),
        (V4, "10.244.2.5:65535", Endpoint("10.244.2.5", 65535)),
        (V4, "10.244.2.5:15053", Endpoint("10.244.2.5", 15053)),
    ],
)
def test_a_port_of_this_pod_is_admitted(dst: Endpoint, authority: str, target: Endpoint) -> None:
    assert admit(dst, authority) == Admit(target)


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
    decision = admit(dst, authority)
    assert isinstance(decision, Reject)
    assert decision.status == status
    assert reason in decision.reason


def test_a_long_authority_does_not_fill_the_log() -> None:
    decision = admit(V4, "x" * 60_000)
    assert isinstance(decision, Reject)
    assert len(decision.reason) < 200


@given(st.text(max_size=300))
def test_whatever_a_peer_sends_only_its_own_pod_is_reached(authority: str) -> None:
    decision = admit(V4, authority)
    if isinstance(decision, Admit):
        assert decision.target.ip == V4.ip
        assert decision.target.port not in ports.ILLEGAL
    else:
        assert decision.status in {400, 503}
        assert decision.reason.isprintable()
        assert len(decision.reason) < 1000


@given(st.integers(0, 70000))
def test_every_port_but_ours_is_admitted(port: int) -> None:
    is_admitted = isinstance(admit(V4, f"10.244.2.5:{port}"), Admit)
    assert is_admitted == (0 < port < 65536 and port not in ports.ILLEGAL)
