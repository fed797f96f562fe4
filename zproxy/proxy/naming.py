"""A connection to a workload that is known by its host name only: wait for its address."""

import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

from zproxy.errors import NameFailed
from zproxy.model.route import Role, Upstream
from zproxy.net.deadline import Deadline
from zproxy.net.names import Answer
from zproxy.net.sockets import close_with_reset
from zproxy.observe.connections import Connection
from zproxy.proxy.relay import app_error
from zproxy.proxy.tries import Tries

if TYPE_CHECKING:
    from zproxy.proxy.outbound import Outbound


class Naming:
    """Holds the app's socket until DNS has answered, or took too long."""

    def __init__(
        self,
        outbound: "Outbound",
        sock: socket.socket,
        connection: Connection,
        route: Upstream,
        tries: Tries,
    ) -> None:
        self.connection = connection
        self._outbound = outbound
        self._sock = sock
        self._route = route
        self._tries = tries
        self._is_done = False
        connection.hbone_addr = route.authority
        outbound.pod.relays.add(self)
        outbound.pod.worker.poller.add(sock.fileno(), self, 0)

    def begin(self) -> None:
        """Take up work; what follows may happen before this returns."""
        pod, route = self._outbound.pod, self._route
        worker = pod.worker
        pod.connections.totals.names.count(pod.workload, pod.identity, route.hostname)
        worker.naming.start(self, worker.poller.now)
        worker.names.find(route.hostname, self)

    def on_name(self, answer: Answer) -> None:
        """Go on to the address, or elsewhere."""
        if self._is_done:
            return
        route = self._route
        ips = self._usable(answer.ips)
        if ips:
            address = route.address._replace(ip=ips[0])
            self._part()
            self._outbound.follow(self._sock, self.connection, route._replace(address=address), self._tries)
        else:
            why = (
                answer.error
                or f"it has no address of a family that could be dialled ({', '.join(answer.ips)})"
            )
            self._fail(NameFailed(f"no address for {route.workload.pod}: {route.hostname}: {why}"))

    def on_event(self, events: int) -> None:
        """The app hung up, unless it only will send no more."""
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.give_up(app_error(code), "CONNECT")

    def on_deadline(self, deadline: Deadline) -> None:
        """DNS took too long."""
        self._fail(
            NameFailed(f"no address for {self._route.workload.pod}: {self._route.hostname}: {deadline}")
        )

    def abort(self, error: str) -> None:
        """End because of a fault of our own."""
        self.give_up(f"internal error: {error}", "INTERNAL")

    def give_up(self, error: str, reason: str) -> None:
        """End abnormally."""
        if self._is_done:
            return
        self._part()
        close_with_reset(self._sock)
        pod = self._outbound.pod
        pod.connections.end(self.connection, pod.worker.poller.now, error, reason)

    def _fail(self, error: NameFailed) -> None:
        outbound, route = self._outbound, self._route
        outbound.unreachable(route, error)
        tries = self._tries.after(route, self._tries.said)
        found = outbound.another(self.connection, tries)
        if found is None:
            self.give_up(str(error), error.reason)
            return
        self._part()
        outbound.follow(self._sock, self.connection, found, tries)

    def _usable(self, ips: Iterable[str]) -> list[str]:
        """Return the addresses that may be dialled, those of the family that the app dialled first."""
        route, pod = self._route, self._outbound.pod
        families = {":" in ip for ip in pod.workload.workload_ips}
        service = route.service if route.role is Role.DESTINATION else None
        wanted = ":" in self.connection.wanted.ip
        found = [
            ip
            for ip in ips
            if (":" in ip) in families and (service is None or service.ip_families.allows(ip))
        ]
        return sorted(found, key=lambda ip: (":" in ip) != wanted)

    def _part(self) -> None:
        self._is_done = True
        worker = self._outbound.pod.worker
        worker.naming.done(self)
        worker.names.give_up(self._route.hostname, self)
        worker.poller.remove(self._sock.fileno())
        self._outbound.pod.relays.discard(self)
