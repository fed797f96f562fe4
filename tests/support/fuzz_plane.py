"""Fuzz target: a pod's whole data plane, from its listeners through relays and tunnels, without a kernel.

One tunnel to a hostile peer, apps that send, stall, end and break at any moment. After every step all events
are served; after the case nothing of it may be left anywhere.
"""

import errno
from random import Random
from typing import Any, Final, NamedTuple

from tests.support.ca import shared_ca
from tests.support.fake_net import FakeEngine, FakePoller, FakeSocket
from tests.support.fuzz_frames import Soup, cuts, halves, joined, mutate, pieces
from tests.support.fuzz_wire import GREETING, LIMITS, Call, Feed
from tests.support.mesh import allow_all, behind, mesh, service, workload
from tests.support.plane import CLIENT_IP, SERVER_IP, FixedCertificates, Lines
from zproxy.config import Deadlines
from zproxy.hbone.pool import Pool
from zproxy.hbone.tunnel import State
from zproxy.model.addr import Endpoint
from zproxy.model.settings import DEFAULT_SETTINGS
from zproxy.net.buffers import Buffers
from zproxy.net.worker import Worker
from zproxy.observe.connections import Connections
from zproxy.proxy.balancer import Balancer
from zproxy.proxy.context import PodContext
from zproxy.proxy.inbound import Inbound
from zproxy.proxy.outbound import Outbound, dial_tunnel
from zproxy.proxy.relay import StreamRelay
from zproxy.wire import frames
from zproxy.wire.stream import Role

SMALL: Final = LIMITS._replace(backlog_bytes=4096, streams_waiting=6)
_VIP: Final = Endpoint("10.96.0.1", 80)
_WEB: Final = service("demo/web.test", _VIP.ip)
_MESH: Final = mesh(
    workload("demo/client", CLIENT_IP),
    behind(workload("demo/server", SERVER_IP), _WEB),
    behind(workload("demo/twin", "127.0.0.3", service_account="server"), _WEB),
    _WEB,
)
_CALLS: Final = (
    "connect", "app sends", "app sends", "app sends", "app drains", "app takes", "app stalls", "app ends",
    "tunnel drains", "tunnel takes", "new app", "refuse", "app breaks", "tunnel stalls", "tick",
    "tunnel ends", "tunnel breaks",
)  # fmt: skip


class Case(NamedTuple):
    """A story of one pod."""

    role: Role
    steps: tuple[Feed | Call, ...]

    def __str__(self) -> str:
        lines = [
            f"feed {step.raw.hex()} cut at {step.cuts}" if isinstance(step, Feed)
            else f"call {step.name} socket {step.stream} value {step.value}"
            for step in self.steps
        ]  # fmt: skip
        return "\n".join([f"the pod is the {self.role.value}", *lines])


def make(rng: Random) -> Case:
    """Return a case."""
    role = Role.SERVER if rng.random() < 0.5 else Role.CLIENT
    soup = Soup(rng, to_server=role is Role.SERVER)
    steps: list[Feed | Call] = []
    if role is Role.CLIENT:
        for _ in range(1 + soup.below(5)):
            soup.opened()
            steps.append(Call("new app", 0, 0))
        steps.append(Call("connect", 0, 0))
    steps.append(Feed((frames.PREFACE if role is Role.SERVER else b"") + GREETING, ()))
    wildness = 0.0 if rng.random() < 0.7 else 0.4
    for _ in range(2 + soup.below(7)):
        made = soup.frames(soup.below(4))
        raw = mutate(soup, rng, made) if rng.random() < wildness else joined(made)
        if role is Role.CLIENT and rng.random() < 0.1:
            raw = GREETING + raw  # for a tunnel that took the place of a lost one
        for part in halves(soup, raw):
            steps += [
                Call(_CALLS[int(rng.random() ** 2 * len(_CALLS))], soup.below(8), soup.below(3000))
                for _ in range(soup.below(5))
            ]
            steps.append(Feed(part, cuts(soup, part)))
    return Case(role, tuple(steps))


def run(case: Case) -> None:
    """Run a case; what it finds is an exception."""
    world = World(case.role)
    for step in case.steps:
        if isinstance(step, Feed):
            for piece in pieces(step.raw, step.cuts):
                world.feed(piece)
        else:
            world.call(step)
        world.check()
    world.finish()


