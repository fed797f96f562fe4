"""How probes are told from traffic on this machine: find kubelet's cgroup, or the node's addresses."""

import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple

from zproxy.errors import ConfigError, SteeringError
from zproxy.model.attach import ISTIO_PROBE_IPS, ProbeMode, ProbeWish
from zproxy.steering import netlink
from zproxy.steering.layout import MAPS
from zproxy.steering.pod_cgroups import membership, resolve
from zproxy.steering.processes import PROC

USUAL: Final = ("/system.slice/kubelet.service", "/kubelet.slice/kubelet.service", "/kubelet")
"""Where it is under systemd, in kind, and with the cgroupfs driver; for when its process is not visible."""
_GETADDR: Final = 22
_ADDRESS, _LOCAL = 1, 2
_SCOPE_LINK: Final = 253


class ProbeChoice(NamedTuple):
    """What is in force, and why."""

    mode: ProbeMode
    why: str
    cgroup: Path | None = None
    """Kubelet's, in mode `cgroup`."""
    node_ips: tuple[str, ...] = ()
    """In mode `node-ip`."""
    warning: str = ""
    """What the operator should know of the choice; empty mostly."""


def choose(wish: ProbeWish, root: Path, proc: Path = PROC) -> ProbeChoice:
    """Return what is to be in force on this machine; raise ConfigError for a wish that cannot be had."""
    if wish.node_ips and wish.mode is not ProbeMode.NODE_IP:
        raise ConfigError("--node-ip is for --probe-mode node-ip; in the other modes no address is exempt")
    if wish.kubelet_cgroup and wish.mode not in (None, ProbeMode.CGROUP):
        raise ConfigError("--kubelet-cgroup is for --probe-mode cgroup; leave it out, or choose that mode")
    if wish.mode is ProbeMode.NODE_IP:
        return _by_address(wish.node_ips)
    if wish.mode is ProbeMode.NONE:
        return ProbeChoice(ProbeMode.NONE, "it was asked for")
    if wish.kubelet_cgroup:
        return _given(wish.kubelet_cgroup, root, proc)
    found, why = find(root, proc)
    if found is not None:
        return ProbeChoice(ProbeMode.CGROUP, why, found)
    if wish.mode is ProbeMode.CGROUP:
        raise ConfigError(f"--probe-mode cgroup cannot be had: {why}; name it with --kubelet-cgroup PATH")
    return ProbeChoice(ProbeMode.NONE, why)


def find(root: Path, proc: Path = PROC) -> tuple[Path | None, str]:
    """Return kubelet's own cgroup, or None, and why."""
    for pid in _named("kubelet", proc):
        path = membership(pid, proc)
        if path in (None, "/"):
            return None, f"kubelet (process {pid}) is in no cgroup of its own"
        found = root / str(path).lstrip("/")
        if stranger := _stranger(found, proc):
            return (
                None,
                f"kubelet's cgroup {path} is shared with {stranger}, whose connections would pass too",
            )
        return found, f"kubelet (process {pid}) is in it"
    for usual in USUAL:
        found = root / usual.lstrip("/")
        if found.is_dir() and not _stranger(found, proc):
            return found, "it is where kubelet usually is"
    return None, "no kubelet runs here"


def host_addresses() -> tuple[str, ...]:
    """Return the addresses of the host's interfaces, but for those of lo and those of one link only.

    Raise SteeringError when the kernel does not tell.
    """
    try:
        answers = netlink.dump(netlink.ROUTE, _GETADDR, bytes(8))
    except OSError as error:
        raise SteeringError(f"cannot list the host's addresses: {os.strerror(error.errno or 0)}") from error
    found = []
    for answer in answers:
        family, _, _, scope, _ = struct.unpack_from("=BBBBI", answer)
        values = dict(netlink.attributes(answer, 8))
        raw = values.get(_LOCAL) or values.get(_ADDRESS)
        if raw and scope < _SCOPE_LINK and family in (socket.AF_INET, socket.AF_INET6):
            found.append(socket.inet_ntop(family, raw))
    return tuple(dict.fromkeys(found))


def _by_address(node_ips: tuple[str, ...]) -> ProbeChoice:
    """Istio's host rules, where there are any, give probes a source that counts as the node's."""
    for ip in node_ips:
        try:
            ip_address(ip)
        except ValueError:
            raise ConfigError(f"--node-ip {ip!r} is not an IP address") from None
    chosen = node_ips or host_addresses()
    why = "they were given" if node_ips else "they are the host's"
    room = MAPS["zp_nodeip"].max_entries - len(ISTIO_PROBE_IPS)
    if len(chosen) > room:  # kube-proxy in IPVS mode gives the host every service's address
        raise ConfigError(
            f"the node has {len(chosen)} addresses, and probe mode node-ip takes {room} at most; name those "
            "that probes come from with --node-ip"
        )
    warning = f"everything that comes from {', '.join(chosen)} reaches pods without the proxy, probes or not"
    return ProbeChoice(ProbeMode.NODE_IP, why, None, (*chosen, *ISTIO_PROBE_IPS), warning)


def _given(text: str, root: Path, proc: Path) -> ProbeChoice:
    try:
        path = resolve(text, root)
    except SteeringError as error:
        raise ConfigError(f"--kubelet-cgroup: {error}") from error
    if path == root:
        raise ConfigError("--kubelet-cgroup is the root of the hierarchy: every process would be a kubelet")
    if not (path / "cgroup.procs").exists():
        raise ConfigError(f"--kubelet-cgroup {text}: there is no such cgroup below {root}")
    stranger = _stranger(path, proc)
    warning = f"in kubelet's cgroup {path} is also {stranger}: what it dials passes too" if stranger else ""
    return ProbeChoice(ProbeMode.CGROUP, "it was given", path, (), warning)


def _stranger(cgroup: Path, proc: Path) -> str:
    """Name a process in a cgroup that is neither kubelet nor started by it; empty when there is none."""
    kubelets = set(_named("kubelet", proc))
    for directory, _, _ in os.walk(cgroup):
        try:
            pids = Path(directory, "cgroup.procs").read_text().split()
        except OSError:
            continue  # it has gone meanwhile
        for pid in pids:
            name, parent = _who(pid, proc)
            if name and name != "kubelet" and parent not in kubelets:
                return f"{name} (process {pid})"
    return ""


def _named(name: str, proc: Path) -> Iterator[int]:
    for pid in sorted(filter(str.isdigit, os.listdir(proc)), key=int):
        if _who(pid, proc)[0] == name:
            yield int(pid)


def _who(pid: str, proc: Path) -> tuple[str, int]:
    """Return a process's name and parent; an empty name when it has gone."""
    try:
        text = (proc / pid / "stat").read_text(errors="replace")
    except OSError:
        return "", 0
    head, _, tail = text.rpartition(")")
    return head.partition("(")[2], int(tail.split()[1])
