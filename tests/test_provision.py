"""vagrant/provision.sh on a machine of fakes: what it does, in which order, and that a second run is idle."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "vagrant" / "provision.sh"
CHANGES = (
    "apt-get",
    "curl",
    "docker build",
    "docker cp",
    "docker exec ztunnel-lab-worker mount -t",
    "install",
    "kind create",
    "kind load",
    "kubectl rollout restart",
    "ln",
    "resize2fs /dev/vda1",
    "systemctl",
    "usermod",
)


class Machine:
    """A PATH of fakes that note how they are called, and that remember what they were told to make."""

    def __init__(self, directory: Path) -> None:
        self.commands = directory / "bin"
        self.state = directory / "state"
        self.calls = directory / "calls"
        for made in (self.commands, self.state):
            made.mkdir()
        for name in (
            "bash",
            "cat",
            "cut",
            "dirname",
            "env",
            "getent",
            "grep",
            "mktemp",
            "readlink",
            "rm",
        ):
            self._real(name)
        self.fake("uname", 'test "$1" = -m && echo x86_64 || echo "${KERNEL:-6.12.41+deb13-amd64}"')
        self.fake(
            "id", 'test "$1" = -u && echo "${USER_ID:-0}" || { has usermod && echo me docker || echo me; }'
        )
        self.fake("apt-cache", 'echo "  Candidate: 7.5"')
        self.fake("apt-get", 'case "$*" in *install*) make packages;; esac')
        self.fake(
            "curl", 'test $# -gt 1 || exit 0; while test "$1" != --output; do shift; done; echo kind >"$2"'
        )
        self.fake("sha256sum", 'cat >/dev/null; test ! -e "$STATE/tampered"')
        self.fake("install", 'case "$*" in */kind) make kind;; esac')
        self.fake("ln", 'make demo; exec /bin/ln "$@"')
        self.fake("systemctl", "make docker")
        self.fake("findmnt", "echo /dev/vda1")
        self.fake("lsblk", "echo vda")
        self.fake("growpart", 'has grown && exit 1; test "$1" = --dry-run || make grown')
        self.fake("resize2fs", "has grown")
        self.fake("chown", "true")
        self.fake("python3", "true")
        self.fake("usermod", "make usermod")
        self.fake("bpftool", "has packages")
        self.fake("docker", DOCKER)
        self.fake("kind", KIND)
        self.fake(
            "kubectl", 'case "$*" in "version --client") has kubectl && echo "Client Version: v1.33.1";; esac'
        )

    def fake(self, name: str, script: str) -> None:
        """Put a command on PATH that notes its call and does `script`."""
        path = self.commands / name
        helpers = 'has() { test -e "$STATE/$1"; }; make() { : >"$STATE/$1"; }'
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>"$CALLS"\n{helpers}\n{script}\n')
        path.chmod(0o755)

    def _real(self, name: str) -> None:
        (self.commands / name).symlink_to(f"/usr/bin/{name}")

    def provision(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the script; `calls` has then what this run called."""
        self.calls.write_text("")
        environment = {
            "PATH": str(self.commands),
            "STATE": str(self.state),
            "CALLS": str(self.calls),
            "ZPROXY_BIN_DIR": str(self.commands),
        }
        return subprocess.run(
            ["/bin/bash", SCRIPT, *words],
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def changes(self) -> list[str]:
        """Return what of the last run's calls changes something, in order and without repetitions."""
        lines = self.calls.read_text().replace(" --context kind-ztunnel-lab --namespace zproxy-system", "")
        found = [each for line in lines.splitlines() for each in CHANGES if line.startswith(each)]
        return list(dict.fromkeys(found))


DOCKER = """
case "$*" in
    info) has docker ;;
    build*) make image ;;
    "image inspect"*) has image && echo sha256:built ;;
    *crictl*) has loaded && echo sha256:built ;;
    *mountpoint*) has "bpffs-$2" ;;
    *"mount -t bpf"*) make "bpffs-$2" ;;
    cp*) make kubectl ;;
esac
"""
KIND = """
case "$1 $2" in
    "version "*) has kind && echo "kind v0.29.0 go1.24.2 linux/amd64" ;;
    "get clusters") has cluster && echo ztunnel-lab || echo other ;;
    "create cluster") make cluster ;;
    "load docker-image") make loaded ;;
esac
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def succeed(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_makes_everything_in_order(machine: Machine) -> None:
    succeed(machine.provision("--user", "root"))
    assert machine.changes() == [
        "resize2fs /dev/vda1",
        "apt-get",
        "systemctl",
        "usermod",
        "curl",
        "install",
        "ln",
        "docker build",
        "kind create",
        "docker cp",
        "docker exec ztunnel-lab-worker mount -t",
        "kind load",
        "kubectl rollout restart",
    ]
    assert os.readlink(machine.commands / "zproxy-demo") == str(ROOT / "vagrant" / "zproxy-demo")


def test_a_second_run_builds_and_applies_and_changes_nothing_else(machine: Machine) -> None:
    succeed(machine.provision("--user", "root"))
    succeed(machine.provision("--user", "root"))
    assert machine.changes() == ["docker build", "install"]
    (installed,) = (line for line in machine.calls.read_text().splitlines() if line.startswith("install"))
    assert installed.startswith("install -d "), "the directory of the user's kubeconfig, made once"


def test_a_dry_run_says_what_it_would_do_and_does_nothing(machine: Machine) -> None:
    said = succeed(machine.provision("--dry-run"))
    assert machine.changes() == []
    assert list(machine.state.iterdir()) == []
    wanted = ("apt-get", "kind create cluster", "kind load docker-image zproxy:dev", "kubectl --context")
    assert all(f"would run: {each}" in said for each in wanted)
    assert machine.provision("--dry-run").stdout.count("would run") == said.count("would run")


def test_a_new_image_restarts_the_daemons(machine: Machine) -> None:
    succeed(machine.provision())
    (machine.state / "loaded").unlink()
    succeed(machine.provision())
    assert machine.changes() == ["docker build", "kind load", "kubectl rollout restart"]


def test_what_is_not_what_was_published_is_not_installed(machine: Machine) -> None:
    (machine.state / "tampered").touch()
    done = machine.provision()
    assert done.returncode == 1
    assert "is not what was published" in done.stderr
    assert "install" not in machine.changes()


@pytest.mark.parametrize(
    ("words", "variables", "sentence"),
    [
        (["--wrong"], {}, "there is no option --wrong"),
        (["--project", "/nowhere"], {}, "/nowhere is not zproxy's project"),
        ([], {"USER_ID": "1000"}, "only root can install packages"),
        ([], {"KERNEL": "6.1.0-40-amd64"}, "zproxy needs Linux 6.6 or newer and this is 6.1.0-40-amd64"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_changed(
    machine: Machine, words: list[str], variables: dict[str, str], sentence: str
) -> None:
    done = machine.provision(*words, **variables)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert machine.changes() == []


def test_the_cluster_and_its_nodes_have_the_names_that_the_script_uses() -> None:
    cluster = yaml.safe_load((ROOT / "vagrant" / "kind.yaml").read_text())
    assert f"readonly cluster={cluster['name']}\n" in SCRIPT.read_text()


def test_everything_that_is_downloaded_is_pinned() -> None:
    text = SCRIPT.read_text()
    assert "@sha256:" in text.partition("node_image=")[2].splitlines()[0]
    assert text.count("run curl ") == 1, "and that one is compared with a checksum"
