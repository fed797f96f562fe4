"""Nodes with a real container runtime: each a namespace with containerd, a CNI bridge and a zproxy daemon.

Two of them are on one machine, each containerd with its own root, state, socket and configuration, and never
the machine's. Pods are made by CRI as kubelet would. Everything has a name that begins with zpt- and this
process's id; processes are ended by their ids, mounts and cgroups removed.
"""

import json
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc

from tests.support import cri_pods_pb2 as pods_pb2
from tests.support.local_config import yaml_of
from tests.support.mesh import workload
from tests.support.netns import PREFIX, Namespace, pair
from tests.support.nodes import WAIT_S, Node, wait_for
from tests.support.oci import write_images
from zproxy.model.workload import Workload
from zproxy.proto import cri_pb2

APP: Final = "docker.io/zpt/app:1"
PAUSE: Final = "docker.io/zpt/pause:1"
IMAGES: Final = {
    PAUSE: ("sleep", "2147483647"),
    APP: ("httpd", "-f", "-p", "8080", "-h", "/www"),
}
PLUGINS: Final = ("/usr/lib/cni", "/opt/cni/bin")
"""Where distributions and Kubernetes put CNI plugins."""
CONFIG: Final = """\
version = 2
root = "{here}/root"
state = "{here}/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{here}/cri.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  disable_tcp_service = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{here}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
"""
"""Of containerd 1.6 and later. The native snapshotter copies, and so works on any filesystem."""

_Answer = TypeVar("_Answer")


