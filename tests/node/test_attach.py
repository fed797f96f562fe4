"""Whole daemons: what a load balancer hides, what kubelet may, and whom an enrolment refuses to disturb."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import foreign
from tests.support.local_config import yaml_of
from tests.support.netns import PREFIX, Namespace, pair
from tests.support.nodes import App, TwoNodes, enduring, exchange, peer_echo, wait_for
from zproxy.errors import ZproxyError
from zproxy.net.netns import Netns
from zproxy.steering.pins import NodePins, entries

pytestmark = pytest.mark.root

VIP = "203.0.113.77"
PORT = 8080


class Stage:
    """A pod beside its host, which is the other end of its veth, and a daemon that is not yet started."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.host, self.pod = stack.enter_context(pair("host", "pod"))
        self.nodes = TwoNodes(directory, self.host, self.pod)
        self.node = self.nodes.b
        _, self.server = self.nodes.workloads()
        stack.callback(self.node.clean)
        self.node.config.write_text(yaml_of(self.server))

    def start(self, *options: str) -> None:
        self.node.options = options
        self.node.start()

    def enroll(self, **how: Any) -> dict[str, Any]:
        row: dict[str, Any] = self.node.client.call("enroll", pod="demo/server", netns=self.pod.name, **how)
        return row

    def dial(self, cgroup: Path | None = None) -> socket.socket:
        """Connect to the pod's app from the host."""
        with ExitStack() as stack:
            if cgroup is not None:
                stack.enter_context(foreign.inside(cgroup))
            sock = self.host.socket()
        sock.connect((self.pod.ip4, PORT))
        return sock

    def refusal(self) -> str:
        """Return the sentence with which enrolment refuses, and check that the pod is as it was."""
        with pytest.raises(ZproxyError) as refused:
            self.enroll()
        assert self.node.client.call("pods") == []
        pins = NodePins(self.node.name)
        assert entries(pins.pods) == []
        assert self.node.dump("zp_podip") == []
        assert self.pod.execute("ip", "rule", "list", "fwmark", "0x111").stdout == ""
        assert self.pod.execute("sysctl", "-n", "net.ipv4.tcp_fwmark_accept").stdout == "0\n"
        return str(refused.value)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(tmp_path, stack)


@pytest.fixture
def own() -> Iterator[Path]:
    with foreign.cgroup(f"{PREFIX}pod") as made:
        yield made


def test_kubelet_reaches_the_app_in_the_clear_and_others_through_the_proxy(stage: Stage) -> None:
    app = App(stage.pod, PORT, peer_echo)
    try:
        with foreign.cgroup(f"{PREFIX}kubelet") as kubelet:
            stage.start("--kubelet-cgroup", str(kubelet))
            stage.enroll()
            status = stage.node.client.call("status")
            assert (status["probe_mode"], status["kubelet_cgroup"]) == ("cgroup", str(kubelet))
            wait_for(lambda: stage.node.lines(f"probe mode: cgroup {kubelet}"), "the line in the log")
            probe, other = stage.dial(kubelet), stage.dial()
            ports = [sock.getsockname()[1] for sock in (probe, other)]
            for sock in (probe, other):
                assert exchange(sock, b"alive?") == f"{stage.host.ip4} alive?".encode()
            assert stage.node.access(f"src.addr={stage.host.ip4}:{ports[1]}")
            assert not stage.node.lines(f"src.addr={stage.host.ip4}:{ports[0]}")
    finally:
        app.close()


def test_without_a_kubelet_the_log_says_that_nothing_is_exempt(stage: Stage) -> None:
    stage.start()
    wait_for(lambda: stage.node.lines("probe mode: none (no kubelet runs here)"), "the line in the log")
    assert stage.node.client.call("status")["probe_mode"] == "none"


def test_a_wish_that_cannot_be_had_ends_the_daemon_with_a_sentence(stage: Stage) -> None:
    stage.node.options = ("--kubelet-cgroup", "/no/such/cgroup")
    stage.node.launch()
    process = stage.node.process
    assert process is not None
    assert process.wait(15) == 1
    assert stage.node.lines("Error: --kubelet-cgroup /no/such/cgroup: there is no such cgroup")
    assert not NodePins(stage.node.name).directory.exists()


DIAL = """
import socket, sys
sys.stdin.readline()
with socket.create_connection((sys.argv[1], 80), 5) as sock:
    print(sock.getpeername()[0], flush=True)
"""


