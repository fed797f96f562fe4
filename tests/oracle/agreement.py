"""Compares the code under test with the oracle on random meshes, a case at a time."""

import random
from functools import partial

from tests.oracle import routes, verdicts
from tests.oracle.meshes import World, destination, world
from tests.oracle.outcomes import outcomes
from zproxy.model.addr import Endpoint
from zproxy.model.workload import Workload
from zproxy.state.policy import Attempt, Verdict, authorize, judge

CASES_A_WORLD = 10


def disagreements(seed: int, cases: int) -> list[str]:
    """Compare `cases` routes and as many verdicts; return what differs, and how to see it again."""
    rng = random.Random(seed)
    found: list[str] = []
    for number in range(0, cases, CASES_A_WORLD):
        state = rng.getrandbits(64)
        here = random.Random(state)
        made = world(here)
        for _ in range(min(CASES_A_WORLD, cases - number)):
            found += route_disagreements(made, destination(here, made.mesh), state)
            found += verdict_disagreements(made, here, state)
    return found


def route_disagreements(made: World, to: Endpoint, state: int) -> list[str]:
    expected = routes.route(made.mesh, made.source, to, made.settings)
    got = outcomes(made.mesh, made.source, to, made.settings)
    if got == expected:
        return []
    where = f"world {state}: {made.source.pod} to {to}, {made.settings}"
    return [f"{where}\n  only the oracle: {expected - got}\n  only the code: {got - expected}"]


def verdict_disagreements(made: World, rng: random.Random, state: int) -> list[str]:
    """Compare the verdict on a random attempt to reach a random workload of the world."""
    workload = rng.choice(made.mesh.workloads)
    peer = rng.choice((*made.mesh.workloads, None))
    ip = rng.choice(workload.workload_ips or ("10.0.0.250",))
    attempt = Attempt(
        workload,
        None if peer is None else peer.identity,
        _source_ip(peer, rng),
        Endpoint(ip, rng.choice((80, 443, 8080))),
    )
    got = _judged(made, attempt)
    expected = _is_reachable(made, workload, ip) and verdicts.is_allowed(
        made.mesh, workload, attempt.identity, attempt.source_ip, attempt.target, made.settings.compat
    )
    if got.is_allowed == expected:
        return []
    return [f"world {state}: {attempt}, {made.settings.compat}: the oracle says {expected}, the code {got}"]


def _source_ip(peer: Workload | None, rng: random.Random) -> str:
    return rng.choice(peer.workload_ips) if peer is not None and peer.workload_ips else "192.0.2.7"


def _is_reachable(made: World, workload: Workload, ip: str) -> bool:
    """Whether the mesh agrees that the address is the workload's."""
    owner = routes.workload_at(made.mesh, workload.network, ip)
    return owner is not None and owner.uid == workload.uid


def _judged(made: World, attempt: Attempt) -> Verdict:
    return judge(made.mesh, attempt, partial(authorize, made.settings.compat))
