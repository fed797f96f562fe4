"""Steering without eBPF, and a manager of a node's pods in which nothing else is a stand-in."""

import asyncio
import gc
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.inline import InlineDriver
from tests.support.mesh import allow_all, workload
from tests.support.netns import Namespace
from zproxy.config import Deadlines, Limits
from zproxy.identity.ca import LocalCa
from zproxy.identity.manager import CertificateManager
from zproxy.model.attach import Attach, ProbeMode
from zproxy.model.pod import PodOptions
from zproxy.model.settings import DEFAULT_SETTINGS
from zproxy.model.workload import Workload
from zproxy.net.netns import Netns
from zproxy.net.sockets import SocketFactory
from zproxy.net.worker import Worker
from zproxy.node.manager import Manager
from zproxy.node.records import Records
from zproxy.node.workers import PodWorker
from zproxy.observe.connections import Connection, Connections
from zproxy.proxy.context import PodContext
from zproxy.proxy.straw import Straw
from zproxy.state.store import Mesh
from zproxy.steering.hooks import HOOKS
from zproxy.steering.inspect_pod import NodeFacts, SteeringFacts
from zproxy.steering.kubelet import ProbeChoice
from zproxy.steering.layout import PodEntry
from zproxy.steering.pod_cgroups import PodCgroup
from zproxy.steering.steering import PodSteering
from zproxy.wire.tls import choose_engine

NODE = "node-a"


class FakeHeart:
    """Keeps whether somebody beats."""

    def __init__(self) -> None:
        self.is_beating = False

    def beat(self) -> None:
        self.is_beating = True

    def stop(self) -> None:
        self.is_beating = False


SO_COOKIE = 57


def socket_cookie(fd: int) -> int:
    """Return the number by which the kernel's maps know a socket."""
    with socket.socket(fileno=os.dup(fd)) as sock:
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), sys.byteorder)


class FakeInspector:
    """Finds exactly what was attached; a test may say otherwise with `lost`."""

    def __init__(self, attached: dict[int, PodSteering]) -> None:
        self._attached = attached
        self.lost: set[int] = set()
        """Cookies of pods whose entry has gone."""

    def programs(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(HOOKS, start=1)}

    def traces(self) -> set[int]:
        return set(self._attached)

    def entries(self) -> list[PodEntry]:
        return [self._entry(pod) for pod in self._attached.values()]

    def claims(self) -> dict[int, list[str]]:
        return {cookie: list(pod.ips) for cookie, pod in self._attached.items()}

    def pod(self, cookie: int, netns: Netns, interfaces: Any, ips: Any) -> SteeringFacts:
        pod = self._attached.get(cookie)
        if pod is None or cookie in self.lost:
            return SteeringFacts(None, {}, 0, has_counters=False, links=(), strays=())
        slots = {ip: 0 for ip in ips if ip in pod.ips}
        listener = socket_cookie(pod.plaintext_listener)
        return SteeringFacts(self._entry(pod), slots, listener, has_counters=True, links=(), strays=())

    def _entry(self, pod: PodSteering) -> PodEntry:
        ip4, ip6 = (next((ip for ip in pod.ips if (":" in ip) is is_6), "") for is_6 in (False, True))
        return PodEntry(
            pod.cookie, pod.name, pod.uid, ip4, ip6, 0, 1, 15001, 15006, 15008, 15053, pod.options
        )


