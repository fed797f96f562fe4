"""Pods of a real container runtime, on two nodes: enrolled by name, proved, restarted, refused."""

import json
from collections.abc import Iterator

import pytest

from tests.support.containerd import ContainerNode, Pod, TwoContainerNodes, two_container_nodes
from tests.support.nodes import wait_for
from zproxy.errors import ZproxyError

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

PAGE = "a page of the pod\n"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoContainerNodes]:
    with two_container_nodes(tmp_path_factory.mktemp("cri")) as made:
        yield made


@pytest.fixture
def pods(nodes: TwoContainerNodes) -> Iterator[tuple[Pod, Pod]]:
    """A client on node a and a server on node b, known to the mesh and not enrolled."""
    for node in (nodes.a, nodes.b):
        node.make_ready()  # whatever the test before this one did
    client, server = nodes.a.runtime.run_pod("demo/client"), nodes.b.runtime.run_pod("demo/server")
    nodes.know((nodes.a, client), (nodes.b, server))
    yield client, server
    for node in (nodes.a, nodes.b):
        for row in node.daemon.client.call("pods"):
            node.daemon.client.call("unenroll", pod=row["pod"])
        node.runtime.remove_all()
    nodes.mesh.clear()
    nodes.know()


@pytest.fixture
def enrolled(nodes: TwoContainerNodes, pods: tuple[Pod, Pod]) -> tuple[Pod, Pod]:
    """The same, enrolled."""
    nodes.a.daemon.client.call("enroll", pod="demo/client")
    nodes.b.daemon.client.call("enroll", pod="demo/server")
    return pods


def refused(node: ContainerNode, pod: str, **how: str) -> str:
    """Return why a pod cannot be enrolled."""
    with pytest.raises(ZproxyError) as caught:
        node.daemon.client.call("enroll", pod=pod, **how)
    return str(caught.value)


def through_the_mesh(nodes: TwoContainerNodes, client: Pod, server: Pod) -> bool:
    """Fetch a page, and tell whether a tunnel between the two carried it."""
    before = carried(nodes.a)
    assert client.get(server.ip) == PAGE
    return carried(nodes.a) > before


def carried(node: ContainerNode) -> int:
    """Return how many streams the node's own clients have opened."""
    rows = node.daemon.client.call("tunnels")
    return sum(row["streams_total"] for row in rows if row["role"] == "client")


def test_pods_are_enrolled_by_name_and_speak_through_the_mesh(
    nodes: TwoContainerNodes, pods: tuple[Pod, Pod]
) -> None:
    client, server = pods
    assert not through_the_mesh(nodes, client, server), "they reach each other without"
    for node, pod in zip((nodes.a, nodes.b), pods, strict=True):
        done = node.daemon.cli("enroll", pod.name, "-o", "json")
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)
        assert (row["sandbox"], row["pod_uid"], row["ips"]) == (pod.id, pod.uid, [pod.ip])
        assert row["cgroup"].endswith(f"/kubepods/pod{pod.uid}"), row["cgroup_why"]
    assert through_the_mesh(nodes, client, server)
    nodes.a.daemon.client.call("unenroll", pod="demo/client")
    nodes.b.daemon.client.call("unenroll", pod="demo/server")
    assert not through_the_mesh(nodes, client, server)


def test_the_claims_hold_on_them(nodes: TwoContainerNodes, enrolled: tuple[Pod, Pod]) -> None:
    done = nodes.a.daemon.cli("prove", "demo/client", "demo/server")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 5 claims hold for demo/client and demo/server." in done.stdout


def test_a_pod_that_ends_is_noticed_and_leaves_nothing(
    nodes: TwoContainerNodes, enrolled: tuple[Pod, Pod]
) -> None:
    enrolled[1].remove()
    wait_for(lambda: not nodes.b.row("demo/server"), "it is forgotten")
    assert nodes.b.daemon.dump("zp_pods") == []
    anew = nodes.b.runtime.run_pod("demo/server")
    nodes.know((nodes.b, anew))
    assert not nodes.b.row("demo/server"), "a pod that is made anew is another"
    nodes.b.daemon.client.call("enroll", pod="demo/server")
    assert through_the_mesh(nodes, enrolled[0], anew)


