"""What the CNI plugin asks of the daemon: births, looks, ends, and what comes late or twice."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.mesh import mesh
from tests.support.netns import Namespace, namespace, pair
from tests.support.steering import NODE, Bench, bench, open_files, pod_of
from zproxy.errors import EnrollError, SteeringError
from zproxy.model.workload import Protocol
from zproxy.node import births
from zproxy.node.births import Births
from zproxy.state.store import Mesh

POD = "demo/client"
FIRST = "net/c1/eth0"
SECOND = "net/c2/eth0"
pytestmark = pytest.mark.root


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        yield made


@pytest.fixture
def client(node: Bench) -> Iterator[Namespace]:
    with pair() as (made, _):
        node.mesh = mesh(pod_of(POD, made))
        yield made


def add(node: Bench, where: Namespace, attachment: str = FIRST, **more: Any) -> dict[str, Any]:
    path = f"/run/netns/{where.name}"
    return asyncio.run(Births(node.manager).add(POD, path, attachment, **more))


def check(node: Bench, where: Namespace) -> dict[str, Any]:
    return asyncio.run(Births(node.manager).check(POD, where.netns.path, list(where.ips)))


def delete(node: Bench, attachment: str, netns: str = "") -> bool:
    answer = asyncio.run(Births(node.manager).delete(POD, attachment, netns))
    return bool(answer["unenrolled"])


def enrolled(node: Bench) -> list[str]:
    return sorted(node.manager.pods)


def test_the_plugin_has_its_commands(node: Bench) -> None:
    names = set(Births(node.manager).commands())
    assert names == {"cni_add", "cni_check", "cni_delete", "cni_collect"}


def test_a_birth_is_an_enrolment(node: Bench, client: Namespace) -> None:
    answer = add(node, client, ips=client.ips)
    assert answer == {"enrolled": True, "reason": "demo/client has protocol HBONE in the mesh"}
    assert enrolled(node) == [POD]
    record = node.records.get(POD)
    assert record is not None
    assert (record.attachment, record.netns) == (FIRST, client.netns.path)


def test_the_cgroup_that_kubelet_has_made_is_the_pods(
    node: Bench, client: Namespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uid = "6f2c1e0a-90f1-4a34-9f6e-0b7b7d0c2d11"
    made = tmp_path / "kubepods" / "burstable" / f"pod{uid}"
    made.mkdir(parents=True)
    monkeypatch.setattr(births, "root_cgroup", lambda: tmp_path)
    add(node, client, uid=uid)
    add(node, client, uid=uid)
    assert node.steering.examined == [(None, str(made))]
    assert delete(node, FIRST)
    add(node, client, uid="none")
    assert node.steering.examined[1:] == [(None, None)]


def test_a_birth_that_is_told_twice_is_one(node: Bench, client: Namespace) -> None:
    add(node, client)
    calls = len(node.steering.calls)
    assert add(node, client)["enrolled"]
    assert len(node.steering.calls) == calls


def test_what_the_mesh_does_not_want_is_left_alone(node: Bench, client: Namespace) -> None:
    node.mesh = mesh(pod_of(POD, client, protocol=Protocol.TCP))
    answer = add(node, client)
    assert answer == {"enrolled": False, "reason": "demo/client has protocol TCP in the mesh"}
    assert not node.steering.calls
    assert check(node, client)["enrolled"] is False


def test_the_mesh_may_learn_of_a_pod_a_moment_later(node: Bench, client: Namespace) -> None:
    later, node.mesh = node.mesh, Mesh.of(())

    async def born() -> dict[str, Any]:
        asyncio.get_running_loop().call_later(0.05, setattr, node, "mesh", later)
        return await Births(node.manager).add(POD, client.netns.path, FIRST, ips=client.ips, wait_ms=5_000)

    assert asyncio.run(born())["enrolled"]


def test_a_record_without_addresses_is_that_of_a_pod_that_is_born_now(node: Bench, client: Namespace) -> None:
    """Kubernetes knows a pod of this node from its scheduling on, and its addresses when it is born."""
    node.mesh = mesh(pod_of(POD, client, ips=()))
    assert add(node, client, ips=client.ips)["enrolled"]
    assert node.manager.pods[POD].workload.workload_ips == client.ips


def test_an_earlier_pods_record_is_not_this_ones(node: Bench, client: Namespace) -> None:
    later, node.mesh = node.mesh, mesh(pod_of(POD, client, ips=("10.99.0.1",)))
    with pytest.raises(EnrollError, match=r"demo/client has 10\.99\.0\.1, but"):
        add(node, client, ips=client.ips)

    async def born() -> dict[str, Any]:
        asyncio.get_running_loop().call_later(0.05, setattr, node, "mesh", later)
        return await Births(node.manager).add(POD, client.netns.path, FIRST, ips=client.ips, wait_ms=5_000)

    assert asyncio.run(born())["enrolled"]


@pytest.mark.parametrize("wait_ms", [0, 40, 10**9])
def test_the_mesh_is_waited_for_with_an_end(
    node: Bench, client: Namespace, wait_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(births, "MAX_WAIT_MS", 60)
    node.mesh = Mesh.of(())
    answer = add(node, client, wait_ms=wait_ms)
    assert answer == {"enrolled": False, "reason": "the mesh has no workload demo/client"}


def test_a_birth_that_fails_leaves_nothing(node: Bench, client: Namespace) -> None:
    files = open_files()
    node.steering.failure = SteeringError("no room")
    with pytest.raises(SteeringError, match="no room"):
        add(node, client)
    assert (enrolled(node), node.records.get(POD), open_files()) == ([], None, files)


@pytest.mark.parametrize(
    ("netns", "sentence"),
    [("/proc/self/ns/net", "the daemon's own"), ("/run/netns/none", "no network namespace /run/netns/none")],
)
def test_a_namespace_is_looked_at_as_at_any_enrolment(
    node: Bench, client: Namespace, netns: str, sentence: str
) -> None:
    with pytest.raises(EnrollError, match=sentence):
        asyncio.run(Births(node.manager).add(POD, netns, FIRST))


def test_addresses_that_are_none_are_a_sentence(node: Bench, client: Namespace) -> None:
    with pytest.raises(EnrollError, match="the runtime's addresses of the pod are no addresses"):
        add(node, client, ips=["x"])


def test_an_end_is_an_unenrolment_and_may_come_again(node: Bench, client: Namespace) -> None:
    add(node, client)
    assert [delete(node, FIRST), delete(node, FIRST)] == [True, False]
    assert (enrolled(node), node.records.get(POD)) == ([], None)


def test_the_end_of_an_earlier_sandbox_is_not_that_of_the_next(node: Bench, client: Namespace) -> None:
    """A runtime may end a sandbox again when the next one of the same pod lives."""
    add(node, client, SECOND)
    assert not delete(node, FIRST)
    assert not delete(node, FIRST, client.netns.path)
    assert enrolled(node) == [POD]
    assert delete(node, SECOND)


def test_a_pod_that_was_enrolled_by_hand_ends_with_its_namespace(node: Bench, client: Namespace) -> None:
    node.enroll(POD, netns=client.name)
    assert not delete(node, FIRST)
    assert not delete(node, FIRST, "/run/netns/none")
    with namespace() as other:
        assert not delete(node, FIRST, other.netns.path)
    assert delete(node, FIRST, client.netns.path)


def test_a_restarted_daemon_knows_the_sandbox(node: Bench, client: Namespace) -> None:
    add(node, client)
    asyncio.run(node.manager.close())
    node.manager = node.new_manager()
    asyncio.run(node.manager.restore())
    assert not delete(node, SECOND)
    assert delete(node, FIRST)


def test_one_that_this_daemon_could_not_take_up_ends_as_well(node: Bench, client: Namespace) -> None:
    add(node, client)
    asyncio.run(node.manager.close())
    node.manager, known, node.mesh = node.new_manager(), node.mesh, Mesh.of(())
    asyncio.run(node.manager.restore())
    assert list(node.manager.refused) == [POD]
    with pytest.raises(EnrollError, match="demo/client is refused: unknown pod"):
        check(node, client)
    assert delete(node, FIRST)
    assert (node.manager.rows(), node.records.get(POD)) == ([], None)
    assert known


def test_a_look_fails_when_a_pod_is_not_as_it_is_to_be(node: Bench, client: Namespace) -> None:
    with pytest.raises(EnrollError, match="has protocol HBONE in the mesh, and it is not enrolled"):
        check(node, client)
    add(node, client)
    assert check(node, client) == {"enrolled": True, "reason": "demo/client is enrolled"}
    with (
        namespace() as other,
        pytest.raises(EnrollError, match=f"it is enrolled in {client.netns.path}, not"),
    ):
        check(node, other)


def test_what_a_network_no_longer_has_is_collected(node: Bench, client: Namespace) -> None:
    def collect(network: str, *valid: str) -> list[str]:
        answer: dict[str, list[str]] = asyncio.run(Births(node.manager).collect(network, valid))
        return answer["unenrolled"]

    node.enroll(POD, netns=client.name)
    assert collect("net") == []
    node.unenroll(POD)
    add(node, client)
    assert collect("net", FIRST, SECOND) == []
    assert collect("ne") == []
    assert collect("other") == []
    assert collect("net", SECOND) == [POD]
    assert enrolled(node) == []
    assert node.manager.node == NODE
