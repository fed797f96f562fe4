"""The table of equality is proven: every row has a verdict and names tests, and these tests exist."""

import ast
import re
from pathlib import Path

import pytest

from tests.support import documents

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "equality.md"
HEADINGS = ("## Outbound", "## Inbound", "## Attempts to get past the mesh")
VERDICTS = {"=", "+", "≠"}
ROWS = [
    pytest.param(cells, id=f"{heading.removeprefix('## ')}: {cells[0]}")
    for heading in HEADINGS
    for cells in documents.rows(TABLE, heading)
]


def existing_tests() -> set[str]:
    """Return the names of all root tests of steering and of daemons."""
    files = (path for kind in ("bpf", "node") for path in (ROOT / "tests" / kind).glob("test_*.py"))
    return {
        node.name
        for path in files
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("cells", ROWS)
def test_a_row_has_a_verdict_and_existing_tests(cells: list[str]) -> None:
    row, istio, ours, verdict, proof = cells
    assert all((row, istio, ours))
    assert verdict in VERDICTS
    named = set(re.findall(r"`(\w+)`", proof))
    assert named
    assert named - existing_tests() == set()


def test_every_test_of_rows_and_bypasses_is_in_the_table() -> None:
    text = TABLE.read_text()
    files = [
        ROOT / "tests" / "bpf" / f"test_{name}.py" for name in ("bypass", "rows_inbound", "rows_outbound")
    ]
    names = [
        name for path in files for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    ]
    assert names
    assert [name for name in names if f"`{name}`" not in text] == []
