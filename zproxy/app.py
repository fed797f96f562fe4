"""The composition root: builds the node daemon in a fixed order, runs it, and takes it down again.

Nothing else constructs its collaborators. Order: lock, mesh, identity, steering, control socket, pods.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvloop

from zproxy import __version__
from zproxy.config import RUN_ROOT, Deadlines, Limits
from zproxy.errors import RequirementError, WorkerFailed
from zproxy.identity.ca import LocalCa
from zproxy.identity.manager import CertificateManager
from zproxy.model.attach import DEFAULT_PROBES, Attach, ProbeWish
from zproxy.model.identity import TRUST_DOMAIN
from zproxy.model.settings import DEFAULT_SETTINGS, Settings
from zproxy.model.workload import Workload
from zproxy.net.deadline import Waiter
from zproxy.net.drivers import Driver, ThreadDriver
from zproxy.net.marked import MarkedSockets
from zproxy.net.netns import Netns
from zproxy.net.poller import Flushable, Pollable
from zproxy.net.sockets import SocketFactory
from zproxy.net.tasks import every, spawn
from zproxy.net.worker import Ticking, Worker
from zproxy.node import surroundings
from zproxy.node.births import Births
from zproxy.node.control import ControlServer
from zproxy.node.heartbeat import Heartbeat
from zproxy.node.manager import Manager
from zproxy.node.pressure import Pressure
from zproxy.node.process import (
    calm_collector,
    name_process,
    note_cgroup_root,
    only_daemon,
    raise_file_limit,
    require_capabilities,
)
from zproxy.node.reconciler import PERIOD_S, Reconciler
from zproxy.node.reload import CurrentMesh, stamp_of
from zproxy.node.runtime import Asks, RuntimePods
from zproxy.node.runtime_watch import RuntimeWatch
from zproxy.node.steering_metrics import steering_families
from zproxy.node.views import Views
from zproxy.node.why import Why
from zproxy.node.workers import PodWorker
from zproxy.observe.access import AccessLog
from zproxy.observe.connections import Connections
from zproxy.observe.log import LineWriter, set_up
from zproxy.observe.metrics import Metrics, Read
from zproxy.proxy.balancer import Balancer
from zproxy.proxy.context import PodContext
from zproxy.proxy.straw import Straw
from zproxy.sources import file
from zproxy.state.policy import authorize
from zproxy.state.store import EMPTY
from zproxy.steering.steering import Steering
from zproxy.wire.tls import TlsEngine, choose_engine

if TYPE_CHECKING:
    from zproxy.kube.follow import Following
    from zproxy.zds.client import ZdsClient

DRAIN_S: Final = 5.0
"""After SIGTERM, how long open connections may go on: ztunnel's CONNECTION_TERMINATION_DEADLINE."""
RENEW_S: Final = 60.0
FIRST_MESH_S: Final = 10.0
"""How long a start waits for Kubernetes; pods are served by nobody meanwhile."""

_log = logging.getLogger("zproxy")


@dataclass(frozen=True, slots=True)
class Options:
    """What `zproxy run` was asked for."""

    node: str
    config: Path | None
    """The mesh file; None leaves the mesh to Kubernetes."""
    ca_directory: Path
    workers: int = 1
    verbose: bool = False
    idle_s: float = 0.0
    busy_poll_us: int = 0
    settings: Settings = DEFAULT_SETTINGS
    attach: Attach = Attach.BOTH
    probes: ProbeWish = DEFAULT_PROBES
    reconcile_s: float = PERIOD_S
    zds: str = ""
    """Where istio-cni listens; empty when nobody hands pods over."""
    is_external: bool = False
    """Whether istio-cni steers the pods, and not our eBPF."""
    trust_domain: str = TRUST_DOMAIN
    """Of pods that are handed over before the mesh knows them."""
    cri_endpoint: str | None = None
    """Of the container runtime; None is looked for, `none` is none."""
    kubernetes: bool = False
    """Whether Kubernetes is a source of the mesh, and labels there enrol pods."""
    kubeconfig: Path | None = None
    """How its API server is reached; None is the way of every pod in a cluster."""
    cgroup_root: Path | None = None


def run(options: Options) -> None:
    """Run the node daemon until SIGTERM or SIGINT; raise ZproxyError when it cannot start."""
    if os.geteuid() != 0:
        raise RequirementError(
            "zproxy run needs root (it enters namespaces and loads eBPF); run it with sudo"
        )
    require_capabilities()
    stamp = None if options.config is None else stamp_of(options.config)
    mesh = CurrentMesh(options.config, file.load(options.config) if options.config else EMPTY, stamp)
    name_process()
    raise_file_limit()
    surroundings.settle()
    with only_daemon(options.node), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        note_cgroup_root(options.node, options.cgroup_root)
        runner.run(_serve(options, mesh))


