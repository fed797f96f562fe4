"""`.ci/bootstrap` installs what is missing, or says in a sentence why it cannot, or does nothing at once."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
NEEDED: Final = ("bash", "dirname", "flock", "id", "mktemp", "rm", "sort", "tail", "uname")
"""What the script itself uses before anything can be missing."""
PROBED: Final = (
    "curl",
    "dig",
    "ip",
    "iptables",
    "nft",
    "openssl",
    "ps",
    "ss",
    "sysctl",
    "tcpdump",
    "bpftool",
)


class Machine:
    """A machine as the script sees it: a PATH with exactly the commands that this test wants."""

    def __init__(self, directory: Path) -> None:
        self.tree = directory / "tree"
        self.commands = directory / "bin"
        self.log = directory / "log"
        self.commands.mkdir()
        (self.tree / ".ci").mkdir(parents=True)
        shutil.copy(ROOT / ".ci" / "bootstrap", self.tree / ".ci" / "bootstrap")
        for name in (*NEEDED, *PROBED):
            self.has(name)

    def has(self, name: str, script: str | None = None) -> None:
        """Put a command on PATH: the real one, or a script."""
        path = self.commands / name
        path.unlink(missing_ok=True)
        if script is None:
            path.symlink_to(
                shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or "/nonexistent"
            )
        else:
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)

    def lacks(self, name: str) -> None:
        """Take a command off PATH."""
        (self.commands / name).unlink()

    def bootstrap(self, *arguments: str) -> tuple[int, list[str]]:
        """Run the script; return its exit status and the lines that it printed."""
        environment = {"PATH": str(self.commands), "LOG": str(self.log)}
        # sbin is appended by the script, so a copy of it leads to a place that has nothing.
        script = (self.tree / ".ci" / "bootstrap").read_text().replace(":/usr/sbin:/sbin", ":/nonexistent")
        (self.tree / ".ci" / "bootstrap").write_text(script)
        done = subprocess.run(
            [self.tree / ".ci" / "bootstrap", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout == ""
        return done.returncode, done.stderr.splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_another_system_than_linux_is_refused(machine: Machine) -> None:
    machine.has("uname", "echo Darwin")
    status, [sentence] = machine.bootstrap()
    assert status == 1
    assert "this is Darwin" in sentence


def test_a_machine_without_apt_is_told_what_it_lacks(machine: Machine) -> None:
    machine.lacks("tcpdump")
    machine.lacks("curl")
    status, [sentence] = machine.bootstrap()
    assert status == 1
    assert "curl tcpdump" in sentence
    assert "no apt-get" in sentence


@pytest.mark.parametrize(
    ("purpose", "missing"),
    [
        ((), "curl"),
        (("bench",), "curl gcc"),
        (("test",), "busybox containerd curl gcc libcap2-bin musl-tools runc"),
        (("vagrant",), "curl vagrant"),
    ],
)
def test_only_benchmarks_and_tests_compile(machine: Machine, purpose: tuple[str, ...], missing: str) -> None:
    machine.lacks("curl")
    status, [sentence] = machine.bootstrap(*purpose)
    assert status == 1
    for package in (
        "libc6-dev",
        "containernetworking-plugins",
    ):  # files tell, and here they are the machine's
        sentence = sentence.replace(f" {package}", "")
    assert f"what Debian packages as {missing}," in sentence


def test_an_ordinary_user_is_told_the_command_for_root(machine: Machine) -> None:
    machine.lacks("tcpdump")
    machine.has("apt-get", 'echo "$@" >>"$LOG"')
    machine.has("id", "echo 1000")
    status, [sentence] = machine.bootstrap()
    assert status == 1
    assert sentence.endswith("apt-get install tcpdump")
    assert not machine.log.exists()


def test_only_what_is_missing_is_installed_and_without_questions(machine: Machine) -> None:
    machine.lacks("ss")
    machine.lacks("tcpdump")
    machine.has("apt-get", 'echo "$DEBIAN_FRONTEND: $@" >>"$LOG"')
    machine.has("id", "echo 0")
    machine.bootstrap()
    update, install = machine.log.read_text().splitlines()
    assert update == "noninteractive: -qq update"
    assert install.startswith("noninteractive: ")
    assert "--yes" in install
    assert install.endswith(" iproute2 tcpdump")


def test_a_package_that_does_not_help_is_named(machine: Machine) -> None:
    machine.lacks("tcpdump")
    machine.has("apt-get", "true")
    machine.has("id", "echo 0")
    status, lines = machine.bootstrap()
    assert status == 1
    assert "has installed tcpdump" in lines[-1]


def test_what_a_failed_command_said_is_shown_before_the_sentence(machine: Machine) -> None:
    machine.lacks("tcpdump")
    machine.has("apt-get", "echo 'E: the mirror is down' >&2; exit 100")
    machine.has("id", "echo 0")
    status, lines = machine.bootstrap()
    assert status == 1
    assert lines[0] == "E: the mirror is down"
    assert "apt-get update failed" in lines[1]


@pytest.mark.parametrize(
    ("candidates", "package"),
    [
        ("bpftool", "bpftool"),
        (
            "linux-tools-6.8.0-31-generic linux-tools-generic",
            "linux-tools-6.8.0-31-generic linux-tools-common",
        ),
        ("linux-tools-generic", "linux-tools-common linux-tools-generic"),
    ],
)
def test_bpftool_comes_from_whatever_package_has_it(machine: Machine, candidates: str, package: str) -> None:
    machine.has("bpftool", "exit 2")  # Ubuntu's wrapper without the tools of the running kernel
    machine.has("uname", 'test "$1" = -s && echo Linux || echo 6.8.0-31-generic')
    machine.has(
        "apt-cache",
        f'case " {candidates} " in *" $2 "*) echo "  Candidate: 7.1";; *) echo "  Candidate: (none)";; esac',
    )
    machine.has("apt-get", 'echo "$@" >>"$LOG"')
    machine.has("id", "echo 0")
    machine.bootstrap()
    assert set(machine.log.read_text().split("--no-install-recommends ")[1].split()) == set(package.split())


def test_nothing_happens_and_fast_when_nothing_is_missing() -> None:
    started = time.monotonic()
    done = subprocess.run([ROOT / ".ci" / "bootstrap"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert time.monotonic() - started < 1
