"""Every source has its test where one looks for it, and every unit test its source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTED_ELSEWHERE: dict[str, str] = {}
"""Source → the test that covers it. It may only shrink: an entry whose source has its own test fails."""


def sources() -> list[str]:
    """Return the modules that do something, relative to the project's directory."""
    found = (path for top in ("zproxy", "cli") for path in (ROOT / top).rglob("*.py"))
    return sorted(str(path.relative_to(ROOT)) for path in found if has_behaviour(path.read_text()))


def has_behaviour(source: str) -> bool:
    """Tell whether a module has a function with a body: values and protocols have nothing to test."""
    functions = (
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return any(not _is_declaration(statement) for function in functions for statement in function.body)


def _is_declaration(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def mirrors(source: str) -> list[Path]:
    """Return where the test of `source` may be: its own, or its family's (test_tls.py for tls_openssl.py)."""
    top, *rest = Path(source).with_suffix("").parts
    package = (ROOT / "tests" / ("cli" if top == "cli" else "unit")).joinpath(*rest[:-1])
    words = rest[-1].split("_")
    return [package / f"test_{'_'.join(words[:count])}.py" for count in range(len(words), 0, -1)]


@pytest.mark.parametrize("source", sources())
def test_every_source_has_its_test(source: str) -> None:
    is_there = any(path.exists() for path in mirrors(source))
    elsewhere = TESTED_ELSEWHERE.get(source)
    if elsewhere is None:
        assert is_there, f"{source} has no {mirrors(source)[0].relative_to(ROOT)}"
    else:
        assert not is_there, f"{source} has its own test: take it off TESTED_ELSEWHERE"
        assert (ROOT / elsewhere).exists(), f"{elsewhere}, which should test {source}, does not exist"


def test_the_exceptions_name_sources_that_exist() -> None:
    assert set(TESTED_ELSEWHERE) - set(sources()) == set()


@pytest.mark.parametrize(
    "test", sorted((ROOT / "tests" / "unit").rglob("test_*.py")), ids=lambda path: path.name
)
def test_every_unit_test_has_its_source(test: Path) -> None:
    package = test.relative_to(ROOT / "tests" / "unit").parent
    directory = ROOT / "tests" / package if package.parts[:1] == ("support",) else ROOT / "zproxy" / package
    subject = test.stem.removeprefix("test_")
    stems = (path.stem for path in directory.glob("*.py"))
    assert any(subject == stem or subject.startswith(f"{stem}_") for stem in stems)


@pytest.mark.parametrize(
    ("source", "behaves"),
    [
        ('"""Values."""\nPORT = 1\n', False),
        ('class P(Protocol):\n    def f(self) -> int:\n        """Say."""\n', False),
        ("class P(Protocol):\n    def f(self) -> int: ...\n", False),
        ("def f() -> int:\n    return 1\n", True),
        ("class C:\n    async def f(self) -> None:\n        pass\n", True),
    ],
)
def test_only_behaviour_asks_for_a_test(source: str, behaves: bool) -> None:
    assert has_behaviour(source) is behaves
