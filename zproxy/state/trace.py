"""What a decision looked at, for people who ask why. The data plane decides without one, by the same code."""

from typing import NamedTuple


class Step(NamedTuple):
    """One thing that was looked at, and what it came to."""

    subject: str
    """What was looked at: `service`, `endpoint`, `waypoint`, `policy`, `rule`, `clause`, `field` ..."""
    outcome: str
    """One word or a few: `matched`, `no match`, `chosen`, `left out` ..."""
    detail: str
    """The sentence for people: names, values and the reason."""
    depth: int
    """How deep it is nested: a clause is one deeper than its rule."""


class Trace:
    """Steps in the order in which they were taken."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._depth = 0

    def note(self, subject: str, outcome: str, detail: str = "") -> None:
        """Add a step."""
        self.steps.append(Step(subject, outcome, detail, self._depth))

    def extend(self, inner: "Trace") -> None:
        """Add the steps of `inner` below the last one of this trace."""
        self.steps += [step._replace(depth=step.depth + self._depth) for step in inner.steps]

    def __enter__(self) -> "Trace":
        """What is noted until the end of the `with` block is one level deeper."""
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
