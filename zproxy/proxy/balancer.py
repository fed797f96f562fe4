"""Which of several equal endpoints takes a connection: least request, ejection of outliers, affinity.

One of these serves a worker, so it knows the connections of all its pods. Time is passed in, and nothing is
asked of the network: what is known about an endpoint is what connections came to.
"""

import math
import random
from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

from zproxy.model.service import Service, SessionAffinity, WeightedWaypoint
from zproxy.model.settings import DEFAULT_SETTINGS, Balancing, Settings
from zproxy.observe.balancing import BalancingCounts
from zproxy.proxy.field import Field
from zproxy.state.choose import Candidate, RandomChooser
from zproxy.state.crowd import Crowd
from zproxy.state.store import Mesh

FAILURES: Final = 3
"""Failures in a row that eject an endpoint, and one more after its time: only a success clears it."""
EJECTION_S: Final = 10.0
"""The first time; each further one in a row is this much longer."""
LONGEST_EJECTION_S: Final = 300.0
TROUBLED: Final = 4096
"""Endpoints whose failures are remembered; beyond that the oldest are forgotten."""
FIELDS: Final = 512
"""Lists of candidates that are prepared for drawing."""
CLIENTS: Final = 4096
"""Clients of one list whose endpoint is remembered; to find it again costs a hash for each endpoint."""

WHOLE: Final = 0
"""Stands for all ports of an endpoint: nothing of it could be reached."""
SIGHTS: Final = 32
"""Attempts to find somebody of a crowd who is neither ejected nor was tried in vain."""
DRAWS: Final = 3
"""Attempts to draw somebody else to compare with."""

_RIGHT_OF_POINT: Final = float(1 << 64)


class Standing(NamedTuple):
    """What is known about an endpoint, for people who ask why."""

    open: int
    """Connections of this worker."""
    failures: int
    """In a row."""
    ejected_s: float
    """For how much longer it is left out; 0 when it is not."""


class Known(NamedTuple):
    """An endpoint, or a port of one, that has connections or failed."""

    uid: str
    port: int
    """WHOLE for all of it."""
    standing: Standing


