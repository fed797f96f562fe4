"""What is measured: shapes of load, the cells that one run of a shape fills, and how medians are made.

Pure: nothing here opens, waits or prints.
"""

import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

HIGHER: Final = "higher"
LOWER: Final = "lower"
PINNED: Final = "pinned "
"""Prefix of the cells in which both proxies share core 0, and load and app core 1."""

NOISY: Final = 0.1
"""Share of a core from which on other processes make the figures of a run untrustworthy."""
LOAD_BOUND: Final = 0.95
"""Share of a core from which on the load generator, or the app, is what limits a run."""

Values = dict[str, float]
"""By the name of a cell."""


class Cell(NamedTuple):
    """One line of the table."""

    name: str
    unit: str
    better: str


class Raw(NamedTuple):
    """What one run of the load said, and the CPU seconds of the proxies in the same window, by side."""

    seconds: float
    operations: float = 0.0
    size: float = 0.0
    """Bytes of bulk traffic."""
    p50_us: float = 0.0
    p99_us: float = 0.0
    cpu: Mapping[str, float] = {}


class Run(NamedTuple):
    """What one run of a shape on a contender gave."""

    values: Values
    load_share: float = 0.0
    """Of a core, what the load generator or the app used: the greater, or the sum if they share a core."""
    others: float | None = None
    """Of a core, what processes that have nothing to do with this used; None where it is not known."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One load. `words` are the load generator's command up to the window; `group` says on which worlds."""

    name: str
    kind: str
    words: tuple[str, ...]
    group: str = "mesh"
    is_pinned: bool = False

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell that a run may fill, whoever the contender is."""
        return tuple(
            Cell(f"{self.name} {suffix}".strip(), unit, better) for suffix, unit, better in _CELLS[self.kind]
        )

    def pinned(self) -> "Shape":
        """The same with both proxies on one core."""
        return Shape(PINNED + self.name, self.kind, self.words, self.group, is_pinned=True)

    def values(self, raw: Raw) -> Values:
        """Turn a run into cells. CPU of proxies that a contender does not have is left out."""
        return {f"{self.name} {suffix}".strip(): value for suffix, value in self._suffixed(raw)}

    def _suffixed(self, raw: Raw) -> Iterator[tuple[str, float]]:
        if self.kind == "bulk":
            yield "", raw.size / raw.seconds / 1e6
            if raw.cpu:
                yield "CPU", sum(raw.cpu.values()) / (raw.size / 1e9)
            return
        if self.kind == "cold":
            yield "CPU server", raw.cpu["server"] / raw.operations * 1e6
            yield "rate", raw.operations / raw.seconds
            return
        yield "p50", raw.p50_us
        yield "p99", raw.p99_us
        yield "rate", raw.operations / raw.seconds
        if self.kind == "mixed":
            yield "bulk", raw.size / raw.seconds / 1e6
            return
        for side, seconds in raw.cpu.items():
            yield f"CPU {side}", seconds / raw.operations * 1e6


_TIMES: Final = (("p50", "us", LOWER), ("p99", "us", LOWER), ("rate", "/s", HIGHER))
_CELLS: Final[dict[str, tuple[tuple[str, str, str], ...]]] = {
    "bulk": (("", "MB/s", HIGHER), ("CPU", "s/GB", LOWER)),
    "rr": (*_TIMES, ("CPU client", "us", LOWER), ("CPU server", "us", LOWER)),
    "cps": (*_TIMES, ("CPU client", "us", LOWER), ("CPU server", "us", LOWER)),
    "mixed": (*_TIMES, ("bulk", "MB/s", HIGHER)),
    "cold": (("CPU server", "us", LOWER), ("rate", "/s", HIGHER)),
    "idle": (("client", "B/conn", LOWER), ("server", "B/conn", LOWER)),
}


def _loads(prefix: str, group: str, connects: Iterable[int]) -> Iterator[Shape]:
    for way in ("up", "down"):
        for count in (1, 8):
            yield Shape(f"{prefix}bulk {way} x{count}", "bulk", ("bulk", way, str(count)), group)
    for size in (64, 1024):
        for count in (1, 64):
            yield Shape(f"{prefix}rr {size}B x{count}", "rr", ("rr", str(size), str(count)), group)
    for count in connects:
        yield Shape(f"{prefix}connects x{count}", "cps", ("cps", str(count)), group)


def _shapes() -> Iterator[Shape]:
    mesh = list(_loads("", "mesh", (1, 16, 64)))
    mesh += [Shape(f"rr beside bulk {way}", "mixed", ("mixed", way, "64", "1")) for way in ("up", "down")]
    mesh.append(Shape("cold mTLS connect", "cold", ()))
    yield from mesh
    yield from (shape.pinned() for shape in mesh)
    plain = [shape for shape in _loads("passthrough ", "passthrough", (1, 16)) if "1024B" not in shape.name]
    yield from plain
    yield from (shape.pinned() for shape in plain)
    for count in (1, 16):
        yield Shape(f"steering connects x{count}", "cps", ("cps", str(count)), "steering")
    for count in (1, 64):
        yield Shape(f"steering rr 64B x{count}", "rr", ("rr", "64", str(count)), "steering")
    yield Shape("busy poll rr 64B x1", "rr", ("rr", "64", "1"), "busy")
    yield Shape("one node bulk up x8", "bulk", ("bulk", "up", "8"), "one node")
    yield Shape("one node bulk down x8", "bulk", ("bulk", "down", "8"), "one node")
    yield Shape("one node rr 64B x64", "rr", ("rr", "64", "64"), "one node")
    yield Shape("one node connects x16", "cps", ("cps", "16"), "one node")
    for count in (1000, 10_000):
        yield Shape(f"idle x{count}", "idle", (str(count),), "memory")


SHAPES: Final = tuple(_shapes())

CONTENDERS: Final[dict[str, tuple[str, ...]]] = {
    "mesh": ("zproxy", "envoy", "direct", "zproxy>envoy", "envoy>zproxy"),
    "passthrough": ("zproxy", "envoy", "direct"),
    "steering": ("zproxy", "iptables", "direct"),
    "busy": ("zproxy", "envoy"),
    "one node": ("zproxy", "two workers"),
    "memory": ("zproxy", "envoy"),
}
"""Who takes part in which group. In `steering`, `direct` is no steering at all; in `busy`, zproxy runs with
--busy-poll; in `one node`, one daemon has both pods, with one worker or with two."""


def contenders_of(shape: Shape) -> tuple[str, ...]:
    """Return whose runs of `shape` say something: pinning moves proxies, a cold connect has one server."""
    has_proxies = shape.group != "steering"
    is_for_two = shape.kind == "cold" or (shape.is_pinned and has_proxies)
    return ("zproxy", "envoy") if is_for_two else CONTENDERS[shape.group]


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether one of `patterns` (shell globs) matches `name`, or the first words of it."""
    globs = (glob for pattern in patterns for glob in (pattern.lower(), f"{pattern.lower()} *"))
    return any(fnmatchcase(name.lower(), glob) for glob in globs)


