"""A straw: the listeners that zproxy holds inside one pod's namespace, and everything that came of them."""

import errno
import itertools
import socket
from collections.abc import Callable, Iterator
from functools import partial

from zproxy.dns.server import DnsServer
from zproxy.errors import EnrollError, TunnelClosed
from zproxy.hbone.client import ClientTunnel
from zproxy.hbone.pool import Pool
from zproxy.hbone.tunnel import Tunnel
from zproxy.model import ports
from zproxy.model.conn import Direction
from zproxy.net.listener import Accepted, Listener
from zproxy.net.sockets import tune
from zproxy.proxy.context import PodContext
from zproxy.proxy.gate import Gate
from zproxy.proxy.inbound import Inbound
from zproxy.proxy.outbound import Outbound, dial_tunnel
from zproxy.proxy.plaintext import Plaintext
from zproxy.proxy.recheck import Recheck
from zproxy.state.recheck import has_left
from zproxy.state.store import Mesh

TunnelView = Tunnel
"""What `tunnels` yields, for those who may not know zproxy.hbone."""
PORTS = (ports.OUTBOUND, ports.INBOUND_PLAINTEXT, ports.INBOUND_HBONE, ports.DNS)


class Straw:
    """Open from construction to `close`; ALWAYS closes every socket that it or its relays opened.

    Owns the pod's certificate source, too: who has no straw has no identity.
    """

    def __init__(self, pod: PodContext) -> None:
        self.pod = pod
        counts = pod.connections.totals.tunnels["client"]
        pod.pool = Pool(partial(dial_tunnel, pod), pod.worker.limits.streams_waiting, counts)
        self.on_lost: Callable[[], object] = bool
        """Called when the kernel has taken a listener away, from the worker's thread; see `reopen`."""
        self.dns = DnsServer(
            worker=pod.worker,
            sockets=pod.sockets,
            workload=lambda: pod.workload,
            mesh=pod.mesh,
            settings=pod.settings,
            find_resolver=pod.find_resolver,
            counts=pod.connections.totals.dns,
        )
        self._gates: list[Gate] = []
        self._handlers: tuple[Accepted, ...] = (
            self._gated(Outbound(pod).on_accept, Direction.OUTBOUND),
            self._gated(Plaintext(pod).on_accept, Direction.INBOUND),
            self._gated(Inbound(pod).on_accept, Direction.INBOUND),
            self.dns.on_accept,
        )
        datagrams, *sockets = self._bind()
        self.dns.open(datagrams)
        self.listeners = [self._serve(*each) for each in zip(sockets, self._handlers, strict=True)]

    @property
    def plaintext_fd(self) -> int:
        """The listener that steering assigns inbound connections to."""
        return self.listeners[1].sock.fileno()

    def tunnels(self) -> Iterator[TunnelView]:
        """Yield the tunnels of this pod, dialled and accepted."""
        return itertools.chain(tuple(self.pod.pool.tunnels()), tuple(self.pod.tunnels))

    def descriptors(self) -> list[int]:
        """Return those of the sockets that take what comes: listeners, and the one for queries by UDP."""
        found = [*(listener.sock.fileno() for listener in self.listeners), self.dns.datagrams_fd]
        return [each for each in found if each >= 0]

    def on_mesh(self, former: Mesh) -> Recheck:
        """Drop dialled tunnels that lead to somebody else, now that another mesh took the place of `former`.

        A pod that is gone answers nothing, and who has its address now is not who was meant. Returns what
        decides about the open connections again; the caller advances it until it is done.
        """
        mesh = self.pod.mesh()

        def is_stale(tunnel: ClientTunnel) -> bool:
            key = tunnel.key
            proven = (tunnel.peer,) if tunnel.peer else key.dst_identities
            return has_left(former, mesh, key.dst_uid, key.dst.ip, proven)

        self.pod.balancer.on_mesh(mesh)
        recheck = Recheck(self.pod)
        self.pod.pool.retire(is_stale, TunnelClosed("the pod at the end of the tunnel left the mesh"))
        for gate in self._gates:  # only now: what it dials is of this mesh already
            gate.open()
        self.pod.worker.poller.flush()
        return recheck

    def reopen(self) -> None:
        """Listen again where a listening socket was destroyed; raise EnrollError, and the others stay.

        Connections that it had accepted live on.
        """
        if self.dns.datagrams_fd < 0:
            self.dns.open(_bound(ports.DNS, self.pod.sockets.bind_datagrams))
        for number, listener in enumerate(self.listeners):
            if not listener.is_listening:
                sock = _bound(listener.port, self._listen)
                listener.close()
                self.listeners[number] = self._serve(sock, self._handlers[number])

    def drain(self) -> None:
        """Take nothing new; let what is under way end."""
        for listener in self.listeners:
            listener.close()
        for gate in self._gates:
            gate.close("zproxy is shutting down")
        self.dns.drain()
        for tunnel in self.tunnels():
            tunnel.drain()

    def close(self, error: str) -> None:
        """End everything now; connections that are still open end with `error`."""
        for listener in self.listeners:
            listener.close()
        for gate in self._gates:
            gate.close(error)
        self.dns.close()
        for relay in tuple(self.pod.relays):
            relay.give_up(error, "DRAIN")
        for tunnel in self.tunnels():
            tunnel.close()
        self.pod.worker.poller.flush()
        self.pod.certificates.close()

    def _serve(self, sock: socket.socket, handler: Accepted) -> Listener:
        listener = Listener(sock, self.pod.worker.poller, handler, self.pod.worker.paused)
        listener.on_lost = self._lose
        return listener

    def _gated(self, handler: Accepted, direction: Direction) -> Accepted:
        """Hold connections of a pod that the mesh is still to know; its DNS tells nobody anything."""
        if not self.pod.enrolled.is_awaited:
            return handler
        gate = Gate(self.pod, handler, direction)
        self._gates.append(gate)
        return gate.on_accept

    def _lose(self) -> None:
        self.on_lost()

    def _bind(self) -> tuple[socket.socket, ...]:
        opened: list[socket.socket] = []
        try:
            opened.append(_bound(ports.DNS, self.pod.sockets.bind_datagrams))
            opened.extend(_bound(port, self._listen) for port in PORTS)
        except BaseException:
            for sock in opened:
                sock.close()
            self.pod.certificates.close()
            raise
        return tuple(opened)

    def _listen(self, port: int) -> socket.socket:
        sock = self.pod.sockets.listen(port, self.pod.worker.limits.backlog)
        tune(sock)  # and with it everything that it accepts
        return sock


def _bound(port: int, listen: Callable[[int], socket.socket]) -> socket.socket:
    try:
        return listen(port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise EnrollError(
                f"port {port} is in use inside the pod: its app or another mesh proxy listens there; "
                "`ss -lntp` in the pod's namespace names it"
            ) from error
        raise EnrollError(f"cannot listen on port {port} inside the pod: {error.strerror}") from error
