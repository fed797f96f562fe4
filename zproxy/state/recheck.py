"""Whether a connection that was sent somewhere may stay there, now that the mesh is another one.

It may while its endpoint is who it was, and nobody's choice forbids the way it took. What would be chosen
differently today (other weights, an endpoint that turned unhealthy, a waypoint that went away) is no reason
to break what works.
"""

from collections.abc import Sequence

from zproxy.model.addr import Endpoint
from zproxy.model.route import Passthrough, Refuse, Role, Route, Upstream
from zproxy.model.service import Service, WeightedWaypoint
from zproxy.model.settings import Settings
from zproxy.model.workload import Protocol, Workload
from zproxy.state.choose import Candidate
from zproxy.state.reference import refer
from zproxy.state.resolve import resolve
from zproxy.state.store import Mesh


def objection(mesh: Mesh, source: Workload, wanted: Endpoint, route: Route, settings: Settings) -> str:
    """Return why the connection that `source` made to `wanted` by `route` must end; empty: it may go on."""
    if isinstance(route, Refuse):
        return ""
    if isinstance(route, Upstream) and (why := _is_another(mesh, route)):
        return why
    kept = _Staying(mesh, source, route.workload.uid if isinstance(route, Upstream) else "")
    now = resolve(mesh, source, wanted, settings, kept)
    if isinstance(now, Refuse):
        return now.reason if now.is_forbidden else ""
    if isinstance(now, Passthrough):
        return ""
    if isinstance(route, Passthrough):
        is_clear = bool(now.identities)
        return f"{wanted} is {now.workload.pod} of the mesh now, and this is in the clear" if is_clear else ""
    if now.role is Role.WAYPOINT and (route.role, route.workload.uid) != (now.role, now.workload.uid):
        return f"{wanted} is reached through the waypoint {now.workload.pod} now"
    return ""


def _is_another(mesh: Mesh, route: Upstream) -> str:
    """Return in which way the workload that was dialled is not the one it was."""
    then, now = route.workload, mesh.by_uid(route.workload.uid)
    if now is None:
        return f"{then.pod} left the mesh"
    if route.identities and str(now.identity) not in route.identities:
        return f"{then.pod} is {now.identity} now"
    if route.address.ip and not route.hostname and route.address.ip not in now.workload_ips:
        return f"{then.pod} is not at {route.address.ip} any more"
    if not route.identities and now.protocol is Protocol.HBONE:
        return f"{then.pod} has HBONE now, and this is in the clear"
    return ""


class _Staying:
    """A chooser that stays with a workload for as long as it may be chosen."""

    def __init__(self, mesh: Mesh, source: Workload, uid: str) -> None:
        self._mesh = mesh
        self._source = source
        self._uid = uid

    def endpoint(self, service: Service, candidates: Sequence[Candidate]) -> Candidate:
        """See Chooser."""
        return next((each for each in candidates if each.workload.uid == self._uid), candidates[0])

    def waypoint(self, service: Service, waypoints: Sequence[WeightedWaypoint]) -> WeightedWaypoint:
        """See Chooser."""
        for each in waypoints:
            found = refer(self._mesh, self._source, each.destination).candidates
            if any(candidate.workload.uid == self._uid for candidate in found):
                return each
        return waypoints[0]