class Containerd:
    """One containerd in the network namespace of its node. Pods are made and ended by their names."""

    def __init__(self, directory: Path, host: Namespace, subnet: str) -> None:
        self.directory = directory
        self.socket = directory / "cri.sock"
        self.cgroup = host.name
        """Below the root of each hierarchy, all pods are in it."""
        self._host = host
        self._process: subprocess.Popen[bytes] | None = None
        self._channel = grpc.insecure_channel(f"unix:{self.socket}")
        self._images = directory / "images.tar"
        (directory / "cni").mkdir(parents=True)
        plugins = next(place for place in PLUGINS if Path(place, "bridge").exists())
        text = CONFIG.format(here=directory, pause=PAUSE, plugins=plugins)
        (directory / "config.toml").write_text(text)
        bridge = {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipam": {
                "type": "host-local",
                "dataDir": str(directory / "ipam"),
                "ranges": [[{"subnet": subnet}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        network = {"cniVersion": "1.0.0", "name": "zpt", "plugins": [bridge]}
        (directory / "cni" / "10-zpt.conflist").write_text(json.dumps(network))

    def start(self) -> None:
        """Start it and wait until it can make pods."""
        command = ["nsenter", f"--net=/run/netns/{self._host.name}", "containerd", "--config"]
        with (self.directory / "containerd.log").open("ab") as log:
            command.append(str(self.directory / "config.toml"))
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(self._is_ready, "containerd ready")

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def load_images(self) -> None:
        """Import the images of this module; once is enough."""
        write_images(self._images, IMAGES)
        words = ["ctr", "--address", str(self.socket), "--namespace", "k8s.io", "images", "import"]
        subprocess.run([*words, str(self._images)], check=True, capture_output=True, timeout=WAIT_S)

    def stop(self) -> None:
        """End containerd; its pods go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(WAIT_S)
            self._process = None

    def run_pod(self, pod: str, *, uid: str = "", attempt: int = 0, is_host_network: bool = False) -> "Pod":
        """Make the sandbox of a pod and start the app in it."""
        made = Pod(self, pod, uid or str(uuid.uuid4()), attempt, is_host_network=is_host_network)
        made.start()
        return made

    def call(self, method: str, request: Any, answer: type[_Answer]) -> _Answer:
        """Ask for something; an answer that takes longer than WAIT_S is a failure."""
        ask = self._channel.unary_unary(
            f"/runtime.v1.RuntimeService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,  # type: ignore[attr-defined] # every message has it
        )
        result: _Answer = ask(request, timeout=WAIT_S)
        return result

    def remove_all(self) -> None:
        """End all pods and let the runtime forget them."""
        for item in self._sandboxes():
            request = pods_pb2.SandboxRequest(pod_sandbox_id=item.id)
            self.call("StopPodSandbox", request, pods_pb2.Empty)
            self.call("RemovePodSandbox", request, pods_pb2.Empty)

    def clean(self) -> None:
        """Remove all pods, end containerd and its shims, and take down what they mounted."""
        if self.is_running:
            with suppress(grpc.RpcError):
                self.remove_all()
        self._channel.close()
        self.stop()
        for pid in self._shims():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not self._shims(), "all shims ended")
        for point in reversed(_mounts_below(self.directory)):
            subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
        shutil.rmtree(self.directory)
        wait_for(lambda: _remove_cgroups(self.cgroup), "all cgroups removed")

    def _sandboxes(self) -> list[cri_pb2.PodSandbox]:
        request = cri_pb2.ListPodSandboxRequest()
        return list(self.call("ListPodSandbox", request, cri_pb2.ListPodSandboxResponse).items)

    def _is_ready(self) -> bool:
        assert self._process is not None
        log = self.directory / "containerd.log"
        assert self._process.poll() is None, log.read_text()
        try:
            self._sandboxes()
        except grpc.RpcError:
            return False
        return "cni config load failed" not in log.read_text().rpartition("starting cri plugin")[2]

    def _shims(self) -> list[int]:
        """Return the processes that were started for this very containerd: its socket is in their words."""
        return [pid for pid, words in _processes() if str(self.socket) in words]


class Pod:
    """A pod with one app, busybox's httpd on port 8080."""

    def __init__(
        self, runtime: Containerd, pod: str, uid: str, attempt: int, *, is_host_network: bool
    ) -> None:
        self.name = pod
        self.uid = uid
        self.attempt = attempt
        self.id = ""
        self.container = ""
        self.ip = ""
        self._runtime = runtime
        namespace, _, name = pod.partition("/")
        mode = cri_pb2.NODE if is_host_network else cri_pb2.POD
        of = cri_pb2.PodSandboxMetadata(name=name, namespace=namespace, uid=uid, attempt=attempt)
        security = pods_pb2.LinuxSandboxSecurityContext(
            namespace_options=cri_pb2.NamespaceOption(network=mode, pid=cri_pb2.CONTAINER)
        )
        self._config = pods_pb2.PodSandboxConfig(
            metadata=of,
            hostname="" if is_host_network else name,
            labels={"app": name},
            dns_config=pods_pb2.DNSConfig(servers=["192.0.2.53"], searches=["demo.svc.cluster.local"]),
            linux=pods_pb2.LinuxPodSandboxConfig(
                cgroup_parent=f"/{runtime.cgroup}/kubepods/pod{uid}", security_context=security
            ),
        )

    def start(self) -> None:
        """Make the sandbox, and start the app in it."""
        request = pods_pb2.RunPodSandboxRequest(config=self._config)
        self.id = self._runtime.call("RunPodSandbox", request, pods_pb2.RunPodSandboxResponse).pod_sandbox_id
        asked = cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=self.id)
        status = self._runtime.call("PodSandboxStatus", asked, cri_pb2.PodSandboxStatusResponse).status
        self.ip = status.network.ip
        config = pods_pb2.ContainerConfig(
            metadata=cri_pb2.ContainerMetadata(name="app", attempt=self.attempt),
            image=pods_pb2.ImageSpec(image=APP),
        )
        wanted = pods_pb2.CreateContainerRequest(
            pod_sandbox_id=self.id, config=config, sandbox_config=self._config
        )
        made = self._runtime.call("CreateContainer", wanted, pods_pb2.CreateContainerResponse)
        self.container = made.container_id
        start = pods_pb2.ContainerRequest(container_id=self.container)
        self._runtime.call("StartContainer", start, pods_pb2.Empty)

    def execute(self, *command: str) -> tuple[int, str]:
        """Run a command in the app's container; return its status and what it said."""
        request = pods_pb2.ExecSyncRequest(container_id=self.container, cmd=command, timeout=int(WAIT_S))
        done = self._runtime.call("ExecSync", request, pods_pb2.ExecSyncResponse)
        return done.exit_code, (done.stdout + done.stderr).decode()

    def get(self, to: str, port: int = 8080) -> str:
        """Fetch /get from `to`, as an app in the pod does; return the page, or wget's complaint.

        Without -T, at which the wget of Debian 12's busybox crashes.
        """
        return self.execute("wget", "-q", "-O", "-", f"http://{to}:{port}/get")[1]

    def stop(self) -> None:
        """End the sandbox, as kubelet does before it makes another one."""
        request = pods_pb2.SandboxRequest(pod_sandbox_id=self.id)
        self._runtime.call("StopPodSandbox", request, pods_pb2.Empty)

    def remove(self) -> None:
        """End it and let the runtime forget it."""
        self.stop()
        request = pods_pb2.SandboxRequest(pod_sandbox_id=self.id)
        self._runtime.call("RemovePodSandbox", request, pods_pb2.Empty)

    def again(self) -> "Pod":
        """Return this pod in its next sandbox, started."""
        network = self._config.linux.security_context.namespace_options.network
        return self._runtime.run_pod(
            self.name, uid=self.uid, attempt=self.attempt + 1, is_host_network=network == cri_pb2.NODE
        )


class ContainerNode:
    """A node: its namespace, its containerd, its daemon, and what the mesh says of its pods."""

    def __init__(self, label: str, directory: Path, ca: Path, host: Namespace, subnet: str) -> None:
        self.host = host
        self.runtime = Containerd(directory / f"zpt-{label}", host, subnet)
        self.daemon = Node(f"{PREFIX}{label}", directory, ca)
        self.daemon.wrapper = ("nsenter", f"--net=/run/netns/{host.name}")
        self.daemon.options = ("--cri-endpoint", str(self.runtime.socket))

    def make_ready(self) -> None:
        """Start what does not run: the runtime, the daemon."""
        if not self.runtime.is_running:
            self.runtime.start()
        if self.daemon.process is None:
            self.daemon.start()

    def workload(self, pod: Pod) -> Workload:
        """Return what the mesh is to know of a pod of this node."""
        return workload(pod.name, pod.ip, node=self.daemon.name)

    def row(self, pod: str) -> dict[str, Any]:
        """Return the row of an enrolled pod, empty when it is not."""
        rows = self.daemon.client.call("pods")
        return next((row for row in rows if row["pod"] == pod), {})


class TwoContainerNodes:
    """`a` and `b`, joined by a wire between their namespaces; `mesh` is what both daemons are told."""

    def __init__(self, directory: Path, left: Namespace, right: Namespace) -> None:
        ca = directory / "ca"
        self.a = ContainerNode("a", directory, ca, left, "10.77.1.0/24")
        self.b = ContainerNode("b", directory, ca, right, "10.77.2.0/24")
        self.mesh: dict[str, Workload] = {}

    def know(self, *pods: tuple[ContainerNode, Pod]) -> None:
        """Let the mesh have these pods as they are now, and wait until both daemons know."""
        for node, pod in pods:
            self.mesh[pod.name] = node.workload(pod)
        self.write_mesh()
        for node in (self.a, self.b):
            wait_for(partial(self._is_known, node.daemon), "the daemon knows the mesh")

    def write_mesh(self) -> None:
        """Write both daemons' mesh file."""
        for node in (self.a, self.b):
            draft = node.daemon.config.with_suffix(".new")
            draft.write_text(yaml_of(*self.mesh.values()))
            os.replace(draft, node.daemon.config)

    def _is_known(self, daemon: Node) -> bool:
        if daemon.process is None:
            return True
        rows = daemon.client.call("workloads")
        found = {f"{row['namespace']}/{row['name']}": tuple(row["address"]) for row in rows}
        return found == {name: each.workload_ips for name, each in self.mesh.items()}


@contextmanager
def two_container_nodes(directory: Path) -> Iterator[TwoContainerNodes]:
    """Give two nodes with running containerds and daemons, and without pods."""
    with ExitStack() as stack:
        left, right = stack.enter_context(pair("node-a", "node-b"))
        nodes = TwoContainerNodes(directory, left, right)
        nodes.write_mesh()
        for node in (nodes.a, nodes.b):
            node.host.sysctl("ipv4.ip_forward", "1")
            stack.callback(node.runtime.clean)
            stack.callback(node.daemon.clean)
            node.daemon.launch()
            node.runtime.start()
            node.runtime.load_images()
        for node in (nodes.a, nodes.b):
            node.daemon.await_ready()
        yield nodes


def _processes() -> Iterator[tuple[int, list[str]]]:
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            yield int(name), Path("/proc", name, "cmdline").read_bytes().decode(errors="replace").split("\0")


def _mounts_below(directory: Path) -> list[str]:
    words = (line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [each[4] for each in words if each[4].startswith(f"{directory}/")]


def _remove_cgroups(name: str) -> bool:
    """Remove the cgroup of that name below each hierarchy's root; return whether none is left."""
    tops = [Path("/sys/fs/cgroup"), *(path for path in Path("/sys/fs/cgroup").iterdir() if path.is_dir())]
    found = [top / name for top in tops if (top / name).is_dir()]
    for top in found:
        for directory, _, _ in os.walk(top, topdown=False):
            with suppress(OSError):
                os.rmdir(directory)
    return not any(top.is_dir() for top in found)
