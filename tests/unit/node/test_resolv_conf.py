"""A pod's resolv.conf: what it says, and that nothing but the pod's own file is read."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.netns import Namespace
from tests.support.steering import open_files
from zproxy.model.pod import ResolvConf
from zproxy.node import resolv_conf
from zproxy.node.resolv_conf import MAX_BYTES, MAX_SEARCH, parse, read

KUBELETS = (
    "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
)
POD = parse(KUBELETS)
SECRET = "nameserver 192.0.2.66\n"


@pytest.mark.parametrize(
    ("text", "nameservers", "search"),
    [
        (
            KUBELETS,
            ("10.96.0.10",),
            ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local"),
        ),
        ("", (), ()),
        ("nameserver\t10.0.0.1", ("10.0.0.1",), ()),
        ("nameserver 10.0.0.1 # the first\r\nnameserver FD00:0::1\r\n", ("10.0.0.1", "fd00::1"), ()),
        ("nameserver ::ffff:10.0.0.1", ("10.0.0.1",), ()),
        ("".join(f"nameserver 10.0.0.{n}\n" for n in range(1, 6)), ("10.0.0.1", "10.0.0.2", "10.0.0.3"), ()),
        ("nameserver fe80::1%eth0\nnameserver fe80::2\n", ("fe80::2",), ()),
        ("nameserver\nnameserver x\nnameserver 10.0.0\nnameservers 10.0.0.1\n", (), ()),
        ("#nameserver 10.0.0.1\n;nameserver 10.0.0.2\n nameserver 10.0.0.3\n", (), ()),
        ("Nameserver 10.0.0.1\nnameserver10.0.0.1\n", (), ()),
        ("search a.example\nsearch B.Example. c\n", (), ("b.example", "c")),
        ("search a b\ndomain c d\n", (), ("c",)),
        ("domain c\nsearch a b\n", (), ("a", "b")),
        ("search a\nsearch\ndomain\n", (), ("a",)),
        ("search . a..b -x ok\n", (), ("ok",)),
        ("\0\n\x85search a\nsearch b\u2028c d\n", (), ("b", "c", "d")),
    ],
)
def test_servers_and_domains_are_found_and_the_rest_is_passed_over(
    text: str, nameservers: tuple[str, ...], search: tuple[str, ...]
) -> None:
    assert parse(text) == ResolvConf(nameservers, search)


def test_what_is_taken_is_bounded() -> None:
    assert len(parse("search " + " ".join(f"d{n}" for n in range(2 * MAX_SEARCH))).search) == MAX_SEARCH
    assert parse("#" * MAX_BYTES + "\nnameserver 10.0.0.1") == ResolvConf()


class Machine:
    """A /proc, /run/netns and /etc/netns of the test's own; namespaces are files."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.proc, self.named, self.files = (directory / name for name in ("proc", "named", "netns"))
        for each in (self.proc, self.named, self.files):
            each.mkdir()
        for name in ("pod", "other", "mounts-host"):
            (directory / name).touch()
        for pid in ("1", "self"):
            self.process(pid, "other", "mounts-host", "nameserver 192.0.2.1\n")
        monkeypatch.setattr(resolv_conf, "PROC", self.proc)
        monkeypatch.setattr(resolv_conf, "NAMED", self.named)
        monkeypatch.setattr(resolv_conf, "NETNS_FILES", self.files)
        monkeypatch.setattr(
            resolv_conf,
            "processes_in",
            lambda key, _ends: (pid for pid in (7, 8, 9) if self.netns_of(pid) == key),
        )

    def process(self, pid: int | str, netns: str, mounts: str = "mounts-pod", text: str = KUBELETS) -> Path:
        """Add a process with a root of its own, and return its resolv.conf."""
        (self.directory / mounts).touch()
        home, root = self.proc / str(pid), self.directory / f"root-{pid}"
        (home / "ns").mkdir(parents=True)
        (home / "ns" / "net").symlink_to(self.directory / netns)
        (home / "ns" / "mnt").symlink_to(self.directory / mounts)
        (root / "etc").mkdir(parents=True)
        (home / "root").symlink_to(root)
        (root / "etc" / "resolv.conf").write_text(text)
        return root / "etc" / "resolv.conf"

    def netns_of(self, pid: int) -> tuple[int, int] | None:
        path = self.proc / str(pid) / "ns" / "net"
        return key_of(path) if path.exists() else None

    def name(self, name: str, netns: str) -> Path:
        """Name a namespace, and return where its file for `ip netns exec` belongs."""
        (self.named / name).symlink_to(self.directory / netns)
        (self.files / name).mkdir()
        return self.files / name / "resolv.conf"

    def read(self, pid: int | None = None, path: str = "/proc/7/ns/net") -> ResolvConf | None:
        netns: Any = type("Pod", (), {"key": key_of(self.directory / "pod"), "path": path})
        return read(netns, pid)


