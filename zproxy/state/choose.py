"""How a decision picks one of several that are equally right. Who picks holds the state, if any."""

import random
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

from zproxy.model.service import Service, WeightedWaypoint
from zproxy.model.workload import Workload

Item = TypeVar("Item")


class Candidate(NamedTuple):
    """An endpoint that may take a connection to a service."""

    workload: Workload
    target_port: int
    rank: int
    """Scopes of the service's routing preference that it matches; the higher the nearer."""
    ip: str = ""
    """Where it is dialled; empty where only a gateway, or its host name, leads to it."""


class Chooser(Protocol):
    """Picks; asked only where there is at least one, and answers with one of those it was given."""

    def endpoint(self, service: Service, candidates: Sequence[Candidate]) -> Candidate:
        """Pick the endpoint that takes the connection."""

    def waypoint(self, service: Service, waypoints: Sequence[WeightedWaypoint]) -> WeightedWaypoint:
        """Pick the waypoint that takes the connection."""


class RandomChooser:
    """Picks at random by weight, as ztunnel does."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def endpoint(self, service: Service, candidates: Sequence[Candidate]) -> Candidate:
        """See Chooser; where all have weight 0, they are equal."""
        return self._of(candidates, [each.workload.capacity for each in candidates])

    def waypoint(self, service: Service, waypoints: Sequence[WeightedWaypoint]) -> WeightedWaypoint:
        """See Chooser; likewise."""
        return self._of(waypoints, [each.weight for each in waypoints])

    def _of(self, items: Sequence[Item], weights: Sequence[int]) -> Item:
        if len(items) == 1:
            return items[0]
        return self._rng.choices(items, weights if any(weights) else None)[0]


RANDOM: Final = RandomChooser(random.Random())  # noqa: S311 - it balances load and keeps no secret
