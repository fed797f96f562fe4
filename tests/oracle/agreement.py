"""Compares the code under test with the oracle on random meshes, a case at a time."""

import random

from tests.oracle import rules
from tests.oracle.meshes import World, destination, world
from tests.oracle.outcomes import outcomes
from zproxy.model.addr import Endpoint
from zproxy.model.workload import Workload
from zproxy.state.policy import Attempt, Verdict, judge

CASES_A_WORLD = 10


def disagreements(seed: int, cases: int) -> list[str]:
    """Compare `cases` routes and as many verdicts; return what differs, with what is needed to see it again."""
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
    expected = rules.route(made.mesh, made.source, to, made.settings)
    got = outcomes(made.mesh, made.source, to, made.settings)
    if got == expected:
        return []
    where = f"world {state}: {made.source.pod} to {to}, {made.settings}"
    return [f"{where}\n  only the oracle: {expected - got}\n  only the code: {got - expected}"]
