"""Pods that istio-cni hands over, on a real manager: taken, moved, let go, taken up by the next daemon."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.netns import Namespace, pair
from tests.support.podstate import listening
from tests.support.steering import NODE, Bench, bench, open_files, pod_of
from zproxy.errors import EnrollError, SteeringError
from zproxy.net import namespaces
from zproxy.node.handed import HandedPods
from zproxy.state.store import Mesh

pytestmark = pytest.mark.root

PORTS = [15001, 15006, 15008, 15053]
CLIENT = ("demo", "client", "client")


class Node:
    """A node whose pods are handed over; the mesh knows nobody unless a test says so."""

    def __init__(self, made: Bench) -> None:
        self.bench = made
        self.pods = HandedPods(made.manager, lambda: made.mesh, "cluster.local")

    def take(self, uid: str, pod: Namespace, who: tuple[str, str, str] = CLIENT) -> None:
        asyncio.run(self.pods.take(uid, who, os.dup(pod.netns.fd)))

    def release(self, uid: str) -> None:
        asyncio.run(self.pods.release(uid))

    def known(self) -> list[str]:
        return sorted(asyncio.run(self.pods.known()))

    def rows(self) -> list[tuple[str, str]]:
        return [(row["pod"], row["state"]) for row in self.bench.manager.rows()]

    def restart(self) -> None:
        """End the daemon, and start the next one on the same records."""
        asyncio.run(self.bench.manager.close())
        self.bench.manager = self.bench.new_manager()
        self.pods = HandedPods(self.bench.manager, lambda: self.bench.mesh, "cluster.local")
        asyncio.run(self.bench.manager.restore())


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with bench(tmp_path) as made:
        yield Node(made)


@pytest.fixture
def pods() -> Iterator[tuple[Namespace, Namespace]]:
    with pair() as made:
        yield made


def test_a_pod_that_the_mesh_does_not_know_is_taken(node: Node, pods: tuple[Namespace, Namespace]) -> None:
    client, _ = pods
    node.take("uid-0", client)
    (row,) = node.bench.manager.rows()
    assert row["identity"] == "spiffe://cluster.local/ns/demo/sa/client"
    assert row["ips"] == list(client.ips)
    assert row["netns"]["path"] == f"/run/netns/{client.name}"
    assert listening(client) == PORTS
    assert node.known() == ["uid-0"]


def test_let_go_it_is_as_before_and_nothing_is_open(node: Node, pods: tuple[Namespace, Namespace]) -> None:
    client, _ = pods
    assert listening(client) == []
    before = open_files()
    node.take("uid-0", client)
    node.release("uid-0")
    assert (node.rows(), listening(client), open_files()) == ([], [], before)
    node.release("uid-0")


def test_taken_again_nothing_changes(node: Node, pods: tuple[Namespace, Namespace]) -> None:
    node.take("uid-0", pods[0])
    calls, files = len(node.bench.steering.calls), open_files()
    node.take("uid-0", pods[0])
    assert (len(node.bench.steering.calls), open_files()) == (calls, files)


def test_in_another_namespace_it_moves_there(node: Node, pods: tuple[Namespace, Namespace]) -> None:
    node.take("uid-0", pods[0])
    node.take("uid-0", pods[1])
    assert (listening(pods[0]), listening(pods[1])) == ([], PORTS)
    assert node.known() == ["uid-0"]


def test_the_end_of_a_pod_is_not_that_of_its_successor(node: Node, pods: tuple[Namespace, Namespace]) -> None:
    node.take("old", pods[0])
    node.take("new", pods[1])
    node.release("old")
    assert (node.known(), listening(pods[1])) == (["new"], PORTS)


def test_by_another_uid_it_is_the_same_pod(node: Node, pods: tuple[Namespace, Namespace]) -> None:
    node.take("old", pods[0])
    node.take("new", pods[0])
    node.restart()
    assert node.known() == ["new"]


def test_one_uid_is_one_pod(node: Node, pods: tuple[Namespace, Namespace]) -> None:
    node.take("uid-0", pods[0])
    node.take("uid-0", pods[1], ("demo", "renamed", "client"))
    assert node.rows() == [("demo/renamed", "enrolled")]


def test_the_trust_domain_of_the_record_counts(node: Node, pods: tuple[Namespace, Namespace]) -> None:
    node.bench.mesh = Mesh.of([pod_of("demo/client", pods[0], trust_domain="corp.example")])
    node.take("uid-0", pods[0])
    node.bench.mesh = Mesh.of()
    node.take("uid-0", pods[0])
    node.restart()
    assert [row["identity"] for row in node.bench.manager.rows()] == [
        "spiffe://corp.example/ns/demo/sa/client"
    ]


def test_who_was_enrolled_by_hand_stays(node: Node, pods: tuple[Namespace, Namespace]) -> None:
    node.bench.mesh = Mesh.of([pod_of("demo/client", pods[0])])
    node.bench.enroll("demo/client", netns=pods[0].name)
    node.take("uid-0", pods[0])
    assert node.known() == []
    node.release("uid-0")
    assert node.rows() == [("demo/client", "enrolled")]


def test_another_service_account_is_refused(node: Node, pods: tuple[Namespace, Namespace]) -> None:
    node.take("uid-0", pods[0])
    files = open_files()
    with pytest.raises(EnrollError, match="is enrolled as"):
        node.take("uid-0", pods[0], ("demo", "client", "other"))
    assert open_files() == files


def test_no_namespace_is_refused_and_closed(node: Node, tmp_path: Path) -> None:
    files = open_files()
    with (tmp_path / "file").open("w") as file, pytest.raises(EnrollError, match="no network namespace"):
        asyncio.run(node.pods.take("uid-0", CLIENT, os.dup(file.fileno())))
    assert open_files() == files


def test_who_cannot_be_taken_leaves_nothing(node: Node, pods: tuple[Namespace, Namespace]) -> None:
    assert listening(pods[0]) == []
    files = open_files()
    node.bench.steering.failure = SteeringError("no more room")
    with pytest.raises(SteeringError):
        node.take("uid-0", pods[0])
    assert (node.known(), listening(pods[0]), open_files()) == ([], [], files)


def test_the_next_daemon_takes_it_up_again(node: Node, pods: tuple[Namespace, Namespace]) -> None:
    node.take("uid-0", pods[0])
    node.restart()
    assert (node.rows(), node.known()) == ([("demo/client", "enrolled")], ["uid-0"])
    assert [pod.workload.is_awaited for pod in node.bench.manager.pods.values()] == [True]


def test_where_the_next_daemon_cannot_see_it_it_is_refused_and_not_forgotten(
    node: Node, pods: tuple[Namespace, Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    node.take("uid-0", pods[0])
    cookie = pods[0].netns.cookie()
    with monkeypatch.context() as patch:
        patch.setattr(namespaces, "find", lambda *_: None)
        node.restart()
    assert node.rows() == [("demo/client", "refused")]
    assert cookie in node.bench.steering.attached, "NEVER in the clear"
    assert node.known() == ["uid-0"]
    node.take("uid-0", pods[0])
    assert node.rows() == [("demo/client", "enrolled")]


def test_one_that_is_refused_can_be_let_go(
    node: Node, pods: tuple[Namespace, Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    node.take("uid-0", pods[0])
    with monkeypatch.context() as patch:
        patch.setattr(namespaces, "find", lambda *_: None)
        node.restart()
    node.release("uid-0")
    assert (node.rows(), node.known(), node.bench.steering.attached) == ([], [], {})


def test_the_node_is_this_one(node: Node, pods: tuple[Namespace, Namespace]) -> None:
    node.take("uid-0", pods[0])
    assert [row["node"] for row in node.bench.manager.rows()] == [NODE]
