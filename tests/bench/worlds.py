"""Where the contenders run: for each its own two pods, its own proxies, its own app; all of one topology."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.bench.ambient import redirect
from tests.bench.load import APP_PORT, app
from tests.support import envoy_config
from tests.support.envoy import Envoy
from tests.support.local_config import yaml_of
from tests.support.mesh import workload
from tests.support.netns import PREFIX, Namespace, batch, pair
from tests.support.nodes import Node
from tests.support.straw import node_steering
from zproxy.identity.ca import LocalCa
from zproxy.model import ports
from zproxy.model.addr import Endpoint
from zproxy.model.identity import SpiffeId
from zproxy.steering.steering import PodSteering

BUSY: Final = ("--busy-poll", "100")
RESERVED: Final = f"{APP_PORT},15000-15199"


class World:
    """One contender: `proxies` by side (client, server), and what the load dials to go through them."""

    def __init__(self, client: Namespace, server: Namespace) -> None:
        self.client, self.server = client, server
        self.target = (server.ip4, APP_PORT)
        self.proxies: dict[str, Node | Envoy] = {}
        self.app_pid = 0
        self.acting: Callable[[], AbstractContextManager[None]] = nullcontext
        """What has to be there for the time of a measurement only."""

    @property
    def pids(self) -> dict[str, int]:
        """The proxies' processes by side."""
        return {side: _pid(proxy) for side, proxy in self.proxies.items()}

    def restart(self) -> None:
        """Give every proxy a new process: what it has learnt and allocated so far is gone."""
        for proxy in self.proxies.values():
            proxy.stop()
        for proxy in reversed(self.proxies.values()):
            proxy.start()
        self.pin_congestion_control()

    def pin_congestion_control(self) -> None:
        """Let every route of both pods ask for cubic: BBR, the default on some machines, paces veth."""
        for side in (self.client, self.server):
            for table in ("main", "local", "100"):
                batch(side.name, _cubic(side.name, table))


def _pid(proxy: Node | Envoy) -> int:
    if isinstance(proxy, Envoy):
        return proxy.pid
    assert proxy.process
    return proxy.process.pid


def _cubic(name: str, table: str) -> list[str]:
    command = ["ip", "-n", name, "-4", "route", "show", "table", table]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
    return [
        f"route change table {table} {line.strip()} congctl cubic"
        for line in listed.splitlines()
        if line.strip() and not line.startswith("broadcast") and "congctl" not in line
    ]


