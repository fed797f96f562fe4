"""Whether a connection that was sent somewhere may stay there, now that the mesh is another one.

It may while its endpoint is who it was, and nobody's choice forbids the way it took. What would be chosen
differently today (other weights, an endpoint that turned unhealthy, a waypoint that went away) is no reason
to break what works.
"""

from collections.abc import Sequence

from zproxy.model.addr import Endpoint
from zproxy.model.route import Passthrough, Refuse, Role, Route, Upstream
from zproxy.model.service import GatewayAddress, Service, WeightedWaypoint
from zproxy.model.settings import Settings
from zproxy.model.workload import Protocol, Workload
from zproxy.state.choose import Candidate
from zproxy.state.crowd import Crowd
from zproxy.state.lookup import dialled
from zproxy.state.reference import is_meant
from zproxy.state.resolve import resolve
from zproxy.state.store import Mesh


def objection(mesh: Mesh, source: Workload, wanted: Endpoint, route: Route, settings: Settings) -> str:
    """Return why the connection that `source` made to `wanted` by `route` must end; empty: it may go on."""
    if isinstance(route, Refuse):
        return ""
    waypoints = _waypoints(mesh, source, wanted, settings)
    if isinstance(route, Upstream):
        why, known = _is_another(mesh, route), mesh.by_uid(route.workload.uid)
        if why or known is None:
            return why
        is_guided = route.role is Role.WAYPOINT
        if is_guided and any(is_meant(mesh, each, known, source.namespace) for each in waypoints):
            return ""
    found = []
    for number in range(max(1, len(waypoints))):  # any of several waypoints might be chosen
        now = resolve(mesh, source, wanted, settings, _Staying(mesh, source, route, number))
        found.append(_against(route, now, wanted, bool(waypoints)))
    return found[0] if all(found) else ""


def _against(route: Passthrough | Upstream, now: Route, wanted: Endpoint, is_guided: bool) -> str:
    """Return what is wrong with `route` where `now` would be taken."""
    if isinstance(now, Refuse):
        return now.reason if now.is_forbidden else ""
    return "" if isinstance(now, Passthrough) else _passes_by(route, now, wanted, is_guided)


def _passes_by(route: Passthrough | Upstream, now: Upstream, wanted: Endpoint, is_guided: bool) -> str:
    """Return what a connection that took `route` goes past, now that the way is `now`."""
    if now.role is Role.WAYPOINT:
        return f"{wanted} is reached through the waypoint {now.workload.pod} now"
    if isinstance(route, Passthrough):
        is_clear = bool(now.identities)
        way = f"{wanted} is reached by HBONE at {now.workload.pod} now"
        return f"{way}, and this is in the clear" if is_clear else ""
    if now.role is Role.GATEWAY and is_guided and route.role is not Role.GATEWAY:
        return f"{wanted} is reached through a waypoint behind the gateway {now.workload.pod} now"
    return ""


def has_left(former: Mesh, mesh: Mesh, uid: str, ip: str, identities: Sequence[str]) -> bool:
    """Tell whether the workload `uid` is no more who a tunnel to `ip` was made to in `former`.

    `identities` is what it proved, or may prove while it has not. An address that DNS found is none of its
    record's, and so is no reason.
    """
    before, now = former.by_uid(uid), mesh.by_uid(uid)
    if before is None or now is None:
        return True
    had_hbone, has_hbone = (each.protocol is Protocol.HBONE for each in (before, now))
    had_ip, has_ip = (ip in each.workload_ips for each in (before, now))
    services = (mesh.service(key) for key in now.services)
    also = (san for each in services if each is not None for san in each.subject_alt_names)
    is_another = {str(now.identity), *also}.isdisjoint(identities)
    return is_another or had_hbone > has_hbone or had_ip > has_ip


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


def _waypoints(
    mesh: Mesh, source: Workload, wanted: Endpoint, settings: Settings
) -> Sequence[GatewayAddress]:
    """Return what connections to `wanted` have to traverse one of."""
    service, workload = dialled(mesh, source, wanted.ip, settings.compat)
    if service is not None and workload is None:
        if service.weighted_waypoints:
            return [each.destination for each in service.weighted_waypoints]
        return [] if service.waypoint is None else [service.waypoint]
    if service is None and workload is not None and workload.waypoint is not None:
        return [workload.waypoint]
    return []


class _Staying:
    """A chooser that stays on a route for as long as it may be chosen."""

    def __init__(self, mesh: Mesh, source: Workload, route: Passthrough | Upstream, waypoint: int) -> None:
        self._source = source
        self._uid = route.workload.uid if isinstance(route, Upstream) else ""
        self._known = mesh.by_uid(self._uid)
        self._is_far = isinstance(route, Upstream) and route.role is Role.GATEWAY
        self._waypoint = waypoint

    def endpoint(self, service: Service, candidates: Sequence[Candidate]) -> Candidate:
        """See Chooser: behind a gateway, any that is not on the source's network."""
        if isinstance(candidates, Crowd) and not self._is_far:
            known = self._known
            kept = candidates.of(known) if known is not None and service.key in known.services else None
        else:
            kept = next((each for each in candidates if self._is_kept(each.workload)), None)
        return kept or next(iter(candidates))

    def waypoint(self, service: Service, waypoints: Sequence[WeightedWaypoint]) -> WeightedWaypoint:
        """See Chooser; the one of the number that was asked for."""
        return waypoints[self._waypoint]

    def _is_kept(self, workload: Workload) -> bool:
        return workload.network != self._source.network if self._is_far else workload.uid == self._uid
