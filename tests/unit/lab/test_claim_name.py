"""Claim 6 against an observation in which one thing is otherwise."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.lab.healthy import SERVICE, VIP, access, called, client_pod, healthy
from zproxy.lab.claim_name import prove
from zproxy.lab.proof import Proof
from zproxy.model.addr import Endpoint


def _prove(**changes: Any) -> Proof:
    return prove(healthy(**changes), SERVICE)


def test_claim_6_holds_by_address_and_by_each_name() -> None:
    proof = _prove()
    assert proof.holds, proof.against
    lines = [line for item in proof.evidence for line in item.lines]
    assert lines[0] == 'HTTP 200, "origin": "10.244.1.5"'
    assert [line.split(";")[0] for line in lines[1:]] == [
        f"{name} is {VIP}" for name in ("server", "server.demo", "server.demo.svc.cluster.local")
    ]
    assert "by address and by name" in proof.title


def _by_name(**changes: Any) -> dict[str, Any]:
    first, second, *rest = called()
    return {"called": (first, second._replace(**changes), *rest)}


def _without_service() -> dict[str, Any]:
    lines = [
        line._replace(fields={**line.fields, "dst.service": "other.demo.svc.cluster.local"})
        for line in access("outbound")
    ]
    return {"source": client_pod(access=tuple(lines))}


def _in_the_clear() -> dict[str, Any]:
    lines = [line._replace(fields={**line.fields, "dst.hbone_addr": ""}) for line in access("outbound")]
    return {"source": client_pod(access=tuple(lines))}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (_by_name(error="curl: (6) Could not resolve host: server", status=0), "Could not resolve host"),
        (_by_name(status=503), "was answered with 503"),
        (_by_name(remote=Endpoint("192.0.2.1", 80)), "server is 192.0.2.1 for demo/client, no address of"),
        (_by_name(body=b'{"origin": "10.244.1.9:1"}'), "the app saw 10.244.1.9 as its peer when server"),
        (_without_service(), "the log has dst.service='other.demo.svc.cluster.local' where server was asked"),
        (_in_the_clear(), "the connection to server was not carried by a tunnel"),
        ({"called": ()}, "no address of server.demo.svc.cluster.local was asked"),
    ],
)
def test_claim_6_falls_when(changes: dict[str, Any], sentence: str) -> None:
    proof = _prove(**changes)
    assert not proof.holds
    assert any(sentence in against for against in proof.against), proof.against


def test_a_pod_whose_names_are_not_the_meshs_is_asked_for_none() -> None:
    row = client_pod().row
    proof = _prove(called=called()[:1], source=client_pod(row=row._replace(dns=False)))
    assert proof.holds, proof.against
    assert "by name" not in proof.title
    assert len(proof.evidence) == 1


def test_a_pod_without_a_resolv_conf_is_said_to_have_none() -> None:
    seen = healthy(called=called()[:1])
    proof = prove(replace(seen), SERVICE)
    assert proof.evidence[-1].command == "ls /etc/netns/demo-client/resolv.conf"
    assert "no name is looked up inside demo/client" in proof.evidence[-1].lines[0]
