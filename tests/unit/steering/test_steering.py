"""A node's steering from outside: opened, left, opened again, removed; alone and beside another."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.netns import PREFIX, Namespace, pair
from tests.support.straw import Arrival, Straw, attached, dial, node_steering
from zproxy.config import PIN_ROOT
from zproxy.errors import RequirementError, SteeringError
from zproxy.model.addr import Endpoint
from zproxy.steering import cgroups, links
from zproxy.steering.hooks import HOOKS, Place
from zproxy.steering.layout import REASONS
from zproxy.steering.pins import NodePins
from zproxy.steering.steering import Steering, remove

ROOT = Path(__file__).parents[3]
V4 = "203.0.113.9"


@pytest.fixture
def node() -> Iterator[str]:
    """A node's name; what is pinned under it goes at the end."""
    name = f"{PREFIX}own.node"
    yield name
    remove(name)


@pytest.mark.root
def test_hooks_hang_where_they_should(node: str) -> None:
    Steering.open(node).close()
    root = cgroups.root_cgroup()
    own = cgroups.own_cgroup(root)
    for hook in HOOKS.values():
        if hook.place in (Place.ROOT, Place.OWN):
            info = links.describe(NodePins(node).links / hook.pin)
            assert info is not None
            expected = root if hook.place is Place.ROOT else own
            assert (info.target, info.attach_type) == (expected.stat().st_ino, hook.attach_type)


@pytest.mark.root
def test_a_daemon_in_another_cgroup_gets_its_getsockopt_hook_there(node: str) -> None:
    """Its sockets belong to the cgroup that it was in when it made them."""
    Steering.open(node).close()
    cgroup = cgroups.root_cgroup() / f"{PREFIX}moved"
    cgroup.mkdir()
    try:
        opened = (
            "import sys; from pathlib import Path; from zproxy.steering.steering import Steering;"
            "Path(sys.argv[2], 'cgroup.procs').write_text('0'); Steering.open(sys.argv[1]).close()"
        )
        subprocess.run([sys.executable, "-c", opened, node, str(cgroup)], cwd=ROOT, check=True, timeout=30)
        info = links.describe(NodePins(node).links / "getsockopt")
        assert info is not None
        assert info.target == cgroup.stat().st_ino
        remove(node)
    finally:
        cgroup.rmdir()


@pytest.mark.root
def test_a_given_cgroup_stands_in_for_the_root(node: str, pod: Namespace) -> None:
    cgroup = cgroups.root_cgroup() / f"{PREFIX}stand-in"
    cgroup.mkdir()
    try:
        steering = Steering.open(node, cgroup=cgroup)
        with attached(steering, pod), pod.socket() as outside:  # this process is in no cgroup below it
            outside.settimeout(0.1)
            with pytest.raises(TimeoutError):
                outside.connect((V4, 80))
        steering.close()
        remove(node)
    finally:
        cgroup.rmdir()


@pytest.mark.root
def test_after_the_daemon_pods_are_refused_and_after_its_return_steered(
    node: str, pod: Namespace, peer: Namespace
) -> None:
    straw, steering = Straw(pod), Steering.open(node)
    steering.attach(straw.steering())
    steering.close()
    straw.close()
    with pytest.raises(ConnectionRefusedError):
        dial(pod, V4, 80)
    with pod.listen(8080), pytest.raises(ConnectionRefusedError):
        dial(peer, pod.ip4, 8080)
    again, straw = Steering.open(node), Straw(pod)
    (left,) = again.pods()
    again.attach(straw.steering())
    assert [entry.generation for entry in again.pods()] == [left.generation + 1]
    with dial(pod, V4, 80), dial(peer, pod.ip4, 8080):
        for listener in (straw.outbound, straw.plaintext):
            Arrival.take(listener).sock.close()
    again.close()
    straw.close()


@pytest.mark.root
def test_remove_works_without_a_daemon_and_leaves_nothing(node: str, pod: Namespace, peer: Namespace) -> None:
    straw, steering = Straw(pod), Steering.open(node)
    steering.attach(straw.steering())
    steering.close()
    gone = remove(node)
    directory = NodePins(node).directory
    assert str(directory / "links" / "connect4") in gone
    assert str(directory / "maps" / "zp_pods") in gone
    assert str(directory / "pods" / str(straw.steering().cookie) / "sk_lookup") in gone
    assert str(directory) in gone
    assert not directory.exists()
    assert remove(node) == []
    with peer.listen(9000) as server, dial(pod, peer.ip4, 9000) as sock, Arrival.take(server).sock:
        assert sock.getpeername() == (peer.ip4, 9000)
    straw.close()


@pytest.mark.root
def test_remove_ends_steering_under_a_living_daemon(node: str, pod: Namespace, peer: Namespace) -> None:
    straw, steering = Straw(pod), Steering.open(node)
    steering.attach(straw.steering())
    remove(node)
    assert steering.pods() == []
    with peer.listen(9000) as server, dial(pod, peer.ip4, 9000), Arrival.take(server).sock:
        pass
    steering.close()
    straw.close()


@pytest.mark.root
def test_two_nodes_of_a_machine_do_not_meet(pod: Namespace) -> None:
    with (
        node_steering("one") as one,
        node_steering("two") as two,
        pair("other", "far") as (other, _),
        attached(one, pod) as here,
        attached(two, other) as there,
    ):
        for host, straw in ((pod, here), (other, there)):
            with dial(host, V4, 80) as app:
                arrival = Arrival.take(straw.outbound)
                arrival.sock.close()
                assert arrival.original == Endpoint(V4, 80)
                assert app.getpeername() == (V4, 80)
        assert [len(steering.pods()) for steering in (one, two)] == [1, 1]
        assert [steering.stats()["captured_v4"] for steering in (one, two)] == [1, 1]


@pytest.mark.root
def test_removing_one_node_leaves_the_other(node: str, pod: Namespace) -> None:
    with node_steering("stays") as stays, attached(stays, pod) as straw:
        Steering.open(node).close()
        remove(node)
        with dial(pod, V4, 80):
            Arrival.take(straw.outbound).sock.close()


@pytest.mark.root
def test_stats_name_every_reason(steering: Steering) -> None:
    assert tuple(steering.stats()) == REASONS


@pytest.mark.root
def test_the_daemon_does_not_carry_the_compiler(node: str) -> None:
    Steering.open(node).close()
    assert "bcc" not in sys.modules


@pytest.mark.root
def test_pins_are_roots_alone(node: str) -> None:
    Steering.open(node).close()
    assert NodePins(node).directory.stat().st_mode & 0o077 == 0


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(RequirementError, match="needs root"):
        Steering.open("node")


@pytest.mark.root
def test_a_directory_outside_bpffs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SteeringError, match="is not on a BPF file system"):
        Steering.open("node", pin_root=tmp_path)
    assert PIN_ROOT not in tmp_path.parents