class FakeSteering:
    """Keeps who is attached and in which order things happened; `failure` is raised by `attach`."""

    is_external = False

    def __init__(self) -> None:
        self.attached: dict[int, PodSteering] = {}
        self.calls: list[tuple[str, int]] = []
        self.failure: Exception | None = None
        self.on_attach: Callable[[PodSteering], object] = lambda _: None
        self.threads: set[int] = set()
        """Who called: the real one blocks, so it is NEVER the loop's thread."""
        self.is_closed = False
        self.heart = FakeHeart()
        self.attach_mode = Attach.BOTH
        self.probes = ProbeChoice(ProbeMode.NONE, "no kubelet runs here")
        self.examined: list[tuple[int | None, str | None]] = []
        """Process and cgroup that each look before an enrolment was given."""
        self.finding: Exception | None = None
        """What such a look raises."""
        self.inspector = FakeInspector(self.attached)

    def node_facts(self) -> NodeFacts:
        return NodeFacts((), (), ())

    def mend(self) -> None:
        self.calls.append(("mend", 0))

    def find_resolver(self, cookie: int, alias: str) -> None:
        """Nobody was asked: there is no eBPF that would remember."""

    def exempt(self, fd: int) -> None:
        os.fstat(fd)

    def examine(self, name: str, netns: Netns, pid: int | None, cgroup: str | None) -> PodCgroup:
        self.threads.add(threading.get_ident())
        self.examined.append((pid, cgroup))
        if self.finding is not None:
            raise self.finding
        return PodCgroup(Path(cgroup), "it was given") if cgroup else PodCgroup(None, "no process is in it")

    def attach(self, pod: PodSteering) -> None:
        self.threads.add(threading.get_ident())
        self.calls.append(("attach", pod.cookie))
        self.on_attach(pod)
        if self.failure is not None:
            raise self.failure
        self.attached[pod.cookie] = pod
        self.inspector.lost.discard(pod.cookie)

    def choose(self, cookie: int, options: PodOptions) -> None:
        self.threads.add(threading.get_ident())
        self.calls.append(("choose", cookie))
        self.attached[cookie] = self.attached[cookie]._replace(options=options)

    def detach(self, cookie: int) -> None:
        self.threads.add(threading.get_ident())
        self.calls.append(("detach", cookie))
        self.attached.pop(cookie, None)

    def close(self) -> None:
        self.is_closed = True


class Bench:
    """One node: a real manager, straws, certificates, records. A test sets `mesh` and `steering`."""

    def __init__(self, directory: Path, *workloads: Workload) -> None:
        self.mesh = Mesh.of(workloads)
        self.steering = FakeSteering()
        self.records = Records(directory / "pods")
        self.certificates = CertificateManager(LocalCa.open(directory / "ca"))
        self.worker = Worker(Deadlines(), Limits(), lambda _, error: self.crashes.append(error))
        self.crashes: list[Exception] = []
        self.connections = Connections(self, 64, 64)
        self.workers = [PodWorker(InlineDriver(0, self.worker), self.connections, self.straw)]
        self.manager = self.new_manager()

    def new_manager(self) -> Manager:
        """Return the manager of a daemon that has just started on what is recorded."""
        steering: Any = self.steering
        return Manager(NODE, lambda: self.mesh, steering, self.workers, self.records)

    def straw(self, of: Workload, netns: Netns) -> Straw:
        """Build a straw as the daemon does."""
        return Straw(
            PodContext(
                workload=of,
                worker=self.worker,
                sockets=SocketFactory(netns, self.steering.exempt),
                mesh=lambda: self.mesh,
                certificates=self.certificates.source(of.identity),
                engine=choose_engine(),
                connections=self.connections,
                decide=allow_all,
                settings=DEFAULT_SETTINGS,
            )
        )

    def ended(self, connection: Connection, now: float) -> None:
        """Be the sink of `connections`: nobody reads it."""

    def enroll(self, pod: str, **how: Any) -> dict[str, Any]:
        """Enrol and return the row."""
        return asyncio.run(self.manager.enroll(pod, **how))

    def unenroll(self, pod: str) -> dict[str, Any]:
        return asyncio.run(self.manager.unenroll(pod))

    def identities(self) -> list[str]:
        """Return the identities that somebody holds a source of."""
        return sorted({row.identity for row in self.certificates.certificates()})


@contextmanager
def bench(directory: Path, *workloads: Workload) -> Iterator[Bench]:
    """Give a node for the block; straws that are left are closed, and nothing may have crashed."""
    made = Bench(directory, *workloads)
    try:
        yield made
    finally:
        asyncio.run(made.manager.close())
        made.worker.close()
    assert made.crashes == []


def pod_of(pod: str, namespace: Namespace, **fields: Any) -> Workload:
    """Return the workload on NODE that has the addresses of `namespace`."""
    ips = fields.pop("ips", namespace.ips)
    return workload(pod, *ips, **({"node": NODE} | fields))


def open_files() -> set[str]:
    """Return what this process has open: a descriptor and what it stands for."""
    gc.collect()  # what a failed start left in its traceback is garbage, not open
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} -> {os.readlink(f'/proc/self/fd/{number}')}")
        except FileNotFoundError:
            continue  # the listing's own
    return found
