"""Open connections of one pod, decided again because the mesh is another one; in slices."""

import logging
from collections.abc import Iterator
from typing import Final

from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction
from zproxy.model.route import Route, Upstream
from zproxy.observe.connections import Connection
from zproxy.proxy.context import PodContext, Relay
from zproxy.state.recheck import objection

SLICE_S: Final = 0.002
"""How long connections are looked at before others of the worker get their turn."""
CHANGED: Final = "connection closed due to policy change: "

_log = logging.getLogger("zproxy.policy")


class Recheck:
    """Ends what current policies and routes no longer allow, with the current records of both ends."""

    def __init__(self, pod: PodContext) -> None:
        """Look at the connections that are open now; later ones are decided by the new mesh anyway."""
        self._pod = pod
        self._newest = max((relay.connection.id for relay in pod.relays), default=0)
        self._left = self._relays()
        self._objections: dict[tuple[object, ...], str] = {}
        self.closed = 0

    def advance(self) -> bool:
        """Look at as many as there is time for, at least at one; return whether there may be more."""
        clock = self._pod.worker.poller.clock
        ends = clock() + SLICE_S
        for relay in self._left:
            why = self._objection(relay.connection)
            if why:
                relay.give_up(CHANGED + why, "DENY")
                self.closed += 1
            if clock() >= ends:
                return True
        if self.closed:
            _log.info(
                "%d connections of %s closed because they are no longer allowed after a change of the mesh",
                self.closed,
                self._pod.name,
            )
        return False

    def _relays(self) -> Iterator[Relay]:
        """Yield each once, until none is left: between slices one may hand its connection to another."""
        relays, seen = self._pod.relays, set[Relay]()
        while found := [each for each in relays - seen if each.connection.id <= self._newest]:
            seen.update(found)
            yield from (each for each in found if each in relays)

    def _objection(self, connection: Connection) -> str:
        pod, peers = self._pod, connection.peers
        if connection.direction is Direction.INBOUND:
            if peers is None:
                return ""
            return pod.authorize(peers, connection.src.ip, connection.wanted).reason
        route = connection.route
        if route is None:
            return ""
        key = _key(connection.wanted, route)
        found = self._objections.get(key)
        if found is None:
            found = self._objections[key] = objection(
                pod.mesh(), pod.workload, connection.wanted, route, pod.settings
            )
        return found


def _key(wanted: Endpoint, route: Route) -> tuple[object, ...]:
    """Return what connections with the same objections have in common."""
    if isinstance(route, Upstream):
        return wanted, route.workload.uid, route.role, route.address, route.identities
    return wanted, type(route)
