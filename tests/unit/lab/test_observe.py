"""What one run measures, on two pods without a mesh: fakes answer for the daemons."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.netns import Namespace, pair
from zproxy.errors import EnrollError, ZproxyError
from zproxy.lab import observe as module
from zproxy.lab.observe import find, observe
from zproxy.lab.prove import judge
from zproxy.node.refused import Refused

pytestmark = pytest.mark.root


class FakeDaemon:
    """Answers with rows; this process is the daemon's."""

    def __init__(self, node: str, pods: dict[str, Namespace]) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {"connections": [], "tunnels": []}
        self.rows |= {"services": [], "workloads": [], "certs": []}
        self.rows["pods"] = [_row(node, pod, where) for pod, where in pods.items()]

    def call(self, command: str, **arguments: Any) -> Any:
        return self.rows[command]


def _row(node: str, pod: str, where: Namespace) -> dict[str, Any]:
    device, inode = where.netns.key
    path = where.netns.path
    return {
        "pod": pod,
        "node": node,
        "ips": list(where.ips),
        "netns": {"path": path, "dev": device, "inode": inode, "cookie": where.netns.cookie()},
        "identity": f"spiffe://cluster.local/ns/demo/sa/{pod}",
        "pid": os.getpid(),
        "dns": False,
    }


@pytest.fixture
def pods() -> Iterator[tuple[Namespace, Namespace]]:
    with pair() as both:
        yield both


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RECORDS_S", 0.1)


def _daemons(pods: tuple[Namespace, Namespace]) -> dict[str, FakeDaemon]:
    here, there = pods
    return {
        "node-a": FakeDaemon("node-a", {"demo/client": here}),
        "node-b": FakeDaemon("node-b", {"demo/server": there}),
    }


def test_without_a_mesh_everything_is_measured_and_nothing_proven(pods: tuple[Namespace, Namespace]) -> None:
    client, server = pods
    with client.listen(15001), server.listen(15008):
        seen = observe("demo/client", "demo/server", (8080,), _daemons(pods))
    assert seen.ports == (8080, 8081)
    assert [answer.status for answer in seen.answers] == [200] * 5
    assert (seen.source.address, seen.target.address) == (client.ip4, server.ip4)
    assert [entry.local.port for entry in seen.source.listeners] == [15001]
    assert [entry.local.port for entry in seen.target.listeners] == [8080, 8081, 15008]
    assert seen.datagram.arrived
    proofs = judge(seen)
    assert [proof.claim for proof in proofs if proof.holds] == []
    assert any("past the straw" in sentence for sentence in proofs[1].against)
    assert any("crossed the wire in the clear" in sentence for sentence in proofs[3].against)


def test_two_ports_are_asked_as_given_and_a_listening_one_is_not_replaced(
    pods: tuple[Namespace, Namespace],
) -> None:
    _, server = pods
    with server.listen(9000, backlog=8):
        taken, missing = module._choose_ports(server.netns, (9000, 9500))
        assert (taken, missing) == ((9000, 9500), (9500,))
        assert module._choose_ports(server.netns, (8999,)) == ((8999, 9001), (8999, 9001))


def test_ports_of_our_own_are_never_chosen(pods: tuple[Namespace, Namespace]) -> None:
    assert module._choose_ports(pods[1].netns, (15000,))[0] == (15000, 15002)


def test_ipv6_is_used_where_there_is_no_ipv4() -> None:
    with pair(v4=False) as pods:
        seen = observe("demo/client", "demo/server", (8080,), _daemons(pods))
        assert seen.source.address == pods[0].ip6
        assert all(answer.status == 200 for answer in seen.answers)


def test_records_that_come_late_are_waited_for(
    pods: tuple[Namespace, Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RECORDS_S", 5.0)
    daemons = _daemons(pods)
    calls: list[str] = []

    def late(command: str, **arguments: Any) -> Any:
        calls.append(command)
        return daemons["node-a"].rows[command] if calls.count(command) < 4 else rows

    rows: list[dict[str, Any]] = []
    original = module._ask

    def ask(*arguments: Any) -> Any:
        answers = original(*arguments)
        fields = dict.fromkeys(("dst", "hbone_addr", "src_identity", "dst_identity", "error", "state"), "")
        for number, answer in enumerate(answers):
            row = {
                "id": number,
                "pod": "demo/client",
                "direction": "outbound",
                "src": str(answer.local),
                "tunnel": 1,
            }
            rows.append(fields | row)
        return answers

    monkeypatch.setattr(module, "_ask", ask)
    monkeypatch.setattr(daemons["node-a"], "call", late)
    seen = observe("demo/client", "demo/server", (8080,), daemons)
    assert [row.src for row in seen.source.connections] == [str(answer.local) for answer in seen.answers]


def test_connections_from_before_the_run_are_left_out(pods: tuple[Namespace, Namespace]) -> None:
    daemons = _daemons(pods)
    fields = dict.fromkeys(("dst", "src", "hbone_addr", "src_identity", "dst_identity", "error", "state"), "")
    old = fields | {"id": 1, "pod": "demo/client", "direction": "outbound", "tunnel": 1}
    daemons["node-a"].rows["connections"] = [old]
    assert observe("demo/client", "demo/server", (8080,), daemons).source.connections == ()


def test_a_pod_that_is_refused_says_why(pods: tuple[Namespace, Namespace]) -> None:
    daemons = _daemons(pods)
    daemons["node-a"].rows["pods"] = [Refused("demo/client", "", 7, "port 15006 is in use").row("node-a")]
    with pytest.raises(EnrollError, match="demo/client is refused on node-a: port 15006 is in use"):
        find("demo/client", daemons)


def test_a_pod_that_is_not_enrolled_is_one_sentence(pods: tuple[Namespace, Namespace]) -> None:
    with pytest.raises(EnrollError, match="demo/x is not enrolled on node-a or node-b"):
        find("demo/x", _daemons(pods))
    with pytest.raises(EnrollError, match="no zproxy daemon runs on this machine"):
        find("demo/x", {})


def test_a_pod_cannot_prove_with_itself(pods: tuple[Namespace, Namespace]) -> None:
    with pytest.raises(ZproxyError, match="name two pods"):
        observe("demo/client", "demo/client", (8080,), _daemons(pods))


def test_another_namespace_under_the_same_path_is_not_the_pod(pods: tuple[Namespace, Namespace]) -> None:
    daemons = _daemons(pods)
    daemons["node-a"].rows["pods"][0]["netns"]["inode"] += 1
    with pytest.raises(ZproxyError, match="is not the namespace that demo/client was enrolled with"):
        observe("demo/client", "demo/server", (8080,), daemons)


def test_pods_without_a_common_family_are_said_to_have_none(pods: tuple[Namespace, Namespace]) -> None:
    daemons = _daemons(pods)
    daemons["node-a"].rows["pods"][0]["ips"] = [pods[0].ip4]
    daemons["node-b"].rows["pods"][0]["ips"] = [pods[1].ip6]
    with pytest.raises(ZproxyError, match="no address of the same family"):
        observe("demo/client", "demo/server", (8080,), daemons)


def test_no_socket_of_a_run_is_left(pods: tuple[Namespace, Namespace]) -> None:
    daemons = _daemons(pods)
    counts = []
    for _ in range(2):  # the first run opens what the fixture's own handles keep
        observe("demo/client", "demo/server", (8080,), daemons)
        counts.append(len(os.listdir("/proc/self/fd")))
    assert counts[0] == counts[1]