class Builder:
    """Makes worlds, all in `directory`, all with certificates of one CA, and takes them down with `stack`."""

    def __init__(self, directory: Path, program: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._program = program
        self._stack = stack
        self._count = 0
        self._options: tuple[str, ...] = ()
        """More words for `zproxy run`."""

    def build(self, group: str, contender: str) -> World:
        """Make the world of `contender` in `group` and start everything in it."""
        world = self._pods()
        self._count += 1
        if group == "steering":
            self._steer(world, contender)
        elif group == "one node":
            self._one_node(world, workers=2 if contender == "two workers" else 1)
        elif contender != "direct":
            is_plain = group == "passthrough"
            client, _, server = contender.partition(">")
            self._options = BUSY if group == "busy" else ()
            self._proxies(world, client, "" if is_plain else server or client)
        if group != "steering":
            world.app_pid = self._stack.enter_context(app(self._program, world.server.name)).pid
        world.pin_congestion_control()
        return world

    def _pods(self) -> World:
        client, server = self._stack.enter_context(pair(v6=False))
        for side in (client, server):
            side.sysctl("ipv4.ip_local_port_range", "20000 60999")
            side.sysctl("ipv4.ip_local_reserved_ports", RESERVED)
            # Connections in TIME_WAIT would fill the range, sooner for whoever is faster.
            side.sysctl("ipv4.tcp_max_tw_buckets", "1")
        return World(client, server)

    def _proxies(self, world: World, client: str, server: str) -> None:
        """Start the server's proxy ("" for none), then the client's."""
        names = {side: f"{PREFIX}{self._count}-{side}" for side in ("client", "server")}
        if server == "zproxy":
            world.proxies["server"] = self._node(world, names, "server", in_mesh=True)
        elif server == "envoy":
            app_at = Endpoint(world.server.ip4, APP_PORT)
            config = envoy_config.server(self.keys("server"), app_at)
            world.proxies["server"] = self._envoy(world.server, config)
        if client == "zproxy":
            world.proxies["client"] = self._node(world, names, "client", in_mesh=bool(server))
            return
        config = self._tunnelling(world.server.ip4) if server else self._passing(world.server.ip4)
        world.proxies["client"] = self._envoy(world.client, config)
        world.target = (world.client.ip4, ports.OUTBOUND)

    def _tunnelling(self, ip: str) -> envoy_config.Config:
        hbone = Endpoint(ip, ports.INBOUND_HBONE)
        tunnel = envoy_config.Tunnel(ports.OUTBOUND, f"{ip}:{APP_PORT}", hbone, str(_identity("server")))
        config = envoy_config.client(self.keys("client"), [tunnel])
        lean: envoy_config.Config = _without(config, "propagate_response_headers")
        return lean

    def _passing(self, ip: str) -> envoy_config.Config:
        return envoy_config.passthrough(ports.OUTBOUND, Endpoint(ip, APP_PORT))

    def keys(self, service_account: str) -> envoy_config.Keys:
        """Return a certificate like those of zproxy's own pods, from the same CA."""
        issued = LocalCa.open(self._directory / "ca").issue(_identity(service_account))
        return envoy_config.save(issued.credentials, self._directory, service_account)

    def _node(self, world: World, names: dict[str, str], side: str, *, in_mesh: bool) -> Node:
        """Start the daemon of one pod and enrol the pod; `in_mesh` says whether the server is known to it."""
        pods = {"client": world.client} | ({"server": world.server} if in_mesh else {})
        node = Node(names[side], self._directory, self._directory / "ca", self._options)
        node.config.write_text(
            yaml_of(*(workload(f"demo/{name}", pod.ip4, node=names[name]) for name, pod in pods.items()))
        )
        self._stack.callback(node.clean)
        node.start()
        node.client.call("enroll", pod=f"demo/{side}", netns=pods[side].name)
        return node

    def _one_node(self, world: World, workers: int) -> None:
        """Let one daemon hold both pods: every byte is encrypted and decrypted by one process."""
        pods = {"client": world.client, "server": world.server}
        name = f"{PREFIX}{self._count}-node"
        node = Node(name, self._directory, self._directory / "ca", ("--workers", str(workers)))
        node.config.write_text(yaml_of(*(workload(f"demo/{pod}", pods[pod].ip4, node=name) for pod in pods)))
        self._stack.callback(node.clean)
        node.start()
        for pod, namespace in pods.items():
            node.client.call("enroll", pod=f"demo/{pod}", netns=namespace.name)
        world.proxies["node"] = node

    def _envoy(self, pod: Namespace, config: envoy_config.Config) -> Envoy:
        """Start an Envoy with one worker, and without access log or anything else that costs it time."""
        return self._stack.enter_context(Envoy(pod, envoy_config.quiet(config)))

    def _steer(self, world: World, contender: str) -> None:
        """Bring what the load dials to a listener in its own pod, which asks for the original destination."""
        pod = world.client
        word = "serve" if contender == "direct" else "capture"
        listener = app(self._program, pod.name, word, ports.OUTBOUND)
        world.app_pid = self._stack.enter_context(listener).pid
        if contender == "direct":
            world.target = (pod.ip4, ports.OUTBOUND)
        elif contender == "iptables":
            redirect(pod)
        else:
            world.acting = partial(_steered, pod)


def _identity(service_account: str) -> SpiffeId:
    return SpiffeId("cluster.local", "demo", service_account)


def _without(part: Any, name: str) -> Any:
    """Return a configuration without the fields called `name`."""
    if isinstance(part, dict):
        return {key: _without(value, name) for key, value in part.items() if key != name}
    return [_without(item, name) for item in part] if isinstance(part, list) else part


@contextmanager
def _steered(pod: Namespace) -> Iterator[None]:
    """Switch our eBPF steering on for `pod`, whose listener on 15001 is there already, for the block.

    The hooks at the cgroup root see every process: nobody else's figures are to pay for them.
    """
    with node_steering("bench") as steering, pod.listen(ports.INBOUND_PLAINTEXT) as plaintext:
        name = "demo/client"
        steering.attach(
            PodSteering(
                pod.netns, pod.netns.cookie(), name, name, pod.ips, (pod.interface,), plaintext.fileno()
            )
        )
        yield
