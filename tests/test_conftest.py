"""The rules of conftest.py hold in a run of pytest's own: what they refuse is red there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFTEST = (
    "from tests.conftest import *  # noqa: F403\nfrom tests.conftest import _nothing_is_left  # noqa: F401\n"
)


def run(directory: Path, test: str, conftest: str = "") -> tuple[int, str]:
    """Run pytest on one test file under our conftest; return its exit status and what it printed."""
    (directory / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT}\nmarkers =\n  root\n")
    (directory / "conftest.py").write_text(conftest + CONFTEST)
    (directory / "test_it.py").write_text(test)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", "pytest.ini", "test_it.py"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_skip_is_a_failure(tmp_path: Path) -> None:
    status, output = run(tmp_path, "import pytest\ndef test_a() -> None:\n    pytest.skip('no kernel')\n")
    assert status == 1
    assert "skips are not allowed" in output
    assert "no kernel" in output


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    status, output = run(
        tmp_path, "import pytest\n@pytest.mark.xfail\ndef test_a() -> None:\n    assert False\n"
    )
    assert (status, "1 xfailed" in output) == (0, True)


def test_a_root_test_without_root_is_an_error_with_a_sentence(tmp_path: Path) -> None:
    nobody = "import os\nos.geteuid = lambda: 65534\n"
    status, output = run(tmp_path, "import pytest\n@pytest.mark.root\ndef test_a() -> None: ...\n", nobody)
    assert status == 1
    assert "1 error" in output
    assert "make test-unit" in output


@pytest.mark.root
def test_a_namespace_that_is_left_fails_the_run_and_is_named(tmp_path: Path) -> None:
    name = f"zpt-{os.getpid()}-forgotten"
    test = (
        "import pytest, subprocess\n@pytest.mark.root\n"
        f"def test_a() -> None:\n    subprocess.run(['ip', 'netns', 'add', '{name}'], check=True)\n"
    )
    impatient = "from tests.support import leftovers\nleftovers.PATIENCE_S = 0.2\n"
    try:
        status, output = run(tmp_path, test, impatient)
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
    assert status == 1
    assert f"network namespace {name}" in output
    assert "make clean-root" in output
