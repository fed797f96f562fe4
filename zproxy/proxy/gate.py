"""Connections of a pod that the mesh has no record of yet: held for a while, and refused when none comes.

Without its record nobody knows which policies select the pod and by what it goes to others: nothing passes,
not even in the clear.
"""

import socket

from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction
from zproxy.net.deadline import Deadline
from zproxy.net.listener import Accepted
from zproxy.net.sockets import close_with_reset, peer_of
from zproxy.proxy.context import PodContext


class Gate:
    """Stands before the handler of one listener."""

    def __init__(self, pod: PodContext, handler: Accepted, direction: Direction) -> None:
        self._pod = pod
        self._handler = handler
        self._direction = direction
        self._held: set[Held] = set()

    def on_accept(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """Let a connection through, hold it, or refuse it when too many are held."""
        pod = self._pod
        if pod.is_known:
            self._handler(sock, address)
            return
        held = Held(self, sock, address)
        if len(self._held) >= pod.worker.limits.held_connections:
            self.refuse(held, "too many connections wait for it")
            return
        self._held.add(held)
        pod.worker.awaiting.start(held, pod.worker.poller.now)

    def open(self) -> None:
        """Let everything through that is held, if the mesh knows the pod by now."""
        if self._pod.is_known:
            for held in self._take_all():
                self._handler(held.sock, held.address)

    def close(self, error: str) -> None:
        """Refuse what is held."""
        for held in self._take_all():
            self.refuse(held, error)

    def refuse(self, held: "Held", why: str) -> None:
        """Reset one connection, which is held no longer."""
        self._held.discard(held)
        pod = self._pod
        now = pod.worker.poller.now
        pod.worker.awaiting.done(held)
        connection = pod.connections.open(pod.name, self._direction, peer_of(held.address), held.at(), now)
        close_with_reset(held.sock)
        text = f"failed to fetch information about local workload: {pod.name} is not in the mesh: {why}"
        pod.connections.end(connection, now, text, "DENY")

    def _take_all(self) -> tuple["Held", ...]:
        held = tuple(self._held)
        self._held.clear()
        for each in held:
            self._pod.worker.awaiting.done(each)
        return held


class Held:
    """One connection that waits."""

    __slots__ = ("_gate", "address", "sock")

    def __init__(self, gate: Gate, sock: socket.socket, address: tuple[str, int]) -> None:
        self._gate = gate
        self.sock = sock
        self.address = address

    def at(self) -> Endpoint:
        """Return where it arrived."""
        return peer_of(self.sock.getsockname())

    def on_deadline(self, deadline: Deadline) -> None:
        """The record did not come in time."""
        self._gate.refuse(self, str(deadline))

    def abort(self, error: str) -> None:
        """Something in zproxy went wrong."""
        self._gate.refuse(self, error)
