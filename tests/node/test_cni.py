"""Pods that are born with the chained plugin: what a runtime does, with Debian's own bridge before it.

The plugins run in a namespace that stands for the node's, where every interface is captured.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.capture import Capture, capturing
from tests.support.cni import Answer, Sandbox
from tests.support.local_config import yaml_of
from tests.support.mesh import workload
from tests.support.netns import PREFIX, Namespace, namespace
from tests.support.nodes import App, Node, peer_echo, wait_for
from zproxy.model.workload import Protocol

pytestmark = pytest.mark.root

DEBIANS: Final = Path("/usr/lib/cni")
SERVER, CLIENT, PLAIN = "10.79.0.5", "10.79.0.6", "10.79.0.7"
SECRET: Final = b"the first thing that this pod ever says"
BRIDGE: Final = {
    "type": "bridge",
    "bridge": "cni0",
    "isGateway": True,
    "ipam": {"type": "static", "routes": [{"dst": "0.0.0.0/0"}]},
}
APP: Final = """
import socket, sys
sys.stdin.buffer.readline()  # the runtime's word to start
with socket.create_connection((sys.argv[1], 8080), 10) as sock:
    sock.sendall(sys.argv[2].encode())
    sys.stdout.buffer.write(sock.recv(65536))
"""


class World:
    """A node: its daemon, its network's configuration with the plugin installed, and sandboxes to come."""

    def __init__(self, directory: Path, host: Namespace) -> None:
        self.host = host
        self.daemon = Node(f"{PREFIX}cni", directory, directory / "ca")
        self.conf_dir, self.bin_dir = directory / "net.d", directory / "bin"
        for made in (self.conf_dir, self.bin_dir):
            made.mkdir()
        self.network = self.conf_dir / "10-net.conflist"
        self.network.write_text(json.dumps({"cniVersion": "1.0.0", "name": "net", "plugins": [BRIDGE]}))
        self.write_mesh("server", "client")

    def restore(self) -> None:
        """Be as at first, whatever a test did."""
        if self.daemon.process is None:
            self.daemon.start()
        self.write_mesh("server", "client")
        wait_for(lambda: self.known("client"), "the mesh is as it was")
        for pod in self.pods():
            self.daemon.client.call("unenroll", pod=pod)
        self.cni("install", "--node", self.daemon.name)

    def known(self, pod: str) -> bool:
        """Tell whether the mesh has the pod."""
        return pod in [row["name"] for row in self.daemon.client.call("workloads")]

    def write_mesh(self, *pods: str) -> None:
        """Write the mesh file: demo/plain is no part of HBONE, the others are."""
        addresses = {"server": SERVER, "client": CLIENT}
        known = [workload(f"demo/{pod}", addresses[pod], node=self.daemon.name) for pod in pods]
        plain = workload("demo/plain", PLAIN, node=self.daemon.name, protocol=Protocol.TCP)
        self.daemon.config.write_text(yaml_of(*known, plain))

    def cni(self, command: str, *words: str) -> None:
        """Run `zproxy cni` on this node's directories."""
        places = ("--conf-dir", str(self.conf_dir), "--bin-dir", str(self.bin_dir))
        done = self.daemon.cli("cni", command, *places, *words)
        assert done.returncode == 0, done.stderr

    def sandbox(self, pod: str, where: Namespace, address: str, container: str = "c1") -> Sandbox:
        """Return a sandbox whose namespace is made and whose network is not."""
        prefix = ("nsenter", f"--net=/run/netns/{self.host.name}")
        bins = (self.bin_dir, DEBIANS)
        return Sandbox(
            self.conf_dir, bins, prefix, pod, container, f"/run/netns/{where.name}", f"{address}/24"
        )

    def pods(self) -> list[str]:
        """Return the enrolled pods."""
        return [str(row["pod"]) for row in self.daemon.client.call("pods")]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with namespace("node") as host:
        host.interface = ""  # all of them, those to come as well
        made = World(tmp_path_factory.mktemp("node"), host)
        try:
            yield made
        finally:
            made.daemon.clean()


@pytest.fixture
def world(started: World) -> World:
    started.restore()
    return started


@pytest.fixture
def pod() -> Iterator[Namespace]:
    """An empty namespace: the moment before the network's plugins are called."""
    with namespace("born") as made:
        yield made


