"""Outbound decision: where a connection of a pod goes. The procedure is ztunnel's.

1. A port of the straw itself, on a workload or on the loopback: refused, it could only be a loop.
2. The address belongs to a service, and not to a workload: if the service has a waypoint, HBONE to that, with
   what the app dialled as its authority. A range holds no address of a workload, except where
   `Compat.ZTUNNEL` asks for ztunnel's order.
3. Otherwise an endpoint of the service is chosen: HBONE to podIP:15008, or plain TCP to podIP:port, as its
   protocol says. One on another network is reached through its gateway, by a tunnel inside a tunnel.
4. The address belongs to a workload: if that has a waypoint, HBONE to the waypoint, unless it is the waypoint
   that asks; else the workload itself. Its health is not asked: who dials a pod's own address means that pod.
   A workload on the same node is no exception; it is dialled like any other.
5. Nobody has the address: passthrough to where the app wanted to go, or refused where only the mesh may be
   dialled. An IPv6 link-local address is refused: which link is meant was the app's to know and is lost.
"""

import ipaddress
from functools import lru_cache

from zproxy.model import ports
from zproxy.model.addr import Endpoint
from zproxy.model.route import Passthrough, Refuse, Role, Route, Upstream
from zproxy.model.service import BalancerMode, GatewayAddress, Service
from zproxy.model.settings import DEFAULT_SETTINGS, OutboundPolicy, Settings, WaypointPolicy
from zproxy.model.workload import Protocol, Workload
from zproxy.state.balance import candidates
from zproxy.state.choose import RANDOM, Candidate, Chooser
from zproxy.state.lookup import dialled
from zproxy.state.reference import Located, identities, is_meant, locate
from zproxy.state.store import Mesh
from zproxy.state.trace import Trace


def resolve(
    mesh: Mesh,
    source: Workload,
    to: Endpoint,
    settings: Settings = DEFAULT_SETTINGS,
    chooser: Chooser = RANDOM,
    trace: Trace | None = None,
) -> Route:
    """Decide where a connection from `source` to `to` goes.

    A snapshot remembers what it decided wherever nothing was to be chosen: that is most of all connections.
    """
    if trace is None:
        known = mesh.memo[source.uid, to]
        if known is not None and known[0] is source and known[1] is settings:
            route: Route = known[2]
            return route
    return _Resolution(mesh, source, to, settings, chooser, trace).route()