class _Trouble:
    """An endpoint that could not be reached lately."""

    __slots__ = ("ejections", "failed_at", "failures", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.failed_at = -1.0
        self.ejections = 0
        self.until = 0.0
        """When it may be tried again; 0 when it was not ejected since the last success."""


class Balancer:
    """The state; `choice` gives the Chooser of one connection."""

    def __init__(
        self,
        settings: Settings = DEFAULT_SETTINGS,
        counts: BalancingCounts | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.counts = counts or BalancingCounts()
        self._settings = settings
        self._rng = rng or random.Random()  # noqa: S311 - it balances load and keeps no secret
        self._random = RandomChooser(self._rng)
        self._open: dict[str, int] = {}
        """By uid; who has none is not in it, so it is as bounded as connections are."""
        self._troubled: dict[tuple[str, int], _Trouble] = {}
        """By uid and port: one that is not open says nothing about the others."""
        self._fields: dict[int, Field] = {}
        self._mesh: Mesh | None = None
        self._choice = Choice(self)
        self._epoch = 0
        """Changes whenever the set of those left out does."""

    def choice(self, source_ip: str, now: float, failed: Collection[str] = ()) -> "Choice":
        """Return who chooses for a connection from `source_ip`; `failed` are uids that it tried in vain.

        It is the same object each time, good for one decision.
        """
        choice = self._choice
        choice.source_ip, choice.now, choice.failed = source_ip, now, failed
        return choice

    def took(self, uid: str) -> None:
        """Note that a connection goes to the workload of `uid`."""
        self._open[uid] = self._open.get(uid, 0) + 1

    def released(self, uid: str) -> None:
        """Note that it ended, or goes elsewhere."""
        left = self._open.get(uid, 0) - 1
        if left > 0:
            self._open[uid] = left
        else:
            self._open.pop(uid, None)

    def succeeded(self, uid: str, port: int) -> None:
        """Note that a port of the endpoint was reached: what both did before is forgiven."""
        if self._troubled:
            found = [self._troubled.pop(key, None) for key in ((uid, WHOLE), (uid, port))]
            if any(found):
                self._epoch += 1

    def failed(self, uid: str, now: float, port: int = WHOLE) -> None:
        """Note that the endpoint could not be reached, or that its `port` was not open.

        All connections that waited for one tunnel fail at one moment, and that is one failure.
        """
        if not self._settings.outlier_ejection:
            return
        trouble = self._troubled.get((uid, port))
        if trouble is None:
            if len(self._troubled) >= TROUBLED:
                del self._troubled[next(iter(self._troubled))]
                self._epoch += 1
            trouble = self._troubled[uid, port] = _Trouble()
        if trouble.failed_at == now or now < trouble.until:
            return
        trouble.failed_at = now
        trouble.failures += 1
        if trouble.failures >= FAILURES:
            trouble.ejections += 1
            trouble.until = now + min(EJECTION_S * trouble.ejections, LONGEST_EJECTION_S)
            self.counts.ejections += 1
            self._epoch += 1

    def on_mesh(self, mesh: Mesh) -> None:
        """Forget workloads that `mesh`, which is a new one, does not know any more."""
        if mesh is self._mesh:
            return  # another pod of the worker has told already
        self._mesh = mesh
        for key in [key for key in self._troubled if mesh.by_uid(key[0]) is None]:
            del self._troubled[key]
        self._fields.clear()
        self._epoch += 1

    def standing(self, uid: str, now: float, port: int = WHOLE) -> Standing:
        """Return what is known about an endpoint, or about one port of it."""
        trouble = self._troubled.get((uid, port))
        if trouble is None:
            return Standing(self._open.get(uid, 0), 0, 0.0)
        return Standing(self._open.get(uid, 0), trouble.failures, max(0.0, trouble.until - now))

    def known(self, now: float) -> list[Known]:
        """Return all that have connections or failed since they last succeeded; each by itself."""
        keys = dict.fromkeys((*((uid, WHOLE) for uid in self._open), *self._troubled))
        return [Known(uid, port, self.standing(uid, now, port)) for uid, port in keys]

    def pick(
        self, service: Service, candidates: Sequence[Candidate], source_ip: str, now: float
    ) -> Candidate:
        """Pick one of `candidates` for a connection from `source_ip`."""
        field = self._fields.get(id(candidates))
        if field is None or field.epoch != self._epoch or now >= field.until:
            field = self._prepared(candidates, now)
        if len(field.usable) == 1:
            return field.usable[0]
        if service.load_balancer.session_affinity is SessionAffinity.CLIENT_IP:
            return self._same(field, source_ip)
        first = field.draw(self._rng.random)
        if self._settings.balancing is Balancing.RANDOM:
            return first
        return self._less_busy(first, lambda: field.draw(self._rng.random))

    def pick_of(self, crowd: Crowd, now: float, failed: Collection[str]) -> Candidate | None:
        """Pick one of many as `pick` does, and see few of them; None where that takes a look at all.

        `failed` are uids of those that are not to be picked.
        """
        if 2 * len(self._troubled) > crowd.places:
            return None  # more than half may be ejected
        first = self._seen(crowd, now, failed)
        if first is None or self._settings.balancing is Balancing.RANDOM:
            return first
        return self._less_busy(first, lambda: self._seen(crowd, now, failed) or first)

    def pick_waypoint(self, service: Service, waypoints: Sequence[WeightedWaypoint]) -> WeightedWaypoint:
        """Pick one of several waypoints, at random by weight."""
        return self._random.waypoint(service, waypoints)

    def _seen(self, crowd: Crowd, now: float, failed: Collection[str]) -> Candidate | None:
        """Draw one that may be picked; None where it takes too long to find one."""
        for _ in range(SIGHTS):
            found = crowd.at(int(self._rng.random() * crowd.places))
            if found is None:
                return None
            if found.workload.uid not in failed and (not self._troubled or self._until(found) <= now):
                return found
        return None

    def _less_busy(self, first: Candidate, draw: Callable[[], Candidate]) -> Candidate:
        """Return `first`, or another one drawn that has fewer connections for its weight."""
        busy = self._open.get(first.workload.uid, 0)
        if not busy:
            return first
        second = first
        for _ in range(DRAWS):
            second = draw()
            if second.workload is not first.workload:
                break
        load = self._open.get(second.workload.uid, 0) * max(first.workload.capacity, 1)
        return second if load < busy * max(second.workload.capacity, 1) else first

    def _same(self, field: Field, source_ip: str) -> Candidate:
        """Return the endpoint of a client by weighted rendezvous: others may come and go."""
        found = field.by_client.get(source_ip)
        if found is None:
            if len(field.by_client) >= CLIENTS:
                field.by_client.clear()
            found = field.by_client[source_ip] = max(
                field.usable, key=lambda each: (affinity(source_ip, each), each.workload.uid)
            )
        return found

    def _prepared(self, candidates: Sequence[Candidate], now: float) -> Field:
        if len(self._fields) >= FIELDS:
            self._fields.clear()
        field = self._fields[id(candidates)] = Field(candidates, self._epoch)
        if self._troubled:
            field.usable, field.until = self._without_ejected(candidates, now)
        field.weigh()
        return field

    def _without_ejected(
        self, candidates: Sequence[Candidate], now: float
    ) -> tuple[Sequence[Candidate], float]:
        """Return who is left, at least half of them, and until when that holds.

        When more are out, those that are to come back first are taken back.
        """
        out = {each: until for each in candidates if (until := self._until(each)) > now}
        if not out:
            return candidates, math.inf
        latest_first = sorted(out, key=lambda each: (out[each], each.workload.uid), reverse=True)
        kept_out = {each.workload.uid for each in latest_first[: len(candidates) // 2]}
        left = tuple(each for each in candidates if each.workload.uid not in kept_out)
        return left, min(out.values())

    def _until(self, of: Candidate) -> float:
        """Return until when a candidate is ejected; 0 when it is not."""
        uid = of.workload.uid
        found = (self._troubled.get((uid, WHOLE)), self._troubled.get((uid, of.target_port)))
        return max(trouble.until if trouble is not None else 0.0 for trouble in found)


class Choice:
    """Chooses for one connection (see zproxy.state.choose.Chooser)."""

    __slots__ = ("_balancer", "failed", "now", "source_ip")

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer
        self.source_ip = ""
        self.now = 0.0
        self.failed: Collection[str] = ()

    def endpoint(self, service: Service, candidates: Sequence[Candidate]) -> Candidate:
        """See Chooser; what was tried in vain comes again only when there is nothing else."""
        if isinstance(candidates, Crowd):
            found = self._balancer.pick_of(candidates, self.now, self.failed)
            if found is not None:
                return found
            candidates = candidates.all()
        if self.failed:
            others = tuple(each for each in candidates if each.workload.uid not in self.failed)
            candidates = others or candidates
        if len(candidates) == 1:
            return candidates[0]
        return self._balancer.pick(service, candidates, self.source_ip, self.now)

    def waypoint(self, service: Service, waypoints: Sequence[WeightedWaypoint]) -> WeightedWaypoint:
        """See Chooser."""
        return self._balancer.pick_waypoint(service, waypoints)


def affinity(source_ip: str, candidate: Candidate) -> float:
    """Return how much a client is drawn to an endpoint; the largest wins (weighted rendezvous hashing).

    Of many clients each endpoint wins a share in proportion to its weight, and what one gains or loses when
    it comes or goes is all that moves.
    """
    workload = candidate.workload
    digest = blake2b(f"{source_ip}\0{workload.uid}".encode(), digest_size=8).digest()
    point = (int.from_bytes(digest, "big") + 0.5) / _RIGHT_OF_POINT
    return -max(workload.capacity, 1e-9) / math.log(point) if point < 1.0 else math.inf
