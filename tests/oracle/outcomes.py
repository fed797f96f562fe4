"""What the code under test decides, in the oracle's words: every outcome that chance allows."""

from collections.abc import Sequence

from tests.oracle.routes import REFUSE, Outcome
from zproxy.model.addr import Endpoint
from zproxy.model.route import Passthrough, Refuse, Role, Route
from zproxy.model.service import Service, WeightedWaypoint
from zproxy.model.settings import Settings
from zproxy.model.workload import Workload
from zproxy.state.choose import Candidate
from zproxy.state.resolve import resolve
from zproxy.state.store import Mesh


class Script:
    """Picks as it was told, and remembers how many there were to pick from."""

    def __init__(self, picks: list[int]) -> None:
        self.picks = picks
        self.sizes: list[int] = []

    def endpoint(self, service: Service, candidates: Sequence[Candidate]) -> Candidate:
        return candidates[self._next(len(candidates))]

    def waypoint(self, service: Service, waypoints: Sequence[WeightedWaypoint]) -> WeightedWaypoint:
        return waypoints[self._next(len(waypoints))]

    def _next(self, size: int) -> int:
        position = len(self.sizes)
        self.sizes.append(size)
        return self.picks[position] if position < len(self.picks) else 0

    def following(self) -> list[int] | None:
        """The next script that leads elsewhere; None after the last."""
        picks = (self.picks + [0] * len(self.sizes))[: len(self.sizes)]
        while picks:
            picks[-1] += 1
            if picks[-1] < self.sizes[len(picks) - 1]:
                return picks
            picks.pop()
        return None


def outcomes(mesh: Mesh, source: Workload, to: Endpoint, settings: Settings) -> set[Outcome]:
    """Every outcome of `resolve` for a connection of `source` to `to`."""
    found = set()
    picks: list[int] | None = []
    while picks is not None:
        script = Script(picks)
        found.add(outcome(resolve(mesh, source, to, settings, script)))
        picks = script.following()
    return found


def outcome(route: Route) -> Outcome:
    """A route in the oracle's words."""
    if isinstance(route, Refuse):
        return REFUSE
    if isinstance(route, Passthrough):
        return Outcome("passthrough", str(route.to))
    address = str(route.address) if not route.hostname else f"{route.hostname}:{route.address.port}"
    kinds = {Role.WAYPOINT: "waypoint", Role.GATEWAY: "gateway"}
    kind = kinds.get(route.role) or ("hbone" if route.identities else "tcp")
    return Outcome(
        kind,
        address,
        route.authority,
        frozenset(route.identities),
        frozenset(route.inner),
        route.workload.uid,
    )