def chosen(patterns: Iterable[str]) -> list[Shape]:
    """Return the shapes that fill a cell that is asked for."""
    wanted = tuple(patterns)
    return [shape for shape in SHAPES if any(matches(cell.name, wanted) for cell in shape.cells)]


@dataclass(frozen=True, slots=True)
class Row:
    """A cell with the median of each contender. A contender that failed has none and an error instead."""

    cell: Cell
    medians: Mapping[str, float]
    errors: Mapping[str, str]
    load_bound: frozenset[str] = frozenset()
    """Contenders in whose runs the load generator or the app was busy all the time: they may be faster."""

    @property
    def against(self) -> str:
        """Whom zproxy is compared with: what stands for Envoy in the cells where there is none."""
        rivals = {"steering ": "iptables", "one node ": "two workers"}
        name = self.cell.name.removeprefix(PINNED)
        return next((rival for prefix, rival in rivals.items() if name.startswith(prefix)), "envoy")

    @property
    def ratio(self) -> float | None:
        """zproxy's median over the other's; None where one is missing or the other's is nothing."""
        ours, theirs = self.medians.get("zproxy"), self.medians.get(self.against)
        return ours / theirs if ours is not None and theirs else None


class Results:
    """Collects the values of all rounds."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], list[float]] = {}
        self._errors: dict[tuple[str, str], str] = {}
        self._shares: dict[tuple[str, str], list[float]] = {}
        self._others: list[float] = []
        self._cells: dict[str, Cell] = {}

    def add(self, shape: Shape, contender: str, run: Run) -> None:
        """Take one run."""
        self._know(shape)
        if run.others is not None:
            self._others.append(max(run.others, 0.0))
        for name, value in run.values.items():
            self._values.setdefault((name, contender), []).append(value)
            self._shares.setdefault((name, contender), []).append(run.load_share)

    def noise(self) -> tuple[float, float]:
        """Return the share of a core that other processes took from the runs: median, and 9 of 10 runs."""
        ordered = sorted(self._others) or [0.0]
        return statistics.median(ordered), ordered[len(ordered) * 9 // 10]

    def fail(self, shape: Shape, contender: str, error: str) -> None:
        """Take a run that failed: its cells have no median, however many other rounds went well."""
        self._know(shape)
        for cell in shape.cells:
            self._errors.setdefault((cell.name, contender), error)

    def rows(self, patterns: Iterable[str] = ("*",)) -> list[Row]:
        """Return the cells that have something to say, in the order in which they were first measured."""
        wanted = tuple(patterns)
        rows = (self._row(cell) for cell in self._cells.values() if matches(cell.name, wanted))
        return [row for row in rows if row.medians or row.errors]

    def _know(self, shape: Shape) -> None:
        self._cells.update({cell.name: cell for cell in shape.cells if cell.name not in self._cells})

    def _row(self, cell: Cell) -> Row:
        errors = {who: error for (name, who), error in self._errors.items() if name == cell.name}
        medians = {
            who: statistics.median(values)
            for (name, who), values in self._values.items()
            if name == cell.name and who not in errors
        }
        return Row(cell, medians, errors, frozenset(who for who in medians if self._is_bound(cell, who)))

    def _is_bound(self, cell: Cell, contender: str) -> bool:
        """Tell about rates and times only: CPU for a unit of work does not depend on how much there was."""
        if contender == "direct" or " CPU" in cell.name:
            return False
        return statistics.median(self._shares[cell.name, contender]) >= LOAD_BOUND
