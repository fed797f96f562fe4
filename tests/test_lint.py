"""`make lint` passes: style, format, types, and the format of the BPF programs."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.timeout(300)  # mypy without its cache, on a busy machine
@pytest.mark.parametrize("check", ["lint-code", "lint-format", "lint-types", "lint-bpf", "lint-shell"])
def test_make_lint_passes(check: str) -> None:
    done = subprocess.run(["make", "-s", check], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"make {check} says:\n{done.stdout}{done.stderr}"


def test_generated_code_is_what_protoc_makes_of_the_proto_files() -> None:
    done = subprocess.run(["make", "-s", "gen-check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
