"""Claim 1: the proxy is not in the host's network namespace; its capture sockets stand inside the pod."""

from collections.abc import Iterator
from typing import Final

from zproxy.lab.evidence.sockets import SocketInfo
from zproxy.lab.observation import Observation, PodEvidence
from zproxy.lab.proof import Evidence, Proof
from zproxy.model import ports

MESH_PORTS: Final = (ports.OUTBOUND, ports.INBOUND_PLAINTEXT, ports.INBOUND_HBONE)
"""Of every straw; DNS joins them where a pod's DNS is captured."""
_WILDCARDS: Final = ("::", "0.0.0.0")  # noqa: S104  # compared with, never bound


def prove(seen: Observation) -> Proof:
    """Judge where the daemons' sockets are, and where the daemons are."""
    evidence: list[Evidence] = []
    against: list[str] = []
    for pod in seen.pods():
        evidence += [_sockets(pod), _namespaces(seen, pod), _capabilities(pod), _steering(pod)]
        against += [*_wrong_sockets(pod), *_wrong_place(seen, pod)]
    title = "the proxy does not run in the host's network namespace: its sockets stand inside each pod's"
    return Proof(1, title, tuple(evidence), tuple(dict.fromkeys(against)))


def listening(entry: SocketInfo) -> str:
    """Return a listener as `ss -lntp` shows it."""
    ip = "*" if entry.local.ip in _WILDCARDS else entry.local.ip
    return f"LISTEN {ip}:{entry.local.port}  users:({','.join(str(owner) for owner in entry.owners)})"


def ports_of(pod: PodEvidence) -> tuple[int, ...]:
    """Return the TCP ports at which the pod's straw must listen."""
    return (*MESH_PORTS, ports.DNS) if pod.row.dns else MESH_PORTS


def _sockets(pod: PodEvidence) -> Evidence:
    lines = tuple(listening(entry) for entry in pod.listeners if entry.local.port in ports_of(pod))
    return Evidence(
        f"nsenter --net={pod.row.netns_path} ss -Hlntp   # {pod.row.pod}", lines or ("(nothing)",)
    )


def _namespaces(seen: Observation, pod: PodEvidence) -> Evidence:
    lines = [f"{pod.netns[1]}  {pod.row.pod}", f"{pod.daemon.netns[1]}  {_daemon(pod)}"]
    command = f"stat -Lc %i {pod.row.netns_path} /proc/{pod.daemon.pid}/ns/net"
    if seen.host is not None:
        command += f" /proc/{seen.host.pid}/ns/net"
        lines.append(f"{seen.host.netns[1]}  the host ({seen.host.command}, pid {seen.host.pid})")
    return Evidence(command, tuple(lines))


def _capabilities(pod: PodEvidence) -> Evidence:
    command = f"capsh --decode=$(awk '/CapEff/{{print $2}}' /proc/{pod.daemon.pid}/status)"
    return Evidence(command, (_wrapped(pod.daemon.capabilities) or "(none)",))


def _steering(pod: PodEvidence) -> Evidence:
    return Evidence(
        f"zproxy --node {pod.row.node} bpf map dump zp_pods   # cookie {pod.row.cookie}",
        pod.steering or ("(nothing)",),
    )


def _wrong_sockets(pod: PodEvidence) -> Iterator[str]:
    for port in ports_of(pod):
        owners = {owner.pid for entry in pod.listeners if entry.local.port == port for owner in entry.owners}
        if not any(entry.local.port == port for entry in pod.listeners):
            yield f"nothing listens on {port} inside {pod.row.pod}"
        elif owners != {pod.daemon.pid}:
            yield f"{port} inside {pod.row.pod} belongs to pids {sorted(owners)}, not to {_daemon(pod)}"
    for entry in pod.outside:
        if entry.local.port in ports_of(pod) and pod.daemon.pid in {owner.pid for owner in entry.owners}:
            yield f"{_daemon(pod)} listens on {entry.local.port} outside any pod as well"
    if not pod.steering:
        yield f"no eBPF map knows {pod.row.pod}: nothing would bring its traffic to these sockets"


def _wrong_place(seen: Observation, pod: PodEvidence) -> Iterator[str]:
    if pod.daemon.netns == pod.netns:
        yield f"{_daemon(pod)} runs inside the namespace of {pod.row.pod}, as a sidecar would"
    if seen.host is None:
        yield "the host's namespace cannot be read from /proc; run this as root on the host"
    elif pod.daemon.netns == seen.host.netns:
        yield f"{_daemon(pod)} runs in the host's namespace; start it in one of its own"
    elif pod.netns == seen.host.netns:
        yield f"{pod.row.pod} is in the host's namespace, and so are its sockets"


def _daemon(pod: PodEvidence) -> str:
    return f"the daemon of {pod.row.node} ({pod.daemon.command}, pid {pod.daemon.pid})"


def _wrapped(capabilities: tuple[str, ...]) -> str:
    """Name the ones the straw lives on; all 41 of a root daemon would say nothing."""
    needed = ("cap_net_admin", "cap_net_raw", "cap_sys_admin", "cap_bpf")
    shown = [name for name in needed if name in capabilities]
    rest = len(capabilities) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
