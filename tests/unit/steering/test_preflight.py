"""What stands in a pod's way: exclusive programs, Kmesh, another daemon of ours; each made for real."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import foreign
from tests.support.netns import PREFIX, Namespace
from tests.support.straw import attached, node_steering
from zproxy.errors import SteeringError
from zproxy.model.attach import Attach
from zproxy.steering import preflight, syscall
from zproxy.steering.attachment import AT_ROOT
from zproxy.steering.info import AttachType, prog_info
from zproxy.steering.pins import NodePins
from zproxy.steering.steering import Steering, remove

pytestmark = pytest.mark.root

NODE = f"{PREFIX}preflight"


@pytest.fixture
def top() -> Iterator[Path]:
    with foreign.cgroup(f"{PREFIX}top") as made:
        yield made


def examine(steering: Steering, pod: Namespace, cgroup: Path | None = None) -> None:
    steering.examine("demo/pod", pod.netns, None, None if cgroup is None else str(cgroup))


@pytest.mark.parametrize("flags", [foreign.EXCLUSIVE, foreign.OVERRIDE])
def test_an_exclusive_program_at_the_root_is_named_before_anything_is_pinned(top: Path, flags: int) -> None:
    with foreign.attached(top, foreign.passing(), name="their_lb", flags=flags) as program:
        number = prog_info(program).id
        with pytest.raises(SteeringError, match=rf"their_lb \(id {number}\) .* at connect4 .*detach {top}"):
            Steering.open(NODE, cgroup=top)
        assert not NodePins(NODE).directory.exists()


def test_an_exclusive_program_above_the_pods_cgroup_is_named(top: Path, pod: Namespace) -> None:
    with (
        foreign.cgroup("slice", top) as middle,
        foreign.cgroup("pod", middle) as own,
        node_steering("preflight") as steering,
        foreign.attached(middle, foreign.passing(), name="their_lb", flags=foreign.EXCLUSIVE),
        pytest.raises(SteeringError, match=f"their_lb .* exclusively at connect4 of the cgroup {middle}"),
    ):
        examine(steering, pod, own)


def test_a_program_that_lets_others_beside_it_is_no_obstacle(top: Path, pod: Namespace) -> None:
    with (
        foreign.cgroup("pod", top) as own,
        foreign.attached(top, foreign.passing(), name="their_lb"),
        node_steering("preflight") as steering,
    ):
        examine(steering, pod, own)


def test_programs_at_a_hook_are_listed(top: Path) -> None:
    with (
        foreign.attached(top, foreign.passing(), name="one"),
        foreign.attached(top, foreign.passing(), name="two"),
    ):
        found = list(preflight.attached(top, AttachType.CGROUP_INET4_CONNECT))
        assert [(each.name, each.is_exclusive) for each in found] == [("one", False), ("two", False)]
        assert list(preflight.attached(top, AttachType.CGROUP_INET6_CONNECT)) == []
        preflight.refuse_exclusive(top, AT_ROOT)


def test_who_runs_first_from_further_up_is_listed(top: Path) -> None:
    flags = foreign.MULTI | foreign.PREORDER
    with (
        foreign.cgroup("pod", top) as own,
        foreign.attached(top, foreign.passing(), name="later"),
        foreign.attached(top, foreign.passing(), name="eager", flags=flags),
        foreign.attached(own, foreign.passing(), name="ours") as program,
    ):
        number = prog_info(program).id
        (found,) = preflight.overtakers(own, AttachType.CGROUP_INET4_CONNECT, number)
        assert found.startswith("eager (id ")


def test_a_pod_of_another_daemon_is_named(pod: Namespace) -> None:
    with (
        node_steering("other.node") as other,
        attached(other, pod),
        node_steering("preflight") as steering,
        pytest.raises(
            SteeringError, match=rf"by the daemon of node {PREFIX}other\.node .* unenroll demo/pod"
        ),
    ):
        examine(steering, pod)


def test_a_pod_that_kmesh_manages_is_named(top: Path, pod: Namespace, peer: Namespace) -> None:
    table = foreign.hash_map("km_manage", 16, 4)
    key = struct.pack("=QQ", pod.netns.cookie(), 0)
    try:
        syscall.map_update(table, key, bytes(4))
        with (
            foreign.attached(top, foreign.using_map(table), name="cgroup_connect4"),
            foreign.inside(top),
        ):
            steering = Steering.open(NODE, cgroup=top)
            try:
                with pytest.raises(SteeringError, match="demo/pod is managed by Kmesh: its program"):
                    examine(steering, pod)
                examine(steering, peer)  # Kmesh is on the node, and does not manage this one
            finally:
                steering.close()
                remove(NODE)
    finally:
        os.close(table)


def test_kmeshs_xdp_program_in_a_pod_is_named(pod: Namespace) -> None:
    table = foreign.hash_map("km_auth_res", 16, 4)
    try:
        with (
            foreign.at_interface(pod, foreign.passing_xdp(table), "xdp_authz"),
            node_steering("preflight") as steering,
            pytest.raises(SteeringError, match=r"Kmesh: its program xdp_authz .* by XDP at eth0"),
        ):
            examine(steering, pod)
    finally:
        os.close(table)


def test_without_a_cgroup_a_daemon_that_attaches_there_alone_refuses(pod: Namespace) -> None:
    steering = Steering.open(NODE, attach=Attach.POD)
    try:
        with pytest.raises(
            SteeringError, match=r"no cgroup of its own .*no process is in the pod yet.* --cgroup"
        ):
            examine(steering, pod)
    finally:
        steering.close()
        remove(NODE)


def test_a_cgroup_and_all_above_it_are_asked() -> None:
    root = Path("/sys/fs/cgroup")
    assert preflight.with_ancestors(root / "a" / "b", root) == (root / "a" / "b", root / "a", root)