class World:
    """One pod and what it talks to."""

    def __init__(self, role: Role) -> None:
        self._is_server = role is Role.SERVER
        self.poller = FakePoller()
        self.worker = Worker(Deadlines(), SMALL, _crashed)
        self.worker.poller.close()
        self.worker.poller = self.poller  # type: ignore[assignment] # stands in for the real one
        self.worker.buffers = _BUFFERS
        _BUFFERS.lent = 0
        self.connections = Connections(Lines(), 4, 4)
        client, server, _ = _MESH.workloads
        here, there = (server, client) if self._is_server else (client, server)
        self.pod = PodContext(
            workload=here,
            worker=self.worker,
            sockets=self,  # type: ignore[arg-type] # stands in for a SocketFactory
            mesh=lambda: _MESH,
            certificates=FixedCertificates(here.identity, _CREDENTIALS),  # type: ignore[arg-type] # likewise
            engine=FakeEngine(str(there.identity)),  # type: ignore[arg-type] # likewise
            connections=self.connections,
            decide=allow_all,
            settings=DEFAULT_SETTINGS,
            balancer=Balancer(DEFAULT_SETTINGS, self.connections.totals.balancing, Random(7)),
        )
        self.pod.pool = Pool(
            lambda key, watcher: dial_tunnel(self.pod, key, watcher),
            SMALL.streams_waiting,
            self.connections.totals.tunnels["client"],
        )
        self._outbound = Outbound(self.pod)
        self.apps: list[FakeSocket] = []
        self.tunnels: list[FakeSocket] = []
        if self._is_server:
            self.tunnels.append(self.poller.socket(ip=SERVER_IP))
            Inbound(self.pod).on_accept(_real(self.tunnels[0]), (CLIENT_IP, 40000))

    def dial(self, _to: Endpoint) -> FakeSocket:
        """See SocketFactory: a tunnel's socket."""
        self.tunnels.append(self.poller.socket(is_connecting=True))
        return self.tunnels[-1]

    def dial_app(self, _to: Endpoint, _source_ip: str) -> FakeSocket:
        """See SocketFactory; every fifth fails at once."""
        if len(self.apps) % 5 == 4:
            self.apps.append(self.poller.socket())
            self.apps[-1].close()
            raise OSError(errno.EADDRNOTAVAIL, "connect")
        self.apps.append(self.poller.socket(is_connecting=True))
        return self.apps[-1]

    def original_destination(self, _sock: FakeSocket) -> Endpoint:
        """See SocketFactory: every other app dials a service of two endpoints, so that there is another."""
        return _VIP if len(self.apps) % 2 else Endpoint(SERVER_IP, 8080)

    def feed(self, piece: bytes) -> None:
        """Let the peer say something, on the youngest tunnel."""
        if self.tunnels and not (self.tunnels[-1].is_closed or self.tunnels[-1].is_ended):
            self.tunnels[-1].inbox += piece
            self.poller.settle()

    def call(self, call: Call) -> None:
        """Do something that is not the peer's frames."""
        if call.name == "new app" and not self._is_server:
            self.apps.append(self.poller.socket())
            self._outbound.on_accept(_real(self.apps[-1]), (CLIENT_IP, 50000 + len(self.apps)))
        elif call.name == "tick":
            self.poller.now += call.value / 300
            self.worker.sweep()
        elif call.name in {"connect", "refuse"}:
            self._connect(errno.ECONNREFUSED if call.name == "refuse" else 0)
        else:
            whose, _, what = call.name.partition(" ")
            sockets = [sock for sock in (self.apps if whose == "app" else self.tunnels) if not sock.is_closed]
            if sockets:
                _move(sockets[call.stream % len(sockets)], what, call.value)
        if call.value % 3:  # else it is served together with what the next step brings
            self.poller.flush()
            self.poller.settle()

    def _connect(self, code: int) -> None:
        for sock in (*self.apps, *self.tunnels):
            if sock.is_connecting:
                sock.is_connecting, sock.error = False, code

    def check(self) -> None:
        """What is held stays within its limits."""
        for relay in self.pod.relays:
            assert isinstance(relay, StreamRelay)
            assert len(relay._pending or b"") <= SMALL.stream_window
            assert not relay.is_done
            is_whole = relay._is_app_ended and relay._is_peer_ended  # only its app's socket is slow
            is_lost = relay.tunnel is not None and relay.tunnel.state is State.CLOSED
            assert is_whole or not is_lost, "a relay does not know that its tunnel is gone"
        for tunnel in (*self.pod.pool.tunnels(), *self.pod.tunnels):
            assert len(tunnel._outbox._backlog) <= SMALL.backlog_bytes + 32_768
            assert len(tunnel._starved) <= len(self.pod.relays)
        assert _BUFFERS.lent == 0, "a buffer is kept after the batch"
        assert self.connections.live() == len(self.pod.relays)

    def finish(self) -> None:
        """End the pod as its straw does; nothing may be left."""
        for relay in tuple(self.pod.relays):
            relay.give_up("the case is over", "DRAIN")
        for tunnel in (*self.pod.pool.tunnels(), *self.pod.tunnels):
            tunnel.close()
        self.poller.flush()
        worker, pod = self.worker, self.pod
        assert len(self.poller) == 0, "an fd is still watched"
        assert all(sock.is_closed for sock in (*self.apps, *self.tunnels)), "a socket is left open"
        assert not pod.relays
        assert not pod.tunnels
        assert not pod.pool._tunnels
        assert not pod.pool._waiting
        assert pod.pool._waiters == 0
        assert not worker.ticking
        waits = (worker.connecting, worker.handshaking, worker.answering, worker.half_closed)
        assert not any(map(len, waits)), "something still waits"
        assert _BUFFERS.lent == 0
        assert not pod.balancer._open, "a connection is still counted"
        totals = self.connections.totals
        assert totals.opened == totals.closed
        assert self.connections.live() == 0


class CountedBuffers(Buffers):
    """Knows how many batches are lent; shared by all cases of a process, since making them costs more."""

    def __init__(self) -> None:
        super().__init__()
        self.lent = 0

    def borrow(self) -> memoryview:
        self.lent += 1
        return super().borrow()

    def give_back(self, batch: memoryview) -> None:
        self.lent -= 1
        super().give_back(batch)


_BUFFERS: Final = CountedBuffers()
_CREDENTIALS: Final = shared_ca().credentials("spiffe://cluster.local/ns/demo/sa/fuzz")


def _move(sock: FakeSocket, what: str, value: int) -> None:
    if what == "sends" and not sock.is_ended:
        sock.inbox += bytes(value)
    elif what == "ends":
        sock.is_ended = True
    elif what == "breaks":
        sock.error = errno.ECONNRESET
    elif what in {"stalls", "takes", "drains"}:
        sock.room = {"stalls": 0, "takes": value // 10, "drains": None}[what]


def _real(sock: FakeSocket) -> Any:
    return sock


def _crashed(_item: object, error: Exception) -> None:
    raise AssertionError("a handler failed") from error
