"""Claims 2 and 3 against an observation in which one thing is otherwise."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.lab import healthy as made
from tests.unit.lab.healthy import (
    CLIENT_IP,
    NODE_B,
    OUTER,
    PEER,
    SERVER_IP,
    client_pod,
    healthy,
    packet,
    server_pod,
)
from zproxy.lab.claim_path import prove_endpoints, prove_tunnels
from zproxy.lab.evidence.capture import Captured
from zproxy.lab.evidence.packets import Packet
from zproxy.model.addr import Endpoint


def _source(**changes: Any) -> dict[str, Any]:
    return {"source": replace(client_pod(), **changes)}


def _captured(*extra: Packet, lost: int = 0) -> Captured:
    return Captured((*client_pod().captured.packets, *extra), lost)


def _answer(**changes: Any) -> dict[str, Any]:
    first, *others = made.answers()
    return {"answers": (first._replace(**changes), *others)}


LOCAL_ONLY = Captured(made.loopback(Endpoint(CLIENT_IP, 15001)), 0)
OTHER_CLIENT = Captured(
    tuple(
        p._replace(src=Endpoint("127.0.0.6", p.src.port)) if p.interface == "lo" else p
        for p in server_pod().captured.packets
    ),
    0,
)


def test_claim_2_holds_on_a_healthy_mesh() -> None:
    proof = prove_endpoints(healthy())
    assert proof.holds, proof.against
    lines = [line for item in proof.evidence for line in item.lines]
    assert f"IP {CLIENT_IP}.44224 > {SERVER_IP}.15008: 3 packets, 475 bytes" in lines
    assert "5 connections to the app from 10.244.1.5" in lines
    assert '{"origin": "10.244.1.5:38830", ...}' in lines


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (_source(captured=LOCAL_ONLY), "no packet went from 10.244.1.5 to 10.244.2.5:15008"),
        (_source(captured=_captured(packet(OUTER, Endpoint(NODE_B, 15008)))), "has an address of node-b"),
        (_source(captured=_captured(packet(OUTER, Endpoint(SERVER_IP, 8080)))), "straight to the app's port"),
        (_source(captured=_captured(lost=3)), "the capture lost packets"),
        (_answer(body=b'{"origin": "172.18.0.3:999"}'), "the app saw 172.18.0.3 as its peer"),
        (_answer(status=0, error="curl: (7) refused"), "failed: curl: (7) refused"),
        ({"target": replace(server_pod(), captured=OTHER_CLIENT)}, "the app was dialled by 127.0.0.6"),
    ],
)
def test_claim_2_falls_when(changes: dict[str, Any], sentence: str) -> None:
    proof = prove_endpoints(healthy(**changes))
    assert not proof.holds
    assert any(sentence in against for against in proof.against), proof.against


def test_claim_2_does_not_need_an_app_that_tells_its_peer() -> None:
    proof = prove_endpoints(healthy(answers=tuple(a._replace(body=b"<html>") for a in made.answers())))
    assert proof.holds, proof.against


def test_claim_3_holds_on_a_healthy_mesh() -> None:
    proof = prove_tunnels(healthy())
    assert proof.holds, proof.against
    lines = [line for item in proof.evidence for line in item.lines]
    assert f"tunnel 7: {OUTER} > {PEER} TLSv1.3 h2, 5 streams in this run" in lines
    assert f"pool key {{{made.CLIENT_ID}, {made.SERVER_ID}, {CLIENT_IP}, {PEER}}}" in lines
    assert f"outer connection {OUTER} > {PEER}" in lines
    assert len([line for line in lines if "dst.hbone_addr=10.244.2.5:8081" in line]) == 1


def _rows(**changes: Any) -> dict[str, Any]:
    first, *others = made.connections()
    return _source(connections=(first._replace(**changes), *others))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (_source(connections=made.connections()[1:]), "has no record of a connection from 10.244.1.5:38830"),
        (_rows(tunnel=0), "was not carried by a tunnel"),
        (_rows(direction="inbound"), "has no record of a connection"),
        (_source(connections=made.connections()[:4]), "no stream had the authority 10.244.2.5:8081"),
        (
            _rows(tunnel=8)
            | {"source": replace(_rows(tunnel=8)["source"], tunnels=(made.tunnel(), made.tunnel(id=8)))},
            "the connections used 2 tunnels",
        ),
        (_source(tunnels=()), "the connections used 0 tunnels"),
        (_source(captured=_captured(packet(Endpoint(CLIENT_IP, 44999), PEER))), "2 outer connections"),
        (_source(captured=LOCAL_ONLY), "0 outer connections"),
        (_source(tunnels=(made.tunnel(dst_identity=made.CLIENT_ID),)), "not these pods"),
        (_source(tunnels=(made.tunnel(local="10.244.1.5:1"),)), "where the wire shows nothing"),
        (_source(tunnels=(made.tunnel(streams_total=3),)), "fewer new streams"),
        (_rows(dst_identity="spiffe://cluster.local/ns/demo/sa/other"), "carried 2 pairs of identities"),
        ({"target": replace(server_pod(), tunnels=())}, "node-b does not know the other end of tunnel 7"),
        ({"ports": (8080,)}, "only one app port was asked"),
    ],
)
def test_claim_3_falls_when(changes: dict[str, Any], sentence: str) -> None:
    proof = prove_tunnels(healthy(**changes))
    assert not proof.holds
    assert any(sentence in against for against in proof.against), proof.against