async def _serve(options: Options, mesh: CurrentMesh) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    is_mesh_old = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, is_mesh_old.set)
    writer = LineWriter(1)
    set_up(writer, verbose=options.verbose)
    mesh.warn()
    try:
        async with AsyncExitStack() as stack:
            daemon = Daemon(options, mesh, writer, stop, is_mesh_old)
            stack.push_async_callback(daemon.close)
            await daemon.start()
            calm_collector()
            _log.info("ready: node %s, zproxy %s, TLS by %s", options.node, __version__, daemon.engine.name)
            await daemon.stopped()
            _log.info("stopping; enrolled pods stay steered and are refused until a daemon is back")
            await daemon.drain()
    finally:
        writer.close()


class Daemon:
    """Everything of one node, built and connected."""

    def __init__(
        self,
        options: Options,
        mesh: CurrentMesh,
        writer: LineWriter,
        stop: asyncio.Event,
        is_mesh_old: asyncio.Event,
    ) -> None:
        """Build all of it; nothing runs yet.

        `stop` is set when the daemon is to end, `is_mesh_old` when it is to read its mesh file again.
        """
        self.engine: TlsEngine = choose_engine()
        self._mesh = mesh
        self._is_mesh_old = is_mesh_old
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._failure: WorkerFailed | None = None
        self._certificates = CertificateManager(LocalCa.open(options.ca_directory))
        self._steering = _steering(options)
        self._drivers: list[Driver] = []
        self._workers = self._make_workers(options, AccessLog(writer))
        self._manager = Manager(options.node, self._mesh, self._steering, self._workers)
        self._node = options.node
        self._tasks: list[asyncio.Task[Any]] = []
        self._settings = options.settings
        self._following = self._follow(options) if options.kubernetes else None
        self._reconciler = Reconciler(self._manager, self._steering, options.reconcile_s)
        self._runtime = RuntimePods(self._manager, _connect, options.cri_endpoint)
        self._runtime_watch = RuntimeWatch(self._runtime, self._manager, self._reconciler.collect)
        reads: list[Read] = [
            *(worker.metrics for worker in self._workers),
            partial(steering_families, options.node),
            self._reconciler.log.families,
        ]
        self._metrics = Metrics(reads, writer)
        self._pressure = Pressure()
        self._heartbeat = Heartbeat(self._steering.heart, self._workers)
        self._control: ControlServer | None = None
        self._reconciling: asyncio.Task[None] | None = None
        self._zds = self._make_zds(options) if options.zds else None

    async def start(self) -> None:
        """Take up work."""
        for driver in self._drivers:
            driver.start()
        self._tasks.append(spawn(every(RENEW_S, self._certificates.renew_due), "renew-certificates"))
        self._tasks.append(spawn(self._reload_meshes(), "reload-mesh"))
        if self._following is not None:
            await self._following.open()
            self._tasks.append(spawn(self._following.run(), "kubernetes"))
            if not await self._following.first(FIRST_MESH_S):
                _log.warning("Kubernetes is not heard yet; pods that were enrolled are refused until it is")
        await self._manager.restore()
        self._tasks.append(spawn(self._heartbeat.run(), "heartbeat"))
        self._tasks.append(spawn(self._mesh.watch(self._is_mesh_old), "watch-mesh"))
        self._tasks.append(spawn(self._pressure.watch(self._node), "watch-pressure"))
        views = Views(
            self._workers,
            self._manager,
            self._certificates,
            self._mesh,
            self._pressure,
            self._steering,
        )
        decide = partial(authorize, self._settings.compat)
        why = Why(self._workers, self._manager, self._mesh, self._settings, decide)
        if self._zds is not None:
            views.features["zds"] = self._zds.status
        commands = views.commands() | Births(self._manager).commands()
        commands |= {
            "why": why.why,
            "why_connection": why.why_connection,
            "enroll": self._runtime.enroll,
            "candidates": self._runtime.candidates,
            "unenroll": self._manager.unenroll,
            "metrics": self._metrics.text,
            "stop": self._stop.set,
        }
        self._control = ControlServer(RUN_ROOT / self._node / "control.sock", commands)
        await self._control.start()
        if not self._steering.is_external:  # there is nothing of ours that could drift
            self._reconciling = spawn(self._reconciler.run(), "reconcile")
            self._tasks.append(self._reconciling)
        if self._zds is not None:
            self._tasks.append(spawn(self._zds.run(), "zds"))
        self._tasks.append(spawn(self._runtime_watch.run(), "watch-runtime"))

    async def stopped(self) -> None:
        """Wait until the daemon is to end; raise WorkerFailed when that is because a worker did."""
        await self._stop.wait()
        if self._failure is not None:
            raise self._failure

    async def drain(self) -> None:
        """Let open connections end, for at most DRAIN_S seconds; what is new is on its own from now on."""
        self._heartbeat.stop()
        if self._reconciling is not None:
            self._reconciling.cancel()  # it would open again what is closed now
        await self._manager.drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(worker.idle() for worker in self._workers)), DRAIN_S)

    async def close(self) -> None:
        """Drop everything; the pins stay."""
        if self._control is not None:
            await self._control.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._runtime.close()
        for driver in self._drivers:
            await driver.stop()
        await self._manager.close()
        for driver in self._drivers:
            driver.close()
        self._steering.close()

    async def _reload_meshes(self) -> None:
        """Read the mesh file after each SIGHUP and change; the loss of a worker ends the daemon, and this."""
        with contextlib.suppress(WorkerFailed):
            while await self._is_mesh_old.wait():
                self._is_mesh_old.clear()
                await self._mesh.reload(self._manager.straws, self._workers)
                if self._following is not None:
                    self._following.taken()

    def _follow(self, options: Options) -> "Following":
        """Have Kubernetes as a source of the mesh, and of what is to be enrolled."""
        from zproxy.kube.follow import follow

        node, domain = options.node, options.settings.cluster_domain
        following = follow(options.kubeconfig, node, domain, self._manager, self._is_mesh_old.set)
        self._mesh.other = following.reading
        return following

    def _make_zds(self, options: Options) -> "ZdsClient":
        from zproxy.node.handed import HandedPods
        from zproxy.zds.client import ZdsClient

        return ZdsClient(options.zds, HandedPods(self._manager, self._mesh, options.trust_domain))

    def _make_workers(self, options: Options, log: AccessLog) -> list[PodWorker]:
        """Give each worker its own of everything that changes; connections are numbered by one counter."""
        numbers = itertools.count(1)
        made = []
        for number in range(options.workers):
            worker = Worker(Deadlines(idle_s=options.idle_s), Limits(), _crashed)
            driver = ThreadDriver(number, worker, self._tell_failure, options.busy_poll_us / 1e6)
            connections = Connections(
                log, worker.limits.ended_connections, worker.limits.metric_series, numbers
            )
            engine = self.engine if number == 0 else choose_engine()
            balancer = Balancer(options.settings, connections.totals.balancing)
            self._drivers.append(driver)
            make = partial(self._straw, worker, connections, engine, balancer)
            made.append(PodWorker(driver, connections, make))
        return made

    def _straw(
        self,
        worker: Worker,
        connections: Connections,
        engine: TlsEngine,
        balancer: Balancer,
        workload: Workload,
        netns: Netns,
    ) -> Straw:
        """Make the straw of a pod; called on `worker`."""
        pod = PodContext(
            workload=workload,
            worker=worker,
            sockets=MarkedSockets(netns)
            if self._steering.is_external
            else SocketFactory(netns, self._steering.exempt),
            mesh=self._mesh,
            certificates=self._certificates.source(workload.identity),
            engine=engine,
            connections=connections,
            decide=partial(authorize, self._settings.compat),
            settings=self._settings,
            balancer=balancer,
            find_resolver=partial(self._steering.find_resolver, netns.cookie()),
        )
        return Straw(pod)

    def _tell_failure(self, failure: WorkerFailed) -> None:
        """A worker is lost, and may say so from its own thread."""
        self._loop.call_soon_threadsafe(self._give_up, failure)

    def _give_up(self, failure: WorkerFailed) -> None:
        """End the daemon: pods that are steered to nobody must be refused, NEVER left hanging."""
        _log.error("%s; the daemon ends, and its pods are refused until one is back", failure)
        self._failure = self._failure or failure
        self._stop.set()


def _connect(path: Path) -> Asks:
    """Make the client of a container runtime: gRPC is loaded where there is one to ask."""
    from zproxy.cri.client import RuntimeClient

    return RuntimeClient(path)


def _steering(options: Options) -> Steering:
    if options.is_external:
        from zproxy.steering.external import External

        return External.open_for(options.node)
    return Steering.open(
        options.node, cgroup_root=options.cgroup_root, attach=options.attach, probes=options.probes
    )


def _crashed(item: Pollable | Flushable | Waiter | Ticking, error: Exception) -> None:
    """A handler raised: end what it was handling, keep the node."""
    _log.error("internal error in %s", type(item).__name__, exc_info=error)
    try:
        item.abort(f"{type(error).__name__}: {error}")
    except Exception:  # the object is beyond repair; its fd is closed when it is collected
        _log.exception("cannot close after an internal error")