@contextmanager
def serving(world: World) -> Iterator[None]:
    """Have demo/server born, with an app."""
    with ExitStack() as stack:
        where = stack.enter_context(namespace("server"))
        sandbox = world.sandbox("demo/server", where, SERVER, "c-server")
        accept(sandbox.add())
        app = App(where, 8080, peer_echo)
        stack.callback(sandbox.delete)
        stack.callback(app.close)
        yield


def accept(answer: Answer) -> Answer:
    assert answer.status == 0, answer
    return answer


def error_of(answer: Answer) -> tuple[int, str]:
    assert answer.status == 1, answer
    return answer.json["code"], answer.json["msg"]


def first_words(sandbox: Sandbox, where: Namespace) -> bytes:
    """Have the pod born and its first process connect at that very moment; return what it is told.

    The process is there already and waits, so that nothing but its connect() is left to do.
    """
    command = ["nsenter", f"--net=/run/netns/{where.name}", sys.executable, "-IS", "-c", APP, SERVER]
    with subprocess.Popen(
        [*command, SECRET.decode()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            accept(sandbox.add())
            told, _ = process.communicate(b"\n", timeout=15)
        finally:
            process.kill()
    return told


def in_the_clear(capture: Capture) -> bool:
    return bool(capture.in_the_clear(SECRET))


def test_the_first_thing_that_a_born_pod_sends_is_steered(world: World, pod: Namespace) -> None:
    with serving(world), capturing(world.host) as capture:
        sandbox = world.sandbox("demo/client", pod, CLIENT)
        assert first_words(sandbox, pod) == f"{CLIENT} ".encode() + SECRET
        assert sorted(world.pods()) == ["demo/client", "demo/server"]
        [line, *_] = world.daemon.access('direction="outbound"')
        assert 'dst.identity="spiffe://cluster.local/ns/demo/sa/server"' in line
        sandbox.delete()
    assert not in_the_clear(capture)
    assert any(packet.opens and packet.port == 15008 for packet in capture.packets)


def test_without_the_plugin_the_same_process_is_seen_in_the_clear(world: World, pod: Namespace) -> None:
    """Otherwise the capture would prove nothing."""
    with serving(world), capturing(world.host) as capture:
        world.cni("uninstall")
        sandbox = world.sandbox("demo/client", pod, CLIENT)
        first_words(sandbox, pod)
        sandbox.delete()
        world.cni("install", "--node", world.daemon.name)
    assert in_the_clear(capture)


def test_the_result_is_that_of_the_plugins_before(world: World, pod: Namespace) -> None:
    sandbox = world.sandbox("demo/client", pod, CLIENT)
    result = accept(sandbox.add()).json
    assert [each["address"] for each in result["ips"]] == [f"{CLIENT}/24"]
    assert [each["name"] for each in result["interfaces"] if each.get("sandbox")] == ["eth0"]
    assert result["cniVersion"] == "1.0.0"
    sandbox.delete()


def test_an_end_unenrols_and_may_come_again(world: World, pod: Namespace) -> None:
    sandbox = world.sandbox("demo/client", pod, CLIENT)
    accept(sandbox.add())
    assert world.pods() == ["demo/client"]
    for _ in range(2):
        assert {answer.status for answer in sandbox.delete()} == {0}
        assert world.pods() == []


def test_an_end_after_the_namespaces_is_an_end(world: World) -> None:
    with namespace("born") as pod:
        sandbox = world.sandbox("demo/client", pod, CLIENT)
        accept(sandbox.add())
    sandbox.netns = ""
    accept(sandbox.ask("DEL"))
    assert world.pods() == []


def test_the_late_end_of_a_sandbox_leaves_the_next_one_alone(world: World, pod: Namespace) -> None:
    with namespace("former") as former:
        first = world.sandbox("demo/client", former, CLIENT, "c1")
        accept(first.add())
        first.delete()
        second = world.sandbox("demo/client", pod, CLIENT, "c2")
        accept(second.add())
        accept(first.ask("DEL"))
        assert world.pods() == ["demo/client"]
        second.delete()


def test_a_look_tells_whether_the_pod_is_in_the_mesh(world: World, pod: Namespace) -> None:
    sandbox = world.sandbox("demo/client", pod, CLIENT)
    accept(sandbox.add())
    assert accept(sandbox.ask("CHECK")).stdout == ""
    world.daemon.client.call("unenroll", pod="demo/client")
    code, sentence = error_of(sandbox.ask("CHECK"))
    assert (code, sentence.endswith("and it is not enrolled")) == (100, True)
    sandbox.delete()


def test_without_a_daemon_no_sandbox_is_made_until_one_is_back(world: World, pod: Namespace) -> None:
    sandbox = world.sandbox("demo/client", pod, CLIENT)
    accept(sandbox.ask("STATUS", "1.1.0"))
    world.daemon.stop()
    code, sentence = error_of(sandbox.add())
    assert (code, f"no zproxy daemon runs for node {world.daemon.name}" in sentence) == (11, True)
    assert error_of(sandbox.ask("STATUS", "1.1.0"))[0] == 51
    assert {answer.status for answer in sandbox.delete()} == {0}
    world.daemon.start()
    accept(sandbox.add())
    assert world.pods() == ["demo/client"]
    sandbox.delete()


def test_a_network_that_fails_open_lets_the_pod_start_and_says_so(world: World, pod: Namespace) -> None:
    with serving(world), capturing(world.host) as capture:
        world.cni("install", "--node", world.daemon.name, "--fail-open")
        world.daemon.client.call("unenroll", pod="demo/server")
        world.daemon.stop()
        sandbox = world.sandbox("demo/client", pod, CLIENT)
        assert first_words(sandbox, pod) == f"{CLIENT} ".encode() + SECRET
        assert "demo/client is born outside the mesh (failOpen)" in accept(sandbox.ask("ADD")).stderr
        sandbox.delete()
    assert in_the_clear(capture)


def test_what_the_mesh_does_not_want_passes_with_a_reason_in_the_log(world: World, pod: Namespace) -> None:
    for name, reason in (("plain", "has protocol TCP in the mesh"), ("stranger", "has no workload")):
        sandbox = world.sandbox(f"demo/{name}", pod, PLAIN)
        accept(sandbox.add())
        said = f"born outside the mesh: demo/{name}: "
        wait_for(lambda said=said: world.daemon.lines(said), "a line in the log")  # type: ignore[misc]
        assert reason in world.daemon.lines(said)[0]
        accept(sandbox.ask("CHECK"))
        sandbox.delete()
    assert world.pods() == []


def test_the_mesh_may_learn_of_a_pod_while_it_is_born(world: World, pod: Namespace) -> None:
    world.cni("install", "--node", world.daemon.name, "--wait-ms", "10000")
    world.write_mesh("server")
    wait_for(lambda: not world.known("client"), "the pod is forgotten")
    sandbox = world.sandbox("demo/client", pod, CLIENT)
    answers: list[Any] = []
    birth = threading.Thread(target=lambda: answers.append(sandbox.add()))
    birth.start()
    world.write_mesh("server", "client")
    birth.join(20)
    accept(answers[0])
    assert world.pods() == ["demo/client"]
    sandbox.delete()


@pytest.mark.parametrize("netns", ["/proc/1/ns/net", "/run/netns/none"])
def test_a_namespace_that_is_no_pods_is_refused(world: World, pod: Namespace, netns: str) -> None:
    sandbox = world.sandbox("demo/client", pod, CLIENT)
    accept(sandbox.add())
    sandbox.delete()
    sandbox.netns = netns
    assert error_of(sandbox.ask("ADD"))[0] == 100
    assert world.pods() == []


def test_what_a_runtime_no_longer_has_is_collected(world: World, pod: Namespace) -> None:
    sandbox = world.sandbox("demo/client", pod, CLIENT)
    accept(sandbox.add())
    for container, left in (("c1", ["demo/client"]), ("c2", [])):
        valid = [{"containerID": container, "ifname": "eth0"}]
        assert accept(sandbox.ask("GC", "1.1.0", **{"cni.dev/valid-attachments": valid})).stdout == ""
        assert world.pods() == left
    sandbox.delete()


def test_a_restarted_daemon_still_knows_which_sandbox_it_was(world: World, pod: Namespace) -> None:
    sandbox = world.sandbox("demo/client", pod, CLIENT)
    accept(sandbox.add())
    world.daemon.stop()
    world.daemon.start()
    accept(world.sandbox("demo/client", pod, CLIENT, "other").ask("DEL"))
    assert world.pods() == ["demo/client"]
    sandbox.delete()
    assert world.pods() == []
