"""The targets that a run is held against, and whether it reaches them. Pure."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from tests.bench.cells import LOWER, PINNED, Row


class Gate(NamedTuple):
    """`limit` and `aim` are ratios to Envoy, in steering to iptables; or our own figure if `is_absolute`.

    Whether they are upper or lower bounds follows from what is better in the cells.
    """

    what: str
    patterns: tuple[str, ...]
    limit: float
    aim: float
    is_absolute: bool = False


GATES: Final = (
    Gate("bulk up and down, 1 and 8 connections", ("bulk up x?", "bulk down x?"), 1.15, 1.5),
    Gate("CPU seconds per GB, pair", ("bulk up x? CPU", "bulk down x? CPU"), 0.75, 0.55),
    Gate("round trip, 1 connection, p50", ("rr *B x1 p50",), 1.05, 1.0),
    Gate("round trips per second, 64 connections", ("rr *B x64 rate",), 1.0, 1.15),
    Gate("round trips, 64 connections, p99", ("rr *B x64 p99",), 1.0, 0.9),
    Gate("round trip p50 beside bulk in the same tunnel", ("rr beside bulk * p50",), 0.5, 0.25),
    Gate("new connections per second", ("connects x* rate",), 1.0, 1.3),
    Gate("user memory per idle connection, bytes", ("idle x*",), 4096, 1536, is_absolute=True),
    Gate("plain passthrough, CPU per GB", ("passthrough bulk * CPU",), 0.7, 0.4),
    Gate("cold mTLS connect, server CPU", ("cold mTLS connect CPU server",), 2.5, 1.5),
    Gate("steering against iptables: connections/s", ("steering connects x* rate",), 1.0, 1.15),
    Gate("steering against iptables: 64 round trips", ("steering rr 64B x64 rate",), 1.0, 1.2),
)

PASS: Final = "PASS"
MISS: Final = "MISS"
AIM: Final = "AIM"
"""The gate holds and so does the aim."""


class Verdict(NamedTuple):
    """A gate met or missed; `worst` is the figure that is furthest on the wrong side, and `cell` has it."""

    what: str
    says: str
    worst: float
    cell: str
    bound: str
    aim: float


def verdicts(rows: Iterable[Row]) -> list[Verdict]:
    """Judge the gates whose cells were measured; the pinned cells by themselves. Broken cells miss."""
    known = list(rows)
    found = []
    for prefix in ("", PINNED):
        for gate in GATES:
            wanted = tuple(prefix + pattern for pattern in gate.patterns)
            own = [row for row in known if any(fnmatchcase(row.cell.name, pattern) for pattern in wanted)]
            if judged := _judge(gate, prefix, own):
                found.append(judged)
    return found


def _judge(gate: Gate, prefix: str, rows: list[Row]) -> Verdict | None:
    figures = {row.cell.name: _figure(gate, row) for row in rows}
    if all(figure is None for figure in figures.values()):
        return None
    is_upper = rows[0].cell.better == LOWER
    sign, broken = ("<=", float("inf")) if is_upper else (">=", 0.0)
    measured = {name: broken if figure is None else figure for name, figure in figures.items()}
    cell = (max if is_upper else min)(measured, key=lambda name: measured[name])
    worst = measured[cell]

    def holds(bound: float) -> bool:
        return worst <= bound if is_upper else worst >= bound

    says = AIM if holds(gate.aim) else PASS if holds(gate.limit) else MISS
    return Verdict(prefix + gate.what, says, worst, cell, f"{sign} {gate.limit:g}", gate.aim)


def _figure(gate: Gate, row: Row) -> float | None:
    return row.medians.get("zproxy") if gate.is_absolute else row.ratio
