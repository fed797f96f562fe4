"""Every way that a connection may take, decided by the code of the data plane: sending side, receiving side.

Where the data plane chooses (an endpoint, one of several waypoints) each choice is a way. What another node
decides is what this one would decide there, with its own settings and the mesh as it knows it. Pure.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from zproxy.model.addr import Endpoint
from zproxy.model.identity import SpiffeId
from zproxy.model.route import Passthrough, Refuse, Role, Route, Upstream
from zproxy.model.service import Service, WeightedWaypoint
from zproxy.model.settings import Settings
from zproxy.model.workload import Workload
from zproxy.state.choose import Candidate
from zproxy.state.inbound import Reject, admit
from zproxy.state.policy import Attempt, Decide, judge
from zproxy.state.resolve import resolve
from zproxy.state.store import Mesh
from zproxy.state.trace import Trace

LISTED: Final = 64
"""Ways that are looked at; a service may have thousands of endpoints."""
UNAUTHORIZED: Final = 401


class Ground(NamedTuple):
    """All that decisions rest on."""

    mesh: Mesh
    settings: Settings
    decide: Decide
    enrolled: Collection[str] = ()
    """Pods of this node: that they have a straw is known, whatever their record says."""


class Outcome(NamedTuple):
    """What the receiving side makes of a connection."""

    is_allowed: bool
    why: str
    """As a part of a sentence; in both cases."""


class Way(NamedTuple):
    """One way, from the app that dials to the app that answers."""

    route: Route
    outcome: Outcome
    sending: Trace
    receiving: Trace


def ways(ground: Ground, source: Workload, to: Endpoint) -> list[Way]:
    """Return up to LISTED + 1 different ways of a connection of `source` to `to`, at least one."""
    found: dict[Route, Way] = {}
    for route, sending in islice(_routes(ground, source, to), 4 * LISTED):
        if route not in found:
            receiving = Trace()
            outcome = arrive(ground, source, route, receiving)
            found[route] = Way(route, outcome, sending, receiving)
            if len(found) > LISTED:
                break
    return list(found.values())


def telling(found: Sequence[Way]) -> Way:
    """Return the way to explain: one that is refused, if there is one."""
    return next((way for way in found if not way.outcome.is_allowed), found[0])


def arrive(ground: Ground, source: Workload, route: Route, trace: Trace) -> Outcome:
    """Return what becomes of a connection of `source` that was sent by `route`."""
    if isinstance(route, Refuse):
        return Outcome(False, f"its own node refuses it: {route.reason}")
    if isinstance(route, Passthrough):
        trace.note("receiver", "not known", f"who answers at {route.to}")
        because = f", as {route.service.key} has the mode Passthrough" if route.service is not None else ""
        return Outcome(True, f"it goes to {route.to} in the clear, past the mesh{because}")
    if not route.identities:
        return _plain(ground, source, route, trace)
    way = f"by HBONE to {route.workload.pod} at {route.hostname or route.address}"
    if route.role is Role.GATEWAY:
        trace.note(
            "receiver", "not known", f"what {route.workload.pod} is a gateway to, its own network decides"
        )
        return Outcome(True, f"{way}, a gateway, behind which another network decides")
    if not route.address.ip:
        trace.note("receiver", "not known", f"where {route.hostname} is, DNS has to say")
        return Outcome(True, f"{way}, whose address DNS has to find")
    return tunnelled(ground, source, route, way, trace)


def tunnelled(ground: Ground, source: Workload, route: Upstream, way: str, trace: Trace) -> Outcome:
    """Return what the pod at the end of a tunnel makes of the CONNECT."""
    local = route.workload
    admitted = admit(ground.mesh, local, route.address, route.authority, ground.settings, trace)
    if isinstance(admitted, Reject):
        return Outcome(False, f"{local.pod} answers {admitted.status}: {admitted.reason}")
    found = judged(ground, local, source.identity, _from(source, route.address), admitted.target, trace)
    if not found.is_allowed:
        return Outcome(False, f"{local.pod} answers {UNAUTHORIZED}: {found.why}")
    behind = ", a waypoint, which decides about the rest" if route.role is Role.WAYPOINT else ""
    return Outcome(True, f"{way}{behind}, where {found.why}")


def judged(
    ground: Ground,
    local: Workload,
    identity: SpiffeId | None,
    source_ip: str,
    target: Endpoint,
    trace: Trace,
) -> Outcome:
    """Return what the policies of `local` make of a source."""
    verdict = judge(ground.mesh, Attempt(local, identity, source_ip, target), ground.decide, trace)
    if not verdict.is_allowed:
        return Outcome(False, verdict.reason)
    return Outcome(
        True, f"policy {verdict.policy} allows it" if verdict.policy else "no policy is against it"
    )


def _plain(ground: Ground, source: Workload, route: Upstream, trace: Trace) -> Outcome:
    """Return what becomes of plain TCP to a workload: one that is enrolled here has policies all the same."""
    local, where = route.workload, route.hostname or str(route.address)
    way = f"in the clear to {local.pod} at {where}"
    if local.pod not in ground.enrolled:
        trace.note("receiver", "no proxy", f"the mesh says that {local.pod} has none")
        return Outcome(True, f"{way}, which has no proxy")
    found = judged(ground, local, None, _from(source, route.address), route.address, trace)
    return Outcome(found.is_allowed, f"{way}, where {found.why}" if found.is_allowed else found.why)


def _from(source: Workload, to: Endpoint) -> str:
    """Return the address that a connection of `source` to `to` comes from: the pod's own of that family."""
    same = (ip for ip in source.workload_ips if (":" in ip) == to.is_v6)
    return next(same, next(iter(source.workload_ips), "0.0.0.0"))  # noqa: S104 - nobody's, for who has none


def _routes(ground: Ground, source: Workload, to: Endpoint) -> Iterator[tuple[Route, Trace]]:
    """Yield what is decided for each sequence of choices; the likeliest is not known to be the first."""
    picks: list[int] | None = []
    while picks is not None:
        trace, chooser = Trace(), _Picks(picks)
        yield resolve(ground.mesh, source, to, ground.settings, chooser, trace), trace
        picks = chooser.following()


class _Picks:
    """A chooser (see zproxy.state.choose) that takes the numbers it is given, and then the first of each."""

    def __init__(self, picks: list[int]) -> None:
        self._picks = picks
        self._taken: list[tuple[int, int]] = []
        """Which of how many."""

    def endpoint(self, service: Service, candidates: Sequence[Candidate]) -> Candidate:
        """See Chooser; weight 0 takes no part unless all have it."""
        weighed = [each for each in candidates if each.workload.capacity] or candidates
        return weighed[self._next(len(weighed))]

    def waypoint(self, service: Service, waypoints: Sequence[WeightedWaypoint]) -> WeightedWaypoint:
        """See Chooser; likewise."""
        weighed = [each for each in waypoints if each.weight] or waypoints
        return weighed[self._next(len(weighed))]

    def following(self) -> list[int] | None:
        """Return the numbers of the next sequence of choices; None when this was the last one."""
        for at in range(len(self._taken) - 1, -1, -1):
            number, count = self._taken[at]
            if number + 1 < count:
                return [*(each for each, _ in self._taken[:at]), number + 1]
        return None

    def _next(self, count: int) -> int:
        at = len(self._taken)
        number = self._picks[at] if at < len(self._picks) else 0
        self._taken.append((number, count))
        return number