def test_a_pod_that_restarts_is_taken_again_as_it_was(
    nodes: TwoContainerNodes, enrolled: tuple[Pod, Pod]
) -> None:
    client, server = enrolled
    nodes.b.daemon.client.call("enroll", pod="demo/server", options={"udp": "block"})
    server.stop()
    anew = server.again()
    nodes.know((nodes.b, anew))
    wait_for(lambda: nodes.b.row("demo/server").get("sandbox") == anew.id, "it has its new sandbox")
    assert nodes.b.row("demo/server")["udp"] == "block"
    assert len(nodes.b.daemon.dump("zp_pods")) == 1
    assert through_the_mesh(nodes, client, anew)


def test_a_daemon_that_restarts_takes_up_pods_that_live_and_those_that_came_back(
    nodes: TwoContainerNodes, enrolled: tuple[Pod, Pod]
) -> None:
    client, server = enrolled
    nodes.a.daemon.stop()
    nodes.b.daemon.stop()
    assert "refused" in client.get(server.ip), "without a daemon nothing leaves in the clear"
    server.stop()
    anew = server.again()
    nodes.know((nodes.b, anew))
    nodes.a.daemon.start()
    nodes.b.daemon.start()
    assert nodes.a.row("demo/client")["sandbox"] == client.id
    wait_for(lambda: nodes.b.row("demo/server").get("sandbox") == anew.id, "it has its new sandbox")
    assert through_the_mesh(nodes, client, anew)


def test_a_runtime_that_restarts_changes_nothing_for_pods(
    nodes: TwoContainerNodes, enrolled: tuple[Pod, Pod]
) -> None:
    client, server = enrolled
    nodes.b.runtime.stop()
    wait_for(lambda: nodes.b.daemon.lines("pods that end are found late"), "it is missed")
    assert nodes.b.row("demo/server")
    nodes.b.runtime.start()
    assert through_the_mesh(nodes, client, server)
    server.remove()
    wait_for(lambda: not nodes.b.row("demo/server"), "its end is noticed again")


def test_a_container_and_a_uid_name_their_pod(nodes: TwoContainerNodes, pods: tuple[Pod, Pod]) -> None:
    client, server = pods
    done = nodes.a.daemon.cli("enroll", "--container", client.container[:12])
    assert done.returncode == 0, done.stderr
    assert nodes.a.row("demo/client")["sandbox"] == client.id
    assert nodes.b.daemon.cli("enroll", "--pod-uid", server.uid).returncode == 0
    assert through_the_mesh(nodes, client, server)


def test_what_cannot_be_enrolled_is_refused_and_listed_with_the_reason(
    nodes: TwoContainerNodes, pods: tuple[Pod, Pod]
) -> None:
    a = nodes.a.runtime
    host = a.run_pod("kube-system/agent", is_host_network=True)
    ended = a.run_pod("demo/job")
    ended.stop()
    a.run_pod("demo/stranger")
    twins = [a.run_pod("demo/twin"), a.run_pod("demo/twin")]
    nodes.know((nodes.a, pods[0]), (nodes.a, ended), (nodes.a, twins[1]))

    assert "kube-system/agent is on its node's network (hostNetwork)" in refused(nodes.a, host.name)
    assert "not ready: its sandbox" in refused(nodes.a, ended.name)
    assert "the mesh has no such workload" in refused(nodes.a, "demo/stranger")
    assert "choose with --pod-uid" in refused(nodes.a, "demo/twin")
    assert "has no pod demo/ghost" in refused(nodes.a, "demo/ghost")
    assert f"is on node {nodes.b.daemon.name}" in refused(nodes.a, "demo/server")
    nodes.a.daemon.client.call("enroll", pod="demo/twin", pod_uid=twins[1].uid)
    assert nodes.a.row("demo/twin")["sandbox"] == twins[1].id

    rows = json.loads(nodes.a.daemon.cli("pods", "--all", "-o", "json").stdout)
    assert {row["pod"]: row["state"] for row in rows} == {
        "demo/client": "ready",
        "demo/job": "ended",
        "demo/stranger": "unknown",
        "demo/twin": "enrolled",
        "kube-system/agent": "unfit",
    }
