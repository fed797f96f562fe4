"""The cost of the way to the proxy: an accepting stub in the proxy's place, steered or not. Pure.

In the pinned cells load and stub share one core, so that a figure is work and no waiting for the other core.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from tests.bench.cells import SHAPES, Row, Shape
from tests.bench.report import figure

NONE, EBPF, IPTABLES = "direct", "zproxy", "iptables"
"""The contenders by what steers."""


def _stubbed() -> Iterator[Shape]:
    for name, kind, words in (
        ("connects x1", "cps", ("cps", "1")),
        ("rr 1B x1", "rr", ("rr", "1", "1")),
        ("rr 64KiB x1", "rr", ("rr", "65536", "1")),
    ):
        yield Shape(f"steering {name}", kind, words, "steering").pinned()
    yield from (shape for shape in SHAPES if shape.group == "steering")
    yield from (shape for shape in SHAPES if shape.name in THROUGH)


THROUGH: Final = ("passthrough connects x1",)
"""Cells in which the real proxy stands where the stub is: what steering costs beside it."""
MICRO: Final = tuple(_stubbed())
CONTENDERS: Final = (NONE, EBPF, IPTABLES)
ONE_CORE: Final = "pinned steering connects x1 p50"
"""The cell that says what steering adds to a connection."""


def table(rows: Sequence[Row]) -> list[list[str]]:
    """Return the head and a line per time or rate, with what each costs against no steering."""
    lines = [["cell", "unit", "none", "eBPF", "iptables", "eBPF:none", "iptables:none", "eBPF:iptables"]]
    for row in rows:
        if row.cell.name.endswith((" p50", " rate")):
            values = [figure(row.medians.get(who)) for who in CONTENDERS]
            pairs = ((EBPF, NONE), (IPTABLES, NONE), (EBPF, IPTABLES))
            lines.append([row.cell.name, row.cell.unit, *values, *(_ratio(row, *pair) for pair in pairs)])
    return lines


def added_us(rows: Sequence[Row], contender: str) -> float | None:
    """Return by how much a contender makes a connection slower, in us; None when that was not measured."""
    found = (row.medians for row in rows if row.cell.name == ONE_CORE)
    return next((of[contender] - of[NONE] for of in found if contender in of and NONE in of), None)


def _ratio(row: Row, ours: str, theirs: str) -> str:
    if ours not in row.medians or not row.medians.get(theirs):
        return "-"
    return f"{row.medians[ours] / row.medians[theirs]:.2f}"