@pytest.mark.parametrize("mode", ["root", "pod", "both"])
def test_the_mesh_sees_the_vip_where_a_load_balancer_balances_at_the_root(
    stage: Stage, own: Path, mode: str
) -> None:
    """At the root alone it does not: the balancer was there first."""
    top = own.parent
    with foreign.attached(top, foreign.balancing(VIP, stage.host.ip4)), ExitStack() as stack:
        # Without a server the proxy's reset may be there before connect() has returned.
        stack.callback(App(stage.host, 80, enduring(peer_echo)).close)
        stage.start("--attach", mode)
        command = ["ip", "netns", "exec", stage.pod.name, sys.executable, "-c", DIAL, VIP]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as app:
            try:
                (own / "cgroup.procs").write_text(str(app.pid))
                wait_for(lambda: _is_in(app.pid, stage.pod), "the app in the pod's namespace")
                row = stage.enroll()
                assert row["attach"] == mode
                assert row["cgroup"] == ("" if mode == "root" else str(own))
                peer, _ = app.communicate(b"\n", timeout=15)
            finally:
                app.kill()
        expected = stage.host.ip4 if mode == "root" else VIP
        assert peer.decode().strip() == expected
        assert stage.node.access(f"dst.addr={expected}:80")


def test_a_pod_without_cgroup_is_refused_where_only_cgroups_count(stage: Stage) -> None:
    stage.start("--attach", "pod")
    assert "demo/server has no cgroup of its own in cgroup v2" in stage.refusal()
    assert not (NodePins(stage.node.name).links / "connect4").exists()


def test_a_given_cgroup_is_kept_over_a_restart(stage: Stage, own: Path) -> None:
    stage.start()
    row = stage.enroll(cgroup=str(own))
    assert (row["attach"], row["cgroup"], row["cgroup_why"]) == ("both", str(own), "it was given")
    with pytest.raises(ZproxyError, match=f"is enrolled with {own}; to change that, unenroll it first"):
        stage.enroll(cgroup="/elsewhere")
    assert not stage.enroll(cgroup=str(own))["changed"]
    stage.node.stop()
    stage.node.start()
    (row,) = stage.node.client.call("pods")
    assert (row["attach"], row["cgroup"]) == ("both", str(own))


def test_a_cgroup_that_is_not_the_pods_is_refused(stage: Stage) -> None:
    stage.start()
    with pytest.raises(ZproxyError, match="the root of the hierarchy"):
        stage.enroll(cgroup="/")
    assert stage.node.client.call("pods") == []


def test_istios_chains_are_found_before_anything_is_changed(stage: Stage) -> None:
    stage.pod.execute("iptables", "-t", "nat", "-N", "ISTIO_OUTPUT")
    stage.start()
    assert "Istio redirects the traffic of demo/server already" in stage.refusal()
    stage.pod.execute("iptables", "-t", "nat", "-X", "ISTIO_OUTPUT")
    assert stage.enroll()["changed"]


def test_another_proxys_listener_is_found_before_anything_is_changed(stage: Stage) -> None:
    stage.start()
    with stage.pod.listen(15006, "0.0.0.0"):
        assert "port 15006 of demo/server is taken" in stage.refusal()
    assert stage.enroll()["changed"]


def test_an_exclusive_program_is_found_before_anything_is_changed(stage: Stage, own: Path) -> None:
    stage.start()
    with foreign.attached(own, foreign.passing(), name="their_lb", flags=foreign.EXCLUSIVE):
        with pytest.raises(ZproxyError, match=r"the program their_lb \(id \d+\) is attached exclusively"):
            stage.enroll(cgroup=str(own))
        assert stage.node.client.call("pods") == []
    assert stage.enroll(cgroup=str(own))["changed"]


def test_another_daemons_pod_is_found_before_anything_is_changed(stage: Stage) -> None:
    other = stage.nodes.a
    other.config.write_text(yaml_of(replace(stage.server, node=other.name)))
    try:
        other.start()
        other.client.call("enroll", pod="demo/server", netns=stage.pod.name)
        stage.start()
        with pytest.raises(ZproxyError, match=f"demo/server is enrolled by the daemon of node {other.name}"):
            stage.enroll()
        assert stage.node.client.call("pods") == []
    finally:
        other.clean()


def _is_in(pid: int, pod: Namespace) -> bool:
    with Netns.of_pid(pid) as found:
        return found.key == pod.netns.key


def test_maps_of_probes_are_pinned_for_those_who_ask_without_a_daemon(stage: Stage) -> None:
    stage.start("--probe-mode", "node-ip", "--node-ip", stage.host.ip4)
    assert len(stage.node.dump("zp_nodeip")) == 3  # Istio's two are among them
