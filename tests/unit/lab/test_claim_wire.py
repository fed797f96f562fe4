"""Claims 4 and 5 against an observation in which one thing is otherwise."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.lab import healthy as made
from tests.unit.lab.healthy import (
    CLIENT_IP,
    OUTER,
    PEER,
    SERVER_IP,
    client_pod,
    healthy,
    listener,
    packet,
    server_pod,
)
from zproxy.lab.claim_wire import prove_datagrams, prove_stream
from zproxy.lab.evidence.capture import Captured
from zproxy.lab.evidence.firewall import Rules
from zproxy.lab.evidence.links import Link
from zproxy.lab.evidence.packets import TCP, UDP, Packet
from zproxy.lab.traffic import Datagram
from zproxy.model.addr import Endpoint


def _source(**changes: Any) -> dict[str, Any]:
    return {"source": replace(client_pod(), **changes)}


def _extra(*extra: Packet) -> dict[str, Any]:
    return _source(captured=Captured((*client_pod().captured.packets, *extra), 0))


def _without(is_wanted: Any) -> dict[str, Any]:
    return _source(captured=Captured(tuple(p for p in client_pod().captured.packets if is_wanted(p)), 0))


SPLIT = (
    packet(Endpoint(CLIENT_IP, 5), Endpoint(SERVER_IP, 9), b"..marker-5", sequence=10),
    packet(Endpoint(CLIENT_IP, 5), Endpoint(SERVER_IP, 9), b"f3a..", sequence=20),
)
ENDS = Endpoint(CLIENT_IP, 0), Endpoint(SERVER_IP, 0)


def test_claim_4_holds_on_a_healthy_mesh() -> None:
    proof = prove_stream(healthy())
    assert proof.holds, proof.against
    lines = [line for item in proof.evidence for line in item.lines]
    assert (
        f"{OUTER} > {PEER}: TLS records: 2 application_data, 1 handshake; bytes outside of records: 0"
        in lines
    )
    assert "on the wire of both pods: 0 times" in lines
    assert "on loopback in demo/client, between app and straw: 5 times" in lines
    assert "eth0  UP  veth" in lines


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (_source(links=(Link("vx0", "vxlan", True),)), "demo/client has the tunnel device vx0 (vxlan)"),
        (_source(rules=Rules(3, 0, 1)), "1 packet-filter rules redirect traffic inside demo/client"),
        (_source(rules=Rules(0, 0, 0, "tables nat exist")), "could not be counted: tables nat exist"),
        (_extra(packet(*ENDS, b"inner", protocol=47)), "packets between the pods are GRE"),
        (
            _extra(packet(ENDS[0], Endpoint(SERVER_IP, 4789), b"inner", protocol=UDP)),
            "packets between the pods are VXLAN",
        ),
        (_extra(packet(OUTER, PEER, b"GET / HTTP/1.1", sequence=1472)), "bytes from 10.244.1.5:44224 to"),
        (_extra(*SPLIT), "1 pieces of the payload crossed the wire in the clear"),
        (
            _extra(packet(*ENDS, made.answers()[0].body, protocol=UDP)),
            "pieces of the payload crossed the wire",
        ),
        (_without(lambda p: p.interface != "lo"), "the payload was not even seen on loopback"),
        (_without(lambda p: p.src != PEER), "no HBONE connection in both directions"),
        (
            _without(lambda p: p.src != PEER or not p.payload),
            "no TLS application data went from 10.244.2.5:15008",
        ),
        ({"target": replace(server_pod(), captured=Captured((), 9))}, "lost 9 packets"),
        (
            {
                "target": replace(
                    server_pod(), captured=Captured((packet(*ENDS, made.MARKER, protocol=TCP),), 0)
                )
            },
            "pieces of the payload crossed the wire",
        ),
    ],
)
def test_claim_4_falls_when(changes: dict[str, Any], sentence: str) -> None:
    proof = prove_stream(healthy(**changes))
    assert not proof.holds
    assert any(sentence in against for against in proof.against), proof.against


def test_a_tunnel_device_that_is_down_carries_nothing() -> None:
    proof = prove_stream(healthy(**_source(links=(Link("sit0", "sit", False), Link("eth0", "veth", True)))))
    assert proof.holds, proof.against


def test_rules_that_do_not_redirect_are_the_pods_own_business() -> None:
    proof = prove_stream(healthy(**_source(rules=Rules(4, 2, 0))))
    assert proof.holds, proof.against


def test_claim_5_holds_on_a_healthy_mesh() -> None:
    proof = prove_datagrams(healthy())
    assert proof.holds, proof.against
    lines = [line for item in proof.evidence for line in item.lines]
    assert f"IP {CLIENT_IP}.40000 > {SERVER_IP}.50000: UDP, length 13: datagram-0c77" in lines
    assert "it left in the clear and arrived" in lines


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (_source(udp=(listener(15008, 1029, "udp"),)), "the daemon (pid 1029) has the UDP socket [::]:15008"),
        (_source(listeners=()), "no TCP listener is on 15001 inside demo/client"),
        (
            _source(listeners=made.client_pod().listeners[:3]),
            "no TCP listener is on 15053 inside demo/client",
        ),
        (_source(udp=()), "no UDP socket is on 15053 inside demo/client, where its DNS goes"),
        (
            _source(udp=(listener(15053, 4711, "udp"),)),
            "UDP 15053 inside demo/client belongs to pids [4711], not to the daemon",
        ),
        (_without(lambda p: p.protocol != UDP), "was not seen leaving as it was sent"),
        (
            {"datagram": Datagram(made.datagram_packet().src, made.datagram_packet().dst, b"other", True)},
            "was not seen leaving as it was sent",
        ),
    ],
)
def test_claim_5_falls_when(changes: dict[str, Any], sentence: str) -> None:
    proof = prove_datagrams(healthy(**changes))
    assert not proof.holds
    assert any(sentence in against for against in proof.against), proof.against


def test_an_apps_own_udp_socket_is_no_evidence_against_the_proxy() -> None:
    own = (*made.client_pod().udp, listener(53, 4711, "udp"))
    assert prove_datagrams(healthy(**_source(udp=own))).holds


def test_a_pod_whose_dns_is_its_own_needs_no_dns_listener() -> None:
    row = made.client_pod().row._replace(dns=False)
    listeners = made.client_pod().listeners[:3]
    proof = prove_datagrams(healthy(**_source(row=row, udp=(), listeners=listeners)))
    assert proof.holds, proof.against
