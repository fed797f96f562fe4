"""The import table of docs/architecture.md, enforced on every source."""

from pathlib import Path

import pytest

from tests.support.layers import is_only_docstring, layer_of, read_table, violations

ROOT = Path(__file__).parents[1]
TABLE = read_table(ROOT / "docs" / "architecture.md")
SOURCES = sorted(path for top in ("zproxy", "cli") for path in (ROOT / top).rglob("*.py"))
MODULES = [path for path in SOURCES if path.name != "__init__.py"]
PACKAGES = [path for path in SOURCES if path.name == "__init__.py"]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_follow_the_table(path: Path) -> None:
    assert not list(violations(path.read_text(), path.name, layer_of(path, ROOT), TABLE))


@pytest.mark.parametrize("path", PACKAGES, ids=name_of)
def test_a_package_file_holds_its_docstring_and_nothing_else(path: Path) -> None:
    assert is_only_docstring(path.read_text())


def test_every_row_names_something_that_exists() -> None:
    there = {layer_of(path, ROOT) for path in SOURCES if path.parts[-2:] != ("zproxy", "__init__.py")}
    assert set(TABLE) - there == set()
