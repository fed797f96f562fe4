"""Which cgroup is a pod's: on a /proc and a hierarchy of the test's own, and on the real ones."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import foreign
from tests.support.netns import PREFIX, Namespace
from zproxy.errors import SteeringError
from zproxy.steering import cgroups
from zproxy.steering.pod_cgroups import PodCgroup, Search, membership, of_uid, pod_level, resolve

UID = "6f2c1e0a-90f1-4a34-9f6e-0b7b7d0c2d11"
SYSTEMD_POD = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice"
IN_KUBELETS_TREE = f"/kubepods/burstable/pod{UID}"


class Machine:
    """A /proc whose namespaces are files, and a cgroup hierarchy of plain directories."""

    def __init__(self, directory: Path) -> None:
        self.proc = directory / "proc"
        self.root = directory / "cgroup"
        self.pids: dict[str, list[int]] = {}
        for name in ("host", "pod", "other"):
            (directory / name).touch()
        self._directory = directory
        self.root.mkdir()
        self.process(1, "host", "/")
        (self.proc / "self").symlink_to("1")

    def process(self, pid: int, netns: str, cgroup: str) -> None:
        home = self.proc / str(pid)
        (home / "ns").mkdir(parents=True)
        (home / "ns" / "net").symlink_to(self._directory / netns)
        (home / "cgroup").write_text(f"4:memory:/elsewhere\n0::{cgroup}\n")
        self.pids.setdefault(cgroup, []).append(pid)
        self.cgroup(cgroup)

    def cgroup(self, path: str) -> Path:
        directory = self.root / path.lstrip("/")
        directory.mkdir(parents=True, exist_ok=True)
        for each in (directory, *directory.parents):
            if each.is_relative_to(self.root):
                shown = f"/{each.relative_to(self.root)}".removesuffix("/.")
                pids = self.pids.get(shown or "/", [])
                (each / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
        return directory

    def search(self) -> Search:
        status = (self._directory / "pod").stat()
        netns: Any = type("Pod", (), {"key": (status.st_dev, status.st_ino)})
        return Search(netns, self.root, self.root / "system.slice/zproxy.service", self.proc)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("path", "lifted"),
    [
        (f"{IN_KUBELETS_TREE}/0123abc", IN_KUBELETS_TREE),
        (f"/kubepods/pod{UID}", f"/kubepods/pod{UID}"),
        (f"{SYSTEMD_POD}/cri-containerd-77.scope", SYSTEMD_POD),
        (
            f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID.replace('-', '_')}.slice/a/b",
            f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID.replace('-', '_')}.slice",
        ),
        ("/kubepods/besteffort/pod0123456789abcdef0123456789abcdef/c", None),
        ("/system.slice/docker-77.scope", "/system.slice/docker-77.scope"),
        (f"/user.slice/pod{UID}/x", f"/user.slice/pod{UID}/x"),
        ("/", "/"),
    ],
)
def test_a_containers_path_is_lifted_to_its_pod_in_kubelets_tree(path: str, lifted: str | None) -> None:
    assert pod_level(path) == (lifted or path.rpartition("/")[0])


def test_the_v2_line_counts(machine: Machine) -> None:
    machine.process(7, "pod", "/a/b")
    assert membership(7, machine.proc) == "/a/b"
    assert membership(8, machine.proc) is None


def test_a_process_of_the_pod_leads_to_the_pods_cgroup(machine: Machine) -> None:
    machine.process(7, "pod", f"{IN_KUBELETS_TREE}/container")
    found = machine.root / IN_KUBELETS_TREE[1:]
    assert machine.search().of_process(7) == PodCgroup(found, "process 7 is in it")
    assert machine.search().by_processes() == PodCgroup(found, "process 7 is in it")


@pytest.mark.parametrize(
    ("cgroup", "why"),
    [
        ("/", "/: it is the root of the hierarchy"),
        ("/system.slice", "/system.slice: zproxy itself is in it"),
        ("/system.slice/zproxy.service", "zproxy itself is in it"),
    ],
)
def test_the_root_and_the_daemons_own_are_nobodys(machine: Machine, cgroup: str, why: str) -> None:
    machine.process(7, "pod", cgroup)
    for found in (machine.search().of_process(7), machine.search().by_processes()):
        assert found.path is None
        assert why in found.why


@pytest.mark.parametrize("whose", ["host", "other"])
def test_a_cgroup_with_processes_of_others_is_not_the_pods(machine: Machine, whose: str) -> None:
    machine.process(7, "pod", "/session")
    machine.process(8, whose, "/session/deeper")
    found = machine.search().by_processes()
    assert found == PodCgroup(None, "/session: process 8 in it is in another network namespace")


def test_a_pod_of_kubelets_may_have_namespaces_of_its_own(machine: Machine) -> None:
    machine.process(7, "pod", f"{IN_KUBELETS_TREE}/engine")
    machine.process(8, "other", f"{IN_KUBELETS_TREE}/engine/inner")
    assert machine.search().by_processes().path == machine.root / IN_KUBELETS_TREE[1:]
    machine.process(9, "host", f"{IN_KUBELETS_TREE}/hostile")
    assert machine.search().by_processes().path is None


def test_kubelets_tree_wins_over_a_session_that_entered_the_pod(machine: Machine) -> None:
    machine.process(7, "pod", "/debug")
    machine.process(8, "pod", f"{IN_KUBELETS_TREE}/container")
    assert machine.search().by_processes().path == machine.root / IN_KUBELETS_TREE[1:]


def test_several_cgroups_are_said(machine: Machine) -> None:
    machine.process(7, "pod", "/a")
    machine.process(8, "pod", "/b")
    found = machine.search().by_processes()
    assert found.path is None
    assert "name one with --cgroup" in found.why


def test_a_pod_without_processes_has_none(machine: Machine) -> None:
    assert machine.search().by_processes() == PodCgroup(None, "no process is in the pod yet")


def test_a_search_ends_in_time(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zproxy.steering.pod_cgroups.SEARCH_S", 0.0)
    machine.process(7, "pod", "/a")
    assert "too many processes to search" in machine.search().by_processes().why
    assert "too many processes to look at" in machine.search().of_process(7).why


def test_a_given_cgroup_may_be_empty(machine: Machine) -> None:
    path = machine.cgroup("/kubepods/new")
    for text in (str(path), "/kubepods/new"):
        assert machine.search().given(text) == PodCgroup(path, "it was given")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("/gone", "there is no such cgroup"),
        ("/", "root of the hierarchy"),
        ("/../x", "there is no such cgroup"),
    ],
)
def test_a_given_cgroup_that_cannot_be_is_refused(machine: Machine, text: str, why: str) -> None:
    with pytest.raises(SteeringError, match=why):
        machine.search().given(text)


def test_a_path_is_taken_from_the_hierarchys_root(tmp_path: Path) -> None:
    assert resolve(f"{tmp_path}/a/../b", tmp_path) == tmp_path / "b"
    with pytest.raises(SteeringError, match="is not below"):
        resolve("../b", tmp_path)


@pytest.fixture
def own() -> Iterator[Path]:
    with foreign.cgroup(f"{PREFIX}pod") as made:
        yield made


@pytest.mark.root
def test_a_real_process_in_a_real_pod_is_found(pod: Namespace, own: Path) -> None:
    root = cgroups.root_cgroup()
    with subprocess.Popen(["ip", "netns", "exec", pod.name, "cat"], stdin=subprocess.PIPE) as app:
        (own / "cgroup.procs").write_text(str(app.pid))
        while os.stat(f"/proc/{app.pid}/ns/net").st_ino != pod.netns.key[1]:
            assert app.poll() is None
        search = Search(pod.netns, root, root)
        assert search.by_processes() == PodCgroup(own, f"process {app.pid} is in it")
        assert search.of_process(os.getpid()).path is None
        app.communicate()


IN_KIND = (
    f"/docker/abc/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID.replace('-', '_')}.slice"
)


@pytest.mark.parametrize("path", [SYSTEMD_POD, IN_KUBELETS_TREE, IN_KIND, f"/kubepods/pod{UID}"])
def test_kubelets_cgroup_of_a_pod_is_found_by_its_uid(tmp_path: Path, path: str) -> None:
    machine = Machine(tmp_path)
    machine.cgroup(SYSTEMD_POD.replace("6f2c", "7f2c"))
    assert of_uid(UID, machine.root) is None
    found = machine.cgroup(path)
    machine.cgroup(f"{path}/container")
    assert of_uid(UID, machine.root) == found


@pytest.mark.parametrize("uid", ["", "7", "..", f"{UID}/..", "*" * 36])
def test_what_is_no_uid_has_no_cgroup(tmp_path: Path, uid: str) -> None:
    machine = Machine(tmp_path)
    machine.cgroup(SYSTEMD_POD)
    assert of_uid(uid, machine.root) is None


def test_a_look_alike_outside_kubelets_tree_is_not_the_pods(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.cgroup(f"/user.slice/pod{UID}")
    assert of_uid(UID, machine.root) is None
