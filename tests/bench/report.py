"""The same rows as a table for a terminal, as Markdown, and as JSON. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from tests.bench.cells import Row
from tests.bench.gates import Verdict

COLUMNS: Final = ("zproxy", "envoy", "direct", "zproxy>envoy", "envoy>zproxy", "iptables", "two workers")
"""Contenders in the order of their columns; one that nobody measured has none."""


def as_json(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return an object per cell: null where a contender was not measured; `errors` says why it failed."""
    return [
        {
            "cell": row.cell.name,
            "unit": row.cell.unit,
            "better": row.cell.better,
            **{column: row.medians.get(column) for column in COLUMNS},
            "ratio": row.ratio,
            "against": row.against,
            "load_bound": sorted(row.load_bound),
            "errors": dict(row.errors),
        }
        for row in rows
    ]


def figure(value: float | None) -> str:
    """Return three to four digits, which is what a measurement is worth."""
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def cells_table(rows: Sequence[Row]) -> list[list[str]]:
    """Return the head and a line per cell; a contender that failed shows as such."""
    columns = [name for name in COLUMNS if any(name in row.medians or name in row.errors for row in rows)]
    lines = [["cell", "unit", "better", *columns, "ratio"]]
    for row in rows:
        values = [_shown(row, name) for name in columns]
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        lines.append([row.cell.name, row.cell.unit, row.cell.better, *values, ratio])
    return lines


def _shown(row: Row, contender: str) -> str:
    if contender in row.errors:
        return "error"
    return figure(row.medians.get(contender)) + ("!" if contender in row.load_bound else "")


def gates_table(found: Iterable[Verdict]) -> list[list[str]]:
    """Return the head and a line per gate that was judged, with its worst cell."""
    lines = [["gate", "", "worst", "gate is", "aim", "in the cell"]]
    lines += [
        [item.what, item.says, figure(item.worst), item.bound, f"{item.aim:g}", item.cell] for item in found
    ]
    return lines


def aligned(lines: Sequence[Sequence[str]], texts: int) -> str:
    """Return a table for a terminal: the first `texts` columns to the left, figures to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at < texts else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(lines: Sequence[Sequence[str]], texts: int) -> str:
    """Return the same as a table of a document."""
    head, *rest = lines
    rule = ["---" if at < texts else "--:" for at in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rest))


def errors(rows: Iterable[Row]) -> list[str]:
    """Return a sentence per contender and reason, with the cells that it broke."""
    broken: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for contender, error in row.errors.items():
            broken.setdefault((contender, error), []).append(row.cell.name)
    return [f"{who} failed in {', '.join(cells)}: {error}" for (who, error), cells in broken.items()]
