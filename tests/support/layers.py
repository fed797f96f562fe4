"""The import table of docs/architecture.md, and what a source does against it."""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

NO_IO: Final = frozenset({"asyncio", "logging", "socket", "subprocess", "threading", "time"})
"""What a pure package may not import: it would do, where it is to decide."""
HEADING: Final = "## Imports"


class Layer(NamedTuple):
    """One row of the table."""

    is_pure: bool
    project: tuple[str, ...]
    """Entries such as `model`, `node.client`, `everything`, `app in run.py`."""
    elsewhere: tuple[str, ...]
    """Top-level modules outside the standard library, with the same ` in FILE`."""


def read_table(document: Path) -> dict[str, Layer]:
    """Return the rows by package; `config` and `errors` are modules that count as packages."""
    section = document.read_text().partition(f"{HEADING}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return {
        package: Layer(pure.strip() == "yes", _entries(project), _entries(elsewhere))
        for packages, pure, project, elsewhere in rows
        for package in _entries(packages)
    }


def _entries(cell: str) -> tuple[str, ...]:
    return tuple(
        entry for part in cell.split(",") if (entry := part.replace("`", "").strip()) not in {"", "–"}
    )


def layer_of(path: Path, root: Path) -> str:
    """Return the row that a source belongs to: its package, or its own name directly under zproxy/."""
    top, *rest = path.relative_to(root).with_suffix("").parts
    return "cli" if top == "cli" else rest[0]


def violations(source: str, file: str, layer: str, table: Mapping[str, Layer]) -> Iterator[str]:
    """Yield a sentence for each import in `source` that the row of `layer` does not allow."""
    if layer not in table:
        yield f"{layer} has no row in the import table of docs/architecture.md"
        return
    for line, name in _imports(ast.parse(source)):
        fault = _fault(name, file, layer, table[layer])
        if fault:
            yield f"line {line}: {fault}"


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def _fault(name: str, file: str, layer: str, row: Layer) -> str:
    top, _, rest = name.partition(".")
    if not top:
        return f"{name}: relative imports are not used here"
    if top == "zproxy_cli":
        return "" if "cli" in {layer, *row.project} else f"{layer} may not import {name}"
    if top == "zproxy":
        is_fine = rest in {"", "__version__"} or _inside(rest, layer) or _allowed(rest, file, row.project)
        return "" if is_fine else f"{layer}/{file} may not import {name}"
    if top in sys.stdlib_module_names:
        return f"{layer} is pure and may not import {top}" if row.is_pure and top in NO_IO else ""
    return "" if _allowed(top, file, row.elsewhere) else f"{layer}/{file} may not import {top}"


def _allowed(name: str, file: str, entries: tuple[str, ...]) -> bool:
    places = (entry.partition(" in ") for entry in entries)
    return any(
        where in {"", file} and (what == "everything" or _inside(name, what)) for what, _, where in places
    )


def _inside(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def is_only_docstring(source: str) -> bool:
    """Tell whether an `__init__.py` holds a docstring, `__version__` at most, and nothing else."""
    docstring, *rest = ast.parse(source).body
    is_text = isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant)
    return is_text and all(re.match(r"__version__ = ", ast.unparse(statement)) for statement in rest)
