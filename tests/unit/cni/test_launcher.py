"""The executable: it runs the plugin isolated, without site-packages and quickly."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.cni import configuration, environment
from zproxy.cni.launcher import launcher
from zproxy.errors import ConfigError

ROOT = Path(__file__).parents[3]
ENOUGH_S = 0.1
"""Of all that a birth takes, what the plugin itself may: the best of several."""


@pytest.fixture
def executable(tmp_path: Path) -> Path:
    path = tmp_path / "zproxy-cni"
    path.write_bytes(launcher(Path(sys.executable), ROOT))
    path.chmod(0o755)
    return path


def run(executable: Path, command: str, text: bytes, **more: str) -> subprocess.CompletedProcess[bytes]:
    variables = {"PATH": os.environ["PATH"]} | environment(command) | more
    return subprocess.run([executable], env=variables, input=text, capture_output=True, timeout=30)


def test_it_is_the_plugin(executable: Path) -> None:
    done = run(executable, "VERSION", b"{}")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b'"supportedVersions"' in done.stdout


def test_it_fails_as_the_protocol_has_it(executable: Path) -> None:
    done = run(executable, "ADD", configuration(node="zpt-nobody"))
    assert (done.returncode, done.stderr) == (1, b"")
    assert b'"code": 11, "msg": "no zproxy daemon runs for node zpt-nobody' in done.stdout


def test_notes_go_to_stderr(executable: Path) -> None:
    done = run(executable, "ADD", configuration(node="zpt-nobody", failOpen=True))
    assert done.returncode == 0
    assert done.stderr.startswith(b"zproxy-cni: demo/client is born outside the mesh (failOpen): ")


def test_the_runtimes_environment_has_no_say(executable: Path, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    assert run(executable, "VERSION", b"{}", PYTHONPATH=str(tmp_path), PYTHONHOME="/none").returncode == 0


def test_it_loads_no_more_than_it_needs(executable: Path) -> None:
    lines = executable.read_text().replace("main()\n", "")
    ask = f"{lines}print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-IS", "-c", ask], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded - set(sys.stdlib_module_names) - {"__main__"} == {"zproxy"}
    assert not loaded & {"asyncio", "click", "dataclasses", "logging", "site", "ssl", "subprocess"}


def test_it_starts_in_a_fraction_of_what_a_birth_takes(executable: Path) -> None:
    took = []
    for _ in range(10):
        began = time.monotonic()
        assert run(executable, "ADD", configuration(node="zpt-nobody")).returncode == 1
        took.append(time.monotonic() - began)
    assert min(took) < ENOUGH_S


@pytest.mark.parametrize("python", ["python3", "/with space/python3", "/" + "x" * 200])
def test_an_interpreter_that_the_kernel_would_not_take_is_refused(python: str) -> None:
    with pytest.raises(ConfigError, match="name one by an absolute path without spaces"):
        launcher(Path(python), ROOT)
