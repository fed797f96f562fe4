"""The Makefile's own logic: the demo ALWAYS takes the lab down, and `make help` lists what it should."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


class Project:
    """A directory with our Makefile, and a `zproxy` that notes its arguments and fails where it is told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.calls = directory / "calls"
        shutil.copy(ROOT / "Makefile", directory)
        self._script(".ci/bootstrap", "true")
        self.zproxy("true")

    def zproxy(self, then: str) -> None:
        """Let `zproxy` do `then` after it has noted its arguments."""
        self._script(".venv/bin/zproxy", f'echo "$*" >>"{self.calls}"; {then}')

    def start_demo(self) -> subprocess.Popen[bytes]:
        """Run `make demo` in a process group of its own, as a terminal does."""
        return subprocess.Popen(
            ["make", "-s", "demo"], cwd=self.directory, stderr=subprocess.DEVNULL, process_group=0
        )

    def noted(self) -> list[str]:
        """Return how `zproxy` was called, in order."""
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def _script(self, name: str, body: str) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_the_demo_builds_proves_shows_policy_and_takes_down(project: Project) -> None:
    assert project.start_demo().wait() == 0
    assert project.noted() == ["lab up", "lab prove", "lab policy", "lab down"]


@pytest.mark.parametrize(
    ("broken", "calls"),
    [
        ("up", ["lab up", "lab down"]),
        ("prove", ["lab up", "lab prove", "lab down"]),
        ("policy", ["lab up", "lab prove", "lab policy", "lab down"]),
        ("down", ["lab up", "lab prove", "lab policy", "lab down"]),
    ],
)
def test_a_failure_fails_the_demo_and_the_lab_goes_down(
    project: Project, broken: str, calls: list[str]
) -> None:
    project.zproxy(f"[[ $2 != {broken} ]]")
    assert project.start_demo().wait() != 0
    assert project.noted() == calls


def test_an_interrupted_demo_takes_the_lab_down(project: Project) -> None:
    project.zproxy("[[ $2 != prove ]] || sleep 30")
    demo = project.start_demo()
    deadline = time.monotonic() + 10
    while "lab prove" not in project.noted() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(demo.pid, signal.SIGINT)
    assert demo.wait(10) != 0
    assert project.noted() == ["lab up", "lab prove", "lab down"]


def test_help_is_the_default_and_lists_every_target_that_has_a_sentence() -> None:
    listed = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    described = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"^  ([a-z-]+) ", listed, re.MULTILINE) == described
    assert {"demo", "test", "lint", "lock"} <= set(described)
