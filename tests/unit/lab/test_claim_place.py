"""Claim 1 against an observation in which one thing is otherwise."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.lab.healthy import HOST, client_pod, healthy, listener, server_pod
from zproxy.lab.claim_place import prove
from zproxy.lab.evidence.sockets import Owner


def test_claim_1_holds_on_a_healthy_mesh() -> None:
    proof = prove(healthy())
    assert proof.holds, proof.against
    lines = [line for item in proof.evidence for line in item.lines]
    assert 'LISTEN *:15001  users:(("zproxy",pid=1029,fd=21))' in lines
    assert sum(line.startswith("LISTEN") for line in lines) == 8


def _pods(**changes: Any) -> dict[str, Any]:
    return {"source": replace(client_pod(), **changes)}


FOREIGN = listener(15001, 1029)._replace(owners=(Owner(4711, "envoy", 9),))
DAEMON = client_pod().daemon


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            _pods(listeners=(listener(15001, 1029), listener(15008, 1029))),
            "nothing listens on 15006 inside demo/client",
        ),
        (
            _pods(listeners=(FOREIGN, *client_pod().listeners[1:])),
            "15001 inside demo/client belongs to pids [4711]",
        ),
        (_pods(listeners=(FOREIGN._replace(owners=()), *client_pod().listeners[1:])), "belongs to pids []"),
        (_pods(daemon=DAEMON._replace(netns=(4, 100))), "runs inside the namespace of demo/client"),
        (_pods(daemon=DAEMON._replace(netns=HOST.netns)), "runs in the host's namespace"),
        (_pods(netns=HOST.netns), "demo/client is in the host's namespace"),
        (_pods(outside=(listener(15001, 1029),)), "listens on 15001 outside any pod as well"),
        (_pods(steering=()), "no eBPF map knows demo/client"),
        (_pods(listeners=client_pod().listeners[:3]), "nothing listens on 15053 inside demo/client"),
        (
            _pods(listeners=(*client_pod().listeners[:3], listener(15053, 53))),
            "15053 inside demo/client belongs to pids [53]",
        ),
        ({"host": None}, "the host's namespace cannot be read"),
        ({"target": replace(server_pod(), listeners=())}, "nothing listens on 15008 inside demo/server"),
    ],
)
def test_claim_1_falls_when(changes: dict[str, Any], sentence: str) -> None:
    proof = prove(healthy(**changes))
    assert not proof.holds
    assert any(sentence in against for against in proof.against), proof.against
