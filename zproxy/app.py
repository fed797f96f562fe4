"""The composition root: builds the node daemon in a fixed order, runs it, and takes it down again.

Nothing else constructs its collaborators. Order: lock, mesh, identity, steering, control socket, pods.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import logging
import os
import re
import resource
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvloop

from zproxy import __version__
from zproxy.config import RUN_ROOT, Deadlines, Limits
from zproxy.errors import ConfigError, RequirementError
from zproxy.identity.ca import LocalCa
from zproxy.identity.manager import CertificateManager
from zproxy.model.conn import OutboundPolicy
from zproxy.model.workload import Workload
from zproxy.net.netns import Netns
from zproxy.net.poller import Flushable, Pollable
from zproxy.net.sockets import SocketFactory
from zproxy.net.tasks import spawn
from zproxy.net.worker import SWEEP_S, Worker
from zproxy.node.control import ControlServer
from zproxy.node.manager import Manager
from zproxy.node.views import Views
from zproxy.observe.access import AccessLog
from zproxy.observe.connections import Connections
from zproxy.observe.log import LineWriter, set_up
from zproxy.observe.metrics import Metrics
from zproxy.proxy.context import PodContext
from zproxy.proxy.straw import Straw
from zproxy.sources import file
from zproxy.state.policy import allow_all
from zproxy.state.store import Mesh
from zproxy.steering.steering import Steering
from zproxy.wire.tls import TlsEngine, choose_engine

DRAIN_S: Final = 5.0
"""After SIGTERM, how long open connections may go on: ztunnel's CONNECTION_TERMINATION_DEADLINE."""
RENEW_S: Final = 60.0
PR_SET_NAME: Final = 15
MAX_NODE_NAME: Final = 80
"""A socket's path has room for 107 bytes, the control socket's directory included (unix(7))."""
NODE_NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9.-]{{0,{MAX_NODE_NAME - 1}}}")

_log = logging.getLogger("zproxy")


@dataclass(frozen=True, slots=True)
class Options:
    """What `zproxy run` was asked for."""

    node: str
    config: Path
    ca_directory: Path
    verbose: bool = False
    outbound_policy: OutboundPolicy = OutboundPolicy.ALLOW_ANY


def run(options: Options) -> None:
    """Run the node daemon until SIGTERM or SIGINT; raise ZproxyError when it cannot start."""
    if os.geteuid() != 0:
        raise RequirementError(
            "zproxy run needs root (it enters namespaces and loads eBPF); run it with sudo"
        )
    mesh = file.load(options.config)
    _name_process()
    _raise_file_limit()
    with _only_daemon(options.node), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options, mesh))


async def _serve(options: Options, mesh: Mesh) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    writer = LineWriter(1)
    set_up(writer, verbose=options.verbose)
    try:
        async with AsyncExitStack() as stack:
            daemon = Daemon(options, mesh, writer)
            stack.push_async_callback(daemon.close)
            await daemon.start(stop)
            _log.info("ready: node %s, zproxy %s, TLS by %s", options.node, __version__, daemon.engine.name)
            await stop.wait()
            _log.info("stopping; enrolled pods stay steered and are refused until a daemon is back")
            await daemon.drain()
    finally:
        writer.close()


class Daemon:
    """Everything of one node, built and connected."""

    def __init__(self, options: Options, mesh: Mesh, writer: LineWriter) -> None:
        self.engine: TlsEngine = choose_engine()
        self._mesh = mesh
        self._worker = Worker(Deadlines(), Limits(), _crashed)
        limits = self._worker.limits
        self._connections = Connections(AccessLog(writer), limits.ended_connections, limits.metric_series)
        self._certificates = CertificateManager(LocalCa.open(options.ca_directory))
        self._steering = Steering.open(options.node)
        self._manager = Manager(options.node, lambda: self._mesh, self._steering, self._straw)
        self._node = options.node
        self._outbound_policy = options.outbound_policy
        self._metrics = Metrics(self._connections, writer)
        self._timers: list[asyncio.Task[Any]] = []
        self._control: ControlServer | None = None

    async def start(self, stop: asyncio.Event) -> None:
        """Take up work; `stop` is what the control command `stop` sets."""
        asyncio.get_running_loop().add_reader(self._worker.poller.fileno(), self._worker.poller.run_batch)
        self._timers = [
            spawn(_every(SWEEP_S, self._worker.sweep), "sweep"),
            spawn(_every(RENEW_S, self._certificates.renew_due), "renew-certificates"),
        ]
        await self._manager.restore()
        views = Views(
            self._node, self._worker, self._manager, self._connections, self._certificates, lambda: self._mesh
        )
        commands = views.commands() | {
            "enroll": self._manager.enroll,
            "unenroll": self._manager.unenroll,
            "metrics": self._metrics.text,
            "stop": stop.set,
        }
        self._control = ControlServer(RUN_ROOT / self._node / "control.sock", commands)
        await self._control.start()

    async def drain(self) -> None:
        """Let open connections end, for at most DRAIN_S seconds."""
        for pod in self._manager.pods.values():
            pod.straw.drain()
        self._worker.poller.flush()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._connections.idle(), DRAIN_S)

    async def close(self) -> None:
        """Drop everything; the pins stay."""
        if self._control is not None:
            await self._control.close()
        await self._manager.close()
        for timer in self._timers:
            timer.cancel()
        asyncio.get_running_loop().remove_reader(self._worker.poller.fileno())
        self._worker.close()
        self._steering.close()

    def _straw(self, workload: Workload, netns: Netns) -> Straw:
        pod = PodContext(
            workload=workload,
            worker=self._worker,
            sockets=SocketFactory(netns, self._steering.exempt),
            mesh=lambda: self._mesh,
            certificates=self._certificates.source(workload.identity),
            engine=self.engine,
            connections=self._connections,
            decide=allow_all,
            outbound_policy=self._outbound_policy,
        )
        return Straw(pod)


@contextmanager
def _only_daemon(node: str) -> Iterator[None]:
    """Hold the node's lock for as long as the daemon runs; raise ConfigError when another holds it."""
    if not NODE_NAME.fullmatch(node):
        raise ConfigError(
            f"--node {node!r} is not a node name: letters, digits, '-' and '.' only, the first a letter or "
            f"digit, {MAX_NODE_NAME} at most"
        )
    directory = RUN_ROOT / node
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / "lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode().strip() or "unknown"
            raise ConfigError(
                f"a zproxy daemon for node {node} runs already (pid {holder}); stop it or use another --node"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


async def _every(seconds: float, work: Any) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            work()
        except Exception:  # a timer that dies would leave deadlines unenforced
            _log.exception("timer failed")


def _crashed(item: Pollable | Flushable, error: Exception) -> None:
    """A handler raised: end what it was handling, keep the node."""
    _log.error("internal error in %s", type(item).__name__, exc_info=error)
    try:
        item.abort(f"{type(error).__name__}: {error}")
    except Exception:  # the object is beyond repair; its fd is closed when it is collected
        _log.exception("cannot close after an internal error")


def _name_process() -> None:
    """Let ss, ps and top show `zproxy` instead of the interpreter."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, b"zproxy", 0, 0, 0)


def _raise_file_limit() -> None:
    """Every connection is two descriptors: take all that the hard limit gives."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
