"""How probes are to be known: what was asked for, what the machine has, and what is said of it."""

import subprocess
from pathlib import Path

import pytest

from zproxy.errors import ConfigError
from zproxy.model.attach import ISTIO_PROBE_IPS, ProbeMode, ProbeWish
from zproxy.steering import kubelet
from zproxy.steering.kubelet import ProbeChoice, choose, find

SERVICE = "/system.slice/kubelet.service"


class Machine:
    """A /proc and a cgroup hierarchy with the processes that a test puts there."""

    def __init__(self, directory: Path) -> None:
        self.proc, self.root = directory / "proc", directory / "cgroup"
        self.proc.mkdir()
        self.cgroup("/")

    def cgroup(self, path: str) -> Path:
        directory = self.root / path.lstrip("/")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cgroup.procs").touch()
        return directory

    def process(self, pid: int, name: str, cgroup: str, parent: int = 1) -> None:
        home = self.proc / str(pid)
        home.mkdir()
        (home / "stat").write_text(f"{pid} ({name}) S {parent} 1 1 0\n")
        (home / "cgroup").write_text(f"0::{cgroup}\n")
        with (self.cgroup(cgroup) / "cgroup.procs").open("a") as procs:
            procs.write(f"{pid}\n")

    def choose(self, wish: ProbeWish) -> ProbeChoice:
        return choose(wish, self.root, self.proc)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_kubelet_is_found_by_its_process(machine: Machine) -> None:
    machine.process(50, "kubelet", "/kubelet.slice/kubelet.service")
    machine.process(51, "mount", "/kubelet.slice/kubelet.service", parent=50)
    chosen = machine.choose(ProbeWish())
    assert chosen.mode is ProbeMode.CGROUP
    assert chosen.cgroup == machine.root / "kubelet.slice" / "kubelet.service"
    assert chosen.why == "kubelet (process 50) is in it"


def test_kubelet_is_found_where_it_usually_is(machine: Machine) -> None:
    path = machine.cgroup(SERVICE)
    assert find(machine.root, machine.proc) == (path, "it is where kubelet usually is")


@pytest.mark.parametrize(
    ("processes", "why"),
    [
        ([], "no kubelet runs here"),
        ([(50, "kubelet", "/")], "in no cgroup of its own"),
        ([(50, "kubelet", "/a"), (51, "containerd", "/a")], "shared with containerd (process 51)"),
        ([(50, "kubelet", "/a"), (51, "sshd", "/a/b")], "shared with sshd (process 51)"),
        ([(50, "k3s-server", SERVICE)], "no kubelet runs here"),
    ],
)
def test_without_a_cgroup_of_its_own_nothing_is_exempt(
    machine: Machine, processes: list[tuple[int, str, str]], why: str
) -> None:
    for process in processes:
        machine.process(*process)
    chosen = machine.choose(ProbeWish())
    assert (chosen.mode, chosen.cgroup, chosen.node_ips) == (ProbeMode.NONE, None, ())
    assert why in chosen.why
    with pytest.raises(ConfigError, match=r"--probe-mode cgroup cannot be had: .* --kubelet-cgroup"):
        machine.choose(ProbeWish(ProbeMode.CGROUP))


@pytest.mark.parametrize("mode", [None, ProbeMode.CGROUP])
def test_a_given_cgroup_is_taken_and_who_shares_it_told(machine: Machine, mode: ProbeMode | None) -> None:
    machine.process(60, "k3s-server", "/system.slice/k3s.service")
    chosen = machine.choose(ProbeWish(mode, "/system.slice/k3s.service"))
    assert chosen.cgroup == machine.root / "system.slice" / "k3s.service"
    assert "k3s-server (process 60): what it dials passes too" in chosen.warning


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        (ProbeWish(kubelet_cgroup="/"), "every process would be a kubelet"),
        (ProbeWish(kubelet_cgroup="/gone"), "no such cgroup"),
        (ProbeWish(kubelet_cgroup="../x"), "is not below"),
        (ProbeWish(ProbeMode.NONE, "/a"), "--kubelet-cgroup is for --probe-mode cgroup"),
        (ProbeWish(None, None, ("10.0.0.1",)), "--node-ip is for --probe-mode node-ip"),
        (ProbeWish(ProbeMode.NODE_IP, None, ("node-a",)), "'node-a' is not an IP address"),
    ],
)
def test_a_wish_that_cannot_be_had_is_a_sentence(machine: Machine, wish: ProbeWish, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        machine.choose(wish)


def test_given_addresses_come_with_istios(machine: Machine) -> None:
    chosen = machine.choose(ProbeWish(ProbeMode.NODE_IP, node_ips=("10.0.0.1",)))
    assert chosen.node_ips == ("10.0.0.1", *ISTIO_PROBE_IPS)
    assert "everything that comes from 10.0.0.1 reaches pods without the proxy" in chosen.warning


def test_without_given_addresses_they_are_the_hosts(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubelet, "host_addresses", lambda: ("192.0.2.7",))
    assert machine.choose(ProbeWish(ProbeMode.NODE_IP)).node_ips[0] == "192.0.2.7"


def test_more_addresses_than_the_map_takes_are_refused(machine: Machine) -> None:
    many = tuple(f"10.0.{number // 250}.{number % 250}" for number in range(1023))
    with pytest.raises(ConfigError, match="1023 addresses, and probe mode node-ip takes 1022 at most"):
        machine.choose(ProbeWish(ProbeMode.NODE_IP, node_ips=many))
    assert len(machine.choose(ProbeWish(ProbeMode.NODE_IP, node_ips=many[1:])).node_ips) == 1024


def test_none_is_none(machine: Machine) -> None:
    machine.process(50, "kubelet", SERVICE)
    assert machine.choose(ProbeWish(ProbeMode.NONE)) == ProbeChoice(ProbeMode.NONE, "it was asked for")


def test_the_hosts_addresses_are_those_that_ip_shows() -> None:
    command = ["ip", "-o", "addr", "show", "scope", "global"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    expected = {line.split()[3].partition("/")[0] for line in listed.splitlines()}
    assert set(kubelet.host_addresses()) == expected