def key_of(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    before = open_files()
    yield Machine(tmp_path, monkeypatch)
    assert open_files() == before


def test_the_process_that_is_known_has_the_file(machine: Machine) -> None:
    machine.process(7, "pod", text="nameserver 10.0.0.7\n")
    machine.process(8, "pod")
    assert machine.read(8) == POD


@pytest.mark.parametrize("pid", [7, 99])
def test_a_process_that_moved_or_ended_is_not_believed(machine: Machine, pid: int) -> None:
    machine.process(7, "other", text=SECRET)
    assert machine.read(pid) is None
    machine.process(8, "pod")
    assert machine.read(pid) == POD


def test_a_namespace_with_a_name_has_files_by_it(machine: Machine) -> None:
    machine.name("blue", "pod").write_text(KUBELETS)
    machine.process(7, "pod", text="nameserver 10.0.0.7\n")
    assert machine.read(None, f"{machine.named}/blue") == POD


def test_a_name_that_means_another_namespace_or_is_none_is_not_believed(machine: Machine) -> None:
    machine.name("blue", "other").write_text(SECRET)
    (machine.directory / "blue").symlink_to("pod")
    for path in (f"{machine.named}/blue", f"{machine.directory}/blue", f"{machine.named}/gone"):
        assert machine.read(None, path) is None


def test_without_a_file_by_name_a_process_inside_tells(machine: Machine) -> None:
    machine.name("blue", "pod")
    machine.process(7, "other", text=SECRET)
    machine.process(8, "pod")
    assert machine.read(None, f"{machine.named}/blue") == POD


def test_a_process_with_files_of_its_own_comes_before_one_from_the_host(
    machine: Machine,
) -> None:
    machine.process(7, "pod", "mounts-host", "nameserver 10.0.0.7\n")
    assert machine.read() == ResolvConf(("10.0.0.7",))
    machine.process(8, "pod")
    assert machine.read() == POD


def test_a_process_without_the_file_is_passed_over(machine: Machine) -> None:
    machine.process(7, "pod").unlink()
    machine.process(8, "pod")
    assert machine.read() == POD
    assert machine.read(7) == POD


@pytest.mark.parametrize("target", ["{outside}", "../../../../../../../../..{outside}"])
def test_no_link_leads_out_of_the_pods_root(machine: Machine, target: str) -> None:
    outside = machine.directory / "outside"
    outside.mkdir()
    (outside / "resolv.conf").write_text(SECRET)
    file = machine.process(7, "pod")
    file.unlink()
    file.symlink_to(f"{target.format(outside=outside)}/resolv.conf")
    assert machine.read(7) is None
    file.unlink()
    file.parent.rmdir()
    file.parent.symlink_to(target.format(outside=outside))
    assert machine.read(7) is None


@pytest.mark.parametrize("target", ["/run/stub.conf", "../run/stub.conf", "../../../run/stub.conf"])
def test_links_inside_of_the_root_are_followed_from_it(machine: Machine, target: str) -> None:
    file = machine.process(7, "pod")
    (file.parent.parent / "run").mkdir()
    file.rename(file.parent.parent / "run" / "stub.conf")
    file.symlink_to(target)
    assert machine.read(7) == POD


def test_a_fifo_and_a_directory_are_no_file(machine: Machine) -> None:
    file = machine.process(7, "pod")
    file.unlink()
    os.mkfifo(file)
    assert machine.read(7) is None
    file.unlink()
    file.mkdir()
    assert machine.read(7) is None


def test_a_file_is_read_up_to_its_bound_and_not_beyond(machine: Machine) -> None:
    file = machine.process(7, "pod")
    file.write_text(KUBELETS + "#" * (MAX_BYTES - len(KUBELETS)))
    assert machine.read(7) == POD
    file.write_text(KUBELETS + "#" * (MAX_BYTES - len(KUBELETS) + 1))
    assert machine.read(7) is None


def test_an_empty_file_says_nothing(machine: Machine) -> None:
    machine.process(7, "pod", text="")
    assert machine.read(7) == ResolvConf()


def test_bytes_that_are_no_text_are_passed_over(machine: Machine) -> None:
    machine.process(7, "pod").write_bytes(b"\xff\xfe\nnameserver 10.0.0.1\n")
    assert machine.read(7) == ResolvConf(("10.0.0.1",))


STAY = "import os, sys; os.chroot(sys.argv[1]); os.chdir('/'); print('in', flush=True); sys.stdin.read()"


@contextmanager
def jailed(name: str, root: Path) -> Iterator[int]:
    """Run a process in the namespace `name` that has `root` for its root, with a /proc mounted there."""
    script = f'mount -t proc proc "$2/proc" && exec {sys.executable} -Sc "$1" "$2"'
    command = ["ip", "netns", "exec", name, "sh", "-c", script, "sh", STAY, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        yield process.pid
        process.communicate(timeout=10)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory to be a process's root, with a resolv.conf as from kubelet."""
    for name in ("etc", "proc"):
        (tmp_path / "root" / name).mkdir(parents=True)
    (tmp_path / "root" / "etc" / "resolv.conf").write_text(KUBELETS)
    return tmp_path / "root"


@pytest.mark.root
def test_a_real_process_is_read_in_its_own_root(pod: Namespace, peer: Namespace, root: Path) -> None:
    with jailed(pod.name, root) as pid:
        assert read(pod.netns, pid) == read(pod.netns, None) == POD
        assert read(peer.netns, pid) is None


@pytest.mark.root
@pytest.mark.parametrize("way", ["", "../../../../../../../../../..", "/proc/self/root", "/proc/1/root"])
def test_a_real_process_cannot_lead_out_of_its_root(
    pod: Namespace, root: Path, tmp_path: Path, way: str
) -> None:
    (tmp_path / "secret").write_text(SECRET)
    with jailed(pod.name, root) as pid:
        (root / "etc" / "resolv.conf").unlink()
        (root / "etc" / "resolv.conf").symlink_to(f"{way}{tmp_path}/secret")
        assert read(pod.netns, pid) is None


@pytest.mark.root
def test_what_is_no_plain_file_of_a_real_process_is_not_read(pod: Namespace, root: Path) -> None:
    file = root / "etc" / "resolv.conf"
    with jailed(pod.name, root) as pid:
        file.unlink()
        os.mknod(file, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero
        assert read(pod.netns, pid) is None
        file.unlink()
        file.symlink_to("/proc/kmsg")  # of size 0, as all that procfs makes when it is read
        assert read(pod.netns, pid) == ResolvConf()


@pytest.mark.root
def test_a_real_process_has_the_files_that_ip_netns_gives_it(pod: Namespace) -> None:
    directory = resolv_conf.NETNS_FILES / pod.name
    assert read(pod.netns, None) is None
    directory.mkdir(parents=True)
    try:
        (directory / "resolv.conf").write_text(KUBELETS)
        assert read(pod.netns, None) == POD
        command = ["ip", "netns", "exec", pod.name, "sh", "-c", "echo in; exec cat"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as app:
            assert app.stdout is not None
            assert app.stdout.readline() == b"in\n"
            (directory / "resolv.conf").write_text(SECRET)
            assert read(pod.netns, app.pid) == parse(SECRET)  # a bind mount of the same file
            (directory / "resolv.conf").unlink()
            assert read(pod.netns, None) == parse(SECRET)
            app.communicate(timeout=10)
    finally:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()
        if not os.listdir(directory.parent):
            directory.parent.rmdir()


def test_the_daemon_s_own_servers_are_in_its_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolv_conf, "OWN", tmp_path / "resolv.conf")
    assert resolv_conf.own() is None
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.1\n")
    assert resolv_conf.own() == ResolvConf(("192.0.2.1",), ())
