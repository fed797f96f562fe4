"""Figures that are no cells: measured once or a few times, for one contender, some with a target. Pure."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from tests.bench.report import figure


class Fact(NamedTuple):
    """A figure and its unit; `limit` is what it must stay below, None when nothing is asked of it."""

    name: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def says(self) -> str:
        """PASS or MISS, nothing when there is no target."""
        if self.limit is None:
            return ""
        return "PASS" if self.value < self.limit else "MISS"


def table(facts: Iterable[Fact]) -> list[list[str]]:
    """Return the head and a line per fact."""
    lines = [["figure", "unit", "target", "", "value"]]
    for fact in facts:
        target = "" if fact.limit is None else f"< {fact.limit:g}"
        lines.append([fact.name, fact.unit, target, fact.says, figure(fact.value)])
    return lines


def as_json(facts: Iterable[Fact]) -> list[dict[str, Any]]:
    """Return an object per fact."""
    return [fact._asdict() for fact in facts]
