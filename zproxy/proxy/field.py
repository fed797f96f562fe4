"""Candidates, prepared for drawing one of them by weight."""

import math
from bisect import bisect
from collections.abc import Callable, Sequence
from itertools import accumulate

from zproxy.state.choose import Candidate


class Field:
    """A list of candidates, prepared for drawing; valid while nobody is ejected or comes back."""

    __slots__ = ("by_client", "candidates", "cumulative", "epoch", "total", "until", "usable")

    def __init__(self, candidates: Sequence[Candidate], epoch: int) -> None:
        self.candidates = candidates
        """What it was made for; held, so that its id is nobody else's."""
        self.epoch = epoch
        self.usable = candidates
        self.until = math.inf
        self.cumulative: list[int] | None = None
        """Of the weights; None where all are equal."""
        self.total = 0
        self.by_client: dict[str, Candidate] = {}

    def weigh(self) -> None:
        """Prepare the draw among what is usable; weight 0 takes no part unless all have it."""
        weights = [each.workload.capacity for each in self.usable]
        if 0 in weights and any(weights):
            self.usable = tuple(each for each in self.usable if each.workload.capacity)
            weights = [each.workload.capacity for each in self.usable]
        if min(weights) != max(weights):
            self.cumulative = list(accumulate(weights))
            self.total = self.cumulative[-1]

    def draw(self, uniform: Callable[[], float]) -> Candidate:
        """Draw one by weight."""
        usable = self.usable
        if self.cumulative is None:
            return usable[int(uniform() * len(usable))]
        return usable[bisect(self.cumulative, uniform() * self.total)]
