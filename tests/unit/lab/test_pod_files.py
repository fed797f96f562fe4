"""Files of a pod's own in /etc, as `ip netns exec` and `zproxy lab exec` bring them along."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from zproxy.lab import inside, pod_files, topology
from zproxy.lab.layout import Layout, make_layout
from zproxy.net.netns import NAMED

KUBELET = """\
search demo.svc.cluster.local svc.cluster.local cluster.local
nameserver 10.96.0.10
options ndots:5
"""
READ = """
import sys
from zproxy.lab import inside
from zproxy.net.netns import Netns
inside.become(Netns.open(sys.argv[1]), ["cat", "/etc/resolv.conf"])
"""


@pytest.fixture
def layout() -> Iterator[Layout]:
    layout = make_layout(f"zpt-{os.getpid()}-")
    try:
        yield layout
    finally:
        pod_files.remove(layout)
        topology.dismantle(layout)


def test_a_pod_has_the_resolv_conf_that_kubelet_writes() -> None:
    assert [pod_files.resolv_conf(pod) for pod in make_layout().pods] == [KUBELET] * 2


def test_a_namespace_without_a_name_or_without_files_has_none() -> None:
    assert pod_files.of("/proc/1/ns/net") == []
    assert pod_files.of(f"/run/netns/zpt-{os.getpid()}-nobody") == []


@pytest.mark.root
def test_what_is_written_is_removed_and_nothing_else(layout: Layout) -> None:
    assert not pod_files.are_there(layout)
    pod_files.write(layout)
    assert pod_files.are_there(layout)
    stranger = pod_files.ROOT / layout.pods[1].netns / "hosts"
    stranger.write_text("127.0.0.1 localhost\n")
    assert [path.name for path in pod_files.of(str(NAMED / layout.pods[1].netns))] == ["hosts", "resolv.conf"]
    removed = pod_files.remove(layout)
    assert removed == [str(pod_files.ROOT / pod.netns / "resolv.conf") for pod in layout.pods]
    assert not (pod_files.ROOT / layout.pods[0].netns).exists()
    assert stranger.exists()
    stranger.unlink()
    assert pod_files.remove(layout) == []
    assert not stranger.parent.exists()


@pytest.mark.root
def test_programs_in_the_pod_see_its_file_and_the_machine_keeps_its_own(layout: Layout) -> None:
    machines = Path("/etc/resolv.conf").read_bytes()
    topology.build(layout)
    pod_files.write(layout)
    name = layout.pods[0].netns
    for argv in (
        [sys.executable, "-P", "-c", READ, str(NAMED / name)],
        ["ip", "netns", "exec", name, "cat", "/etc/resolv.conf"],
    ):
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, env=inside.environment())
        assert (done.stdout, done.stderr) == (KUBELET, "")
    assert Path("/etc/resolv.conf").read_bytes() == machines
