"""Pods found by the cgroups of processes."""

import os
from pathlib import Path

import pytest

from zproxy.kube.sandboxes import sandboxes, uid_in

UID, OTHER = "0a1b2c3d-1111-2222-3333-444455556666", "ffffffff-1111-2222-3333-444455556666"
STATIC = "0123456789abcdef0123456789abcdef"


class Proc:
    """A /proc of some processes; namespaces are files."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "proc"
        self._directory = directory
        self.process(1, "host", "/init.scope", 0)
        (self.path / "self").mkdir()

    def process(self, pid: int, netns: str, cgroup: str, started: int, *, hierarchy: str = "0::") -> None:
        directory = self.path / str(pid)
        (directory / "ns").mkdir(parents=True)
        namespace = self._directory / netns
        namespace.touch()
        os.symlink(namespace, directory / "ns" / "net")
        (directory / "cgroup").write_text(f"{hierarchy}{cgroup}\n")
        (directory / "stat").write_text(f"{pid} (a ) b) S " + " ".join(["0"] * 18) + f" {started} 0 0\n")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


@pytest.mark.parametrize(
    ("path", "uid"),
    [
        (f"/kubepods/burstable/pod{UID}/0123", UID),
        (
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice/x",
            UID,
        ),
        (f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID.replace('-', '_')}.slice", UID),
        (f"/../../kubepods/besteffort/pod{STATIC}/x", STATIC),
        (f"/system.slice/pod{UID}", None),
        ("/kubepods/burstable/podagonia/x", None),
        ("/", None),
    ],
)
def test_uids_in_paths(path: str, uid: str | None) -> None:
    assert uid_in(path) == uid


@pytest.mark.parametrize("hierarchy", ["0::", "4:memory:", "1:name=systemd:"])
def test_a_process_of_the_pod_is_found_whichever_version_of_cgroups(proc: Proc, hierarchy: str) -> None:
    proc.process(10, "pod", f"/kubepods/pod{UID}/a", 5, hierarchy=hierarchy)
    proc.process(11, "else", f"/kubepods/pod{OTHER}/a", 5)
    assert sandboxes({UID, "another"}, proc.path) == {UID: 10}


def test_of_several_it_is_the_first_that_started(proc: Proc) -> None:
    proc.process(10, "inner", f"/kubepods/pod{UID}/engine", 900)
    proc.process(30, "pod", f"/kubepods/pod{UID}/pause", 100)
    proc.process(20, "pod", f"/kubepods/pod{UID}/app", 300)
    assert sandboxes({UID}, proc.path) == {UID: 30}


def test_what_is_in_the_hosts_namespace_is_no_sandbox(proc: Proc) -> None:
    proc.process(10, "host", f"/kubepods/pod{UID}/vm", 5)
    assert sandboxes({UID}, proc.path) == {}


def test_processes_that_have_gone_meanwhile(proc: Proc) -> None:
    for pid in (40, 41):
        proc.process(pid, "pod", f"/kubepods/pod{UID}/a", 5)
    (proc.path / "40" / "stat").unlink()
    (proc.path / "41" / "cgroup").unlink()
    (proc.path / "42").mkdir()
    assert sandboxes({UID}, proc.path) == {}
