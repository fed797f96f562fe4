"""The access log's part of claim 3, against lines of which one says otherwise."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.lab.healthy import (
    CLIENT_ID,
    SERVER_ID,
    access,
    client_pod,
    healthy,
    server_pod,
)
from zproxy.lab import claim_log
from zproxy.lab.claim_path import prove_tunnels
from zproxy.lab.logs import AccessLine

OTHER_ID = "spiffe://cluster.local/ns/demo/sa/other"


def test_both_ends_have_a_line_for_each_connection_and_show_one() -> None:
    seen = healthy()
    assert list(claim_log.against(seen)) == []
    client, server = claim_log.evidence(seen)
    assert client.command == "grep access /run/zproxy/lab/node-a.log"
    assert client.lines[0] == (
        f"src.addr=10.244.1.5:38830 src.identity={CLIENT_ID} dst.addr=10.244.2.5:15008 "
        f"dst.hbone_addr=10.244.2.5:8080 dst.identity={SERVER_ID} "
        "direction=outbound bytes_sent=80 bytes_recv=300"
    )
    assert client.lines[1:] == ("and 8 more connections",)
    assert "direction=inbound bytes_sent=300 bytes_recv=80" in server.lines[0]


def test_the_line_of_an_answer_is_found_by_the_apps_own_address() -> None:
    seen = healthy()
    line = claim_log.line_of(seen, seen.called[1])
    assert line is not None
    assert line.get("dst.service") == "server.demo.svc.cluster.local"
    assert claim_log.line_of(healthy(source=client_pod(access=())), seen.called[1]) is None


def _source(**fields: str) -> dict[str, Any]:
    return {"source": client_pod(access=_changed(access("outbound"), fields))}


def _target(**fields: str) -> dict[str, Any]:
    return {"target": server_pod(access=_changed(access("inbound"), fields))}


def _changed(lines: tuple[AccessLine, ...], fields: dict[str, str]) -> tuple[AccessLine, ...]:
    changes = {name.replace("_", ".", 1): value for name, value in fields.items()}
    for exact in ("bytes_sent", "bytes_recv"):
        if exact in fields:
            changes[exact] = changes.pop(exact.replace("_", ".", 1))
    return (lines[0]._replace(fields={**lines[0].fields, **changes}), *lines[1:])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"source": client_pod(access=access("outbound")[1:])}, "has no line of the connection from"),
        ({"target": server_pod(access=access("inbound")[1:])}, "node-b has no line that agrees"),
        (_source(src_identity=OTHER_ID), f"node-a names '{OTHER_ID}' and '{SERVER_ID}': not these pods"),
        (_source(dst_identity=""), "node-a names"),
        (_target(dst_identity=OTHER_ID), f"node-b names '{CLIENT_ID}' and '{OTHER_ID}': not these pods"),
        (_source(dst_addr="172.18.0.4:15008"), "dst.addr=172.18.0.4:15008, not 10.244.2.5:15008"),
        (_source(dst_hbone_addr="10.244.2.5:9"), "dst.hbone_addr=10.244.2.5:9, which nobody asked for"),
        (_source(error="it broke"), "node-a has the error 'it broke'"),
        (_target(bytes_recv="79"), "sent 80 and received 300 bytes by the log of node-a"),
        (_target(bytes_sent="80", bytes_recv="300"), "node-b has no line that agrees"),
        (_target(src_workload="stranger"), "node-b has no line that agrees"),
        ({"source": client_pod(identities=())}, f"node-a has no valid certificate for {CLIENT_ID}"),
        ({"target": server_pod(identities=(CLIENT_ID,))}, f"no valid certificate for {SERVER_ID}"),
    ],
)
def test_claim_3_falls_when(changes: dict[str, Any], sentence: str) -> None:
    proof = prove_tunnels(healthy(**changes))
    assert any(sentence in against for against in proof.against), proof.against


def test_connections_of_others_to_the_same_pod_are_no_matter() -> None:
    stranger = _changed(access("inbound"), {"src_workload": "stranger", "src_identity": OTHER_ID})[0]
    seen = healthy(target=server_pod(access=(*access("inbound"), stranger)))
    assert list(claim_log.against(seen)) == []


def test_a_log_that_is_no_file_is_said_and_not_judged() -> None:
    seen = healthy()
    seen = replace(seen, source=replace(seen.source, log="", access=()))
    assert list(claim_log.against(seen)) == []
    assert claim_log.evidence(seen)[0].lines == ("(goes to no file, so it is not looked at)",)