class _Resolution:
    """One decision; only so that its steps need not hand everything on."""

    __slots__ = ("chooser", "mesh", "settings", "source", "to", "trace")

    def __init__(
        self,
        mesh: Mesh,
        source: Workload,
        to: Endpoint,
        settings: Settings,
        chooser: Chooser,
        trace: Trace | None,
    ) -> None:
        self.mesh = mesh
        self.source = source
        self.to = to
        self.settings = settings
        self.chooser = chooser
        self.trace = trace

    def route(self) -> Route:
        """Go through the procedure."""
        to = self.to
        service, workload = dialled(self.mesh, self.source, to.ip, self.settings.compat, self.trace)
        if to.port in ports.ILLEGAL and (workload is not None or _is_loopback(to.ip)):
            return self._refuse(
                f"attempted recursive call to ourselves: {to} is a listener of the mesh proxy; "
                "dial the port of the app itself"
            )
        if service is not None:
            if workload is None:
                references = self._waypoints_of(service)
                route = self._by_waypoint(references, service) if references is not None else None
                if route is not None:
                    return route
            return self._by_service(service)
        if workload is None:
            return self._remembered(self._unknown())
        route = self._by_workload(workload)
        return route if workload.waypoint is not None else self._remembered(route)

    def _remembered(self, route: Route) -> Route:
        self.mesh.memo.keep((self.source.uid, self.to), (self.source, self.settings, route))
        return route

    def _waypoints_of(self, service: Service) -> GatewayAddress | None:
        if service.weighted_waypoints:
            chosen = self.chooser.waypoint(service, service.weighted_waypoints)
            for each in service.weighted_waypoints:
                self._note(
                    "waypoint",
                    "chosen" if each is chosen else "candidate",
                    f"{each.destination}, weight {each.weight}",
                )
            return chosen.destination
        return service.waypoint

    def _by_waypoint(self, reference: GatewayAddress, service: Service | None) -> Route | None:
        """Return the way through a waypoint; None when there is none and it may be gone past."""
        found = locate(self.mesh, self.source, reference, self.chooser, self.trace)
        if found is None:
            reason = (
                f"unknown waypoint: {reference} of {service.key if service else self.to} leads to nobody "
                "that could be dialled"
            )
            if self.settings.waypoint_policy is WaypointPolicy.MUST_TRAVERSE:
                remedy = "mend it, or run with --waypoint-policy prefer to go past it"
                return self._refuse(f"{reason}; {remedy}", is_forbidden=True)
            self._note("waypoint", "gone past", f"{reason}, and the waypoint policy is prefer")
            return None
        self._note("waypoint", "chosen", f"{found.workload.pod}, by {reference}")
        if found.workload.network == self.source.network:
            return self._upstream(found, str(self.to), self.to.port, service, Role.WAYPOINT)
        if service is not None:
            return self._by_gateway(found.workload, service)
        return self._refuse(
            f"no valid routing destination: the waypoint {found.workload.pod} of {self.to} is on network "
            f"{found.workload.network!r}, and gateways lead to services only; dial the service"
        )

    def _by_service(self, service: Service) -> Route:
        to = self.to
        if service.load_balancer.mode is BalancerMode.PASSTHROUGH:
            self._note("route", "passthrough", f"{service.key} keeps the address that was dialled")
            return Passthrough(to, service)
        found = candidates(self.mesh, service, self.source, to, trace=self.trace)
        if not found:
            return self._refuse(self._unhealthy(service))
        chosen = self.chooser.endpoint(service, found)
        if self.trace is not None:
            self._note("endpoint", "chosen", f"{chosen.workload.pod}, of {len(found)}")
        if chosen.workload.network != self.source.network:
            return self._by_gateway(chosen.workload, service)
        return self._direct(chosen, service)

    def _by_workload(self, workload: Workload) -> Route:
        self._note("workload", "found", f"{self.to.ip} is {workload.pod}")
        if workload.waypoint is not None:
            if self._comes_from(workload.waypoint):
                self._note("waypoint", "not again", f"{self.source.pod} is the waypoint of {workload.pod}")
            else:
                route = self._by_waypoint(workload.waypoint, None)
                if route is not None:
                    return route
        return self._direct(Candidate(workload, self.to.port, 0, self.to.ip), None)

    def _direct(self, to: Candidate, service: Service | None) -> Route:
        """Return the way to an endpoint on the source's own network."""
        workload = to.workload
        if to.target_port in ports.ILLEGAL:
            return self._refuse(
                f"attempted recursive call to ourselves: port {to.target_port} of {workload.pod} is one "
                "of the mesh proxy's listeners; mend the service's target port"
            )
        host = "" if to.ip else workload.hostname
        if workload.protocol is Protocol.TCP:
            address = Endpoint(to.ip, to.target_port)
            self._note("route", "plain TCP", f"to {host or address}: {workload.pod} has no HBONE")
            return Upstream(workload, address, "", (), self.to.port, service, hostname=host)
        authority = f"{host}:{to.target_port}" if host else str(Endpoint(to.ip, to.target_port))
        accepted = identities(
            str(workload.identity), service.subject_alt_names if service is not None else ()
        )
        address = Endpoint(to.ip, ports.INBOUND_HBONE)
        self._note("route", "HBONE", f"to {host or address} for {authority}")
        self._expect(accepted)
        return Upstream(workload, address, authority, accepted, to.target_port, service, hostname=host)

    def _by_gateway(self, workload: Workload, service: Service) -> Route:
        """Return the way to a workload of another network: a tunnel to a gateway, and one inside it."""
        where = f"{workload.pod} is on network {workload.network!r}"
        if workload.network_gateway is None:
            return self._refuse(
                f"no valid routing destination: {where}, and has no gateway; give it a networkGateway"
            )
        if not service.subject_alt_names:
            return self._refuse(
                f"no valid routing destination: {where}, and nobody could prove to be {service.key}, which "
                "has no subjectAltNames; give it those of its endpoints"
            )
        found = locate(self.mesh, self.source, workload.network_gateway, self.chooser, self.trace)
        if found is None:
            return self._refuse(f"unknown network gateway: {where}, and {workload.network_gateway} is nobody")
        self._note("gateway", "chosen", f"{found.workload.pod} of network {workload.network!r}")
        inner = tuple(sorted(set(service.subject_alt_names)))
        authority = f"{service.hostname}:{self.to.port}"
        route = self._upstream(found, authority, self.to.port, service, Role.GATEWAY)
        route = route._replace(inner=inner, beyond=workload.uid)
        self._note("identity", "expected inside", " or ".join(inner))
        return route

    def _upstream(
        self, found: Located, authority: str, port: int, service: Service | None, role: Role
    ) -> Upstream:
        host = "" if found.ip else found.workload.hostname
        address = Endpoint(found.ip, found.port)
        self._note("route", "HBONE", f"to {host or address} for {authority}")
        self._expect(found.identities)
        return Upstream(
            found.workload, address, authority, found.identities, port, service, role, hostname=host
        )

    def _comes_from(self, reference: GatewayAddress) -> bool:
        """Tell whether the source is the waypoint that `reference` names, by identity and by address."""
        source = self.source
        known = self.mesh.by_uid(source.uid)
        return (
            known is not None
            and is_meant(self.mesh, reference, known, source.namespace)
            and known.identity == source.identity
            and not set(known.workload_ips).isdisjoint(source.workload_ips)
        )

    def _unhealthy(self, service: Service) -> str:
        total = len(self.mesh.endpoints(service.key))
        why = f"none of its {total} endpoints can take a connection to port {self.to.port}"
        if not total:
            why = "it has no endpoints"
        elif service.target_port(self.to.port) is None:
            why = f"it has no port {self.to.port}, and none of its {total} endpoints serves that"
        return f"no healthy upstream: {service.key} was dialled, and {why}"

    def _unknown(self) -> Route:
        to = self.to
        if to.is_v6 and ipaddress.ip_address(to.ip).is_link_local:
            return self._refuse(f"{to} is link-local, and the link is not known: dial a routable address")
        if self.settings.outbound_policy is OutboundPolicy.REGISTRY_ONLY and not _is_loopback(to.ip):
            reason = f"{to} is no part of the mesh, and the outbound policy is registry_only"
            return self._refuse(reason, is_forbidden=True)
        self._note("route", "passthrough", f"{to} is no part of the mesh")
        return Passthrough(to)

    def _refuse(self, reason: str, *, is_forbidden: bool = False) -> Refuse:
        self._note("route", "refused", reason)
        return Refuse(reason, is_forbidden)

    def _expect(self, accepted: tuple[str, ...]) -> None:
        if self.trace is not None:
            self._note("identity", "expected", " or ".join(accepted))

    def _note(self, subject: str, outcome: str, detail: str) -> None:
        if self.trace is not None:
            self.trace.note(subject, outcome, detail)


@lru_cache(maxsize=1024)
def _is_loopback(ip: str) -> bool:
    return ipaddress.ip_address(ip).is_loopback
