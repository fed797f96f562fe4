"""Figures of a soak run: shown when they are known, and all of them again at the end, one a line."""

from collections.abc import Callable

import pytest

Figure = Callable[[str, object], None]
_FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def figure(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Figure:
    """Return what notes a figure: its name, then its value with the unit."""
    noted = request.config.stash.setdefault(_FIGURES, [])

    def note(name: str, value: object) -> None:
        noted.append(f"{name}: {value}")
        with capsys.disabled():
            print(f"\n  {noted[-1]}", end="", flush=True)  # noqa: T201

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print every figure."""
    lines = config.stash.get(_FIGURES, [])
    if lines:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(lines))
