import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import machine

HOLD = """
import pathlib, sys
from tests.support.machine import exclusive
with exclusive(path=pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _outside_of_this_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(machine._HELD, raising=False)


def test_a_second_run_waits_for_the_first_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    monkeypatch.setattr(machine, "PATIENCE_S", 0.0)
    with pytest.raises(TimeoutError, match="another run"), machine.exclusive("another run", path=path):
        pass
    holder.communicate("")
    with machine.exclusive("another run", path=path):
        pass
    assert capsys.readouterr().out == ""


def test_a_run_started_by_the_holder_does_not_wait(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with machine.exclusive(path=path):
        done = subprocess.run(
            [sys.executable, "-c", HOLD, path], input="", capture_output=True, text=True, timeout=30
        )
    assert done.stdout == "held\n"
