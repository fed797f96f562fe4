"""Claims 4 and 5: what is on the wire is TLS over TCP, not an overlay; and UDP is not carried."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from zproxy.lab.claim_place import listening, ports_of
from zproxy.lab.evidence.firewall import Rules
from zproxy.lab.evidence.packets import TCP, UDP, Packet
from zproxy.lab.evidence.tls import Flow, assemble, flows, records
from zproxy.lab.observation import Observation, PodEvidence
from zproxy.lab.proof import Evidence, Proof
from zproxy.model import ports

_NAMES: Final = {TCP: "TCP", UDP: "UDP", 1: "ICMP", 58: "ICMPv6"}
_NEEDLE: Final = 48
"""Bytes of an answer that are searched for; an answer of fewer than 16 could be met by chance."""


def prove_stream(seen: Observation) -> Proof:
    """Judge claim 4 by interfaces, rules, TLS records, and a search for the payload."""
    control = _in_clear(seen, seen.source.captured.on_loopback())
    found = _in_clear(seen, (*seen.source.captured.on_wire(), *seen.target.captured.on_wire()))
    evidence = (
        *(_links(pod) for pod in seen.pods()),
        *(_rules(pod) for pod in seen.pods()),
        Evidence(_tcpdump(seen, f"host {seen.target.address}"), tuple(_protocols(seen))),
        Evidence(_tcpdump(seen, "tcp port 15008", "-X"), tuple(_record_lines(seen)) or ("(nothing)",)),
        Evidence(
            f"{_tcpdump(seen, 'tcp', '-A')} | grep {seen.marker.decode()}   # and the app's answers",
            (
                f"on the wire of both pods: {found} times",
                f"on loopback in {seen.source.row.pod}, between app and straw: {control} times",
            ),
        ),
    )
    against = [
        *(sentence for pod in seen.pods() for sentence in _overlays(pod)),
        *_wrong_packets(seen),
        *_wrong_records(seen),
    ]
    if found:
        against.append(f"{found} pieces of the payload crossed the wire in the clear")
    if not control:
        against.append("the payload was not even seen on loopback, so the search shows nothing")
    return Proof(
        4, "not a network overlay: mTLS records in TCP, no tunnel device, no rule", evidence, tuple(against)
    )


def prove_datagrams(seen: Observation) -> Proof:
    """Judge claim 5 by the sockets in both pods and by what became of a datagram."""
    sent = seen.datagram
    leaving = [p for p in seen.wire() if p.protocol == UDP and (p.src, p.dst) == (sent.src, sent.dst)]
    is_clear = any(p.payload == sent.payload for p in leaving)
    fate = "and arrived" if sent.arrived else "and did not arrive (a NetworkPolicy may drop it)"
    shown = tuple(
        f"{p.endpoints}: UDP, length {len(p.payload)}: {p.payload.decode(errors='replace')}" for p in leaving
    )
    evidence = (
        *(_tcp_ports(pod) for pod in seen.pods()),
        *(_udp_sockets(pod) for pod in seen.pods()),
        Evidence(
            _tcpdump(seen, "udp", "-A"), (*shown, f"it left in the clear {fate}" if is_clear else "(nothing)")
        ),
    )
    against = [sentence for pod in seen.pods() for sentence in _daemon_udp(pod)]
    if not is_clear:
        against.append(f"the datagram from {sent.src} to {sent.dst} was not seen leaving as it was sent")
    title = "HBONE does not carry UDP: the mesh ports are TCP, other UDP leaves in the clear"
    return Proof(5, title, evidence, tuple(against))


def _tcpdump(seen: Observation, filter_text: str, option: str = "") -> str:
    options = f"{option} -ni eth0".lstrip()
    return f"nsenter --net={seen.source.row.netns_path} tcpdump {options} '{filter_text}'"


def _links(pod: PodEvidence) -> Evidence:
    lines = tuple(f"{link.name}  {'UP' if link.is_up else 'DOWN'}  {link.kind}" for link in pod.links)
    return Evidence(f"nsenter --net={pod.row.netns_path} ip -d link   # {pod.row.pod}", lines)


def _rules(pod: PodEvidence) -> Evidence:
    rules = pod.rules
    count = f"{rules.nft} nftables rules, {rules.iptables} legacy iptables rules"
    command = f"nsenter --net={pod.row.netns_path} nft list ruleset; ... iptables-legacy-save"
    return Evidence(command, (f"{count}; {rules.redirecting} of them redirect traffic",))


def _protocols(seen: Observation) -> Iterator[str]:
    count = Counter(p.encapsulation or _NAMES.get(p.protocol, f"protocol {p.protocol}") for p in seen.wire())
    yield from (f"{number} packets of {name} directly in IP" for name, number in count.items())


def _hbone_flows(seen: Observation) -> dict[Flow, list[Packet]]:
    return flows(p for p in seen.wire() if ports.INBOUND_HBONE in (p.src.port, p.dst.port))


def _record_lines(seen: Observation) -> Iterator[str]:
    for flow, packets in _hbone_flows(seen).items():
        count: Counter[str] = Counter()
        stray = 0
        for run in assemble(packets):
            found = records(run)
            count += found.kinds
            stray += found.stray
        text = ", ".join(f"{number} {kind}" for kind, number in sorted(count.items())) or "none"
        yield f"{flow.src} > {flow.dst}: TLS records: {text}; bytes outside of records: {stray}"


def _in_clear(seen: Observation, packets: Iterable[Packet]) -> int:
    """Count where the request's marker or an answer's beginning can be read."""
    bodies = (answer.body[:_NEEDLE] for answer in seen.answers)
    needles = {seen.marker, *(body for body in bodies if len(body) >= 16)}
    every = tuple(packets)
    texts = [run for group in flows(every).values() for run in assemble(group)]
    texts += [p.payload for p in every if p.protocol != TCP]
    return sum(text.count(needle) for text in texts for needle in needles)


def _overlays(pod: PodEvidence) -> Iterator[str]:
    for link in pod.links:
        if link.is_overlay:
            yield f"{pod.row.pod} has the tunnel device {link.name} ({link.kind})"
    yield from _redirects(pod.row.pod, pod.rules)


def _redirects(name: str, rules: Rules) -> Iterator[str]:
    if rules.redirecting:
        yield f"{rules.redirecting} packet-filter rules redirect traffic inside {name}"
    if rules.unknown:
        yield f"the rules inside {name} could not be counted: {rules.unknown}"


def _wrong_packets(seen: Observation) -> Iterator[str]:
    for name in sorted({p.encapsulation for p in seen.wire() if p.encapsulation}):
        yield f"packets between the pods are {name}"
    for pod in seen.pods():
        if pod.captured.lost:
            yield f"the capture in {pod.row.pod} lost {pod.captured.lost} packets; run again"


def _wrong_records(seen: Observation) -> Iterator[str]:
    directions = _hbone_flows(seen)
    if len(directions) < 2:
        yield "there was no HBONE connection in both directions to look at"
    for flow, packets in directions.items():
        found = [records(run) for run in assemble(packets)]
        if not sum(item.kinds["application_data"] for item in found):
            yield f"no TLS application data went from {flow.src} to {flow.dst}"
        stray = sum(item.stray for item in found)
        if stray:
            yield f"{stray} bytes from {flow.src} to {flow.dst} are outside of TLS records"


def _tcp_ports(pod: PodEvidence) -> Evidence:
    lines = tuple(listening(entry) for entry in pod.listeners if entry.local.port in ports_of(pod))
    return Evidence(
        f"nsenter --net={pod.row.netns_path} ss -Hlntp   # {pod.row.pod}, TCP", lines or ("(nothing)",)
    )


def _udp_sockets(pod: PodEvidence) -> Evidence:
    lines = tuple(f"{e.local}  users:({','.join(str(owner) for owner in e.owners)})" for e in pod.udp)
    return Evidence(
        f"nsenter --net={pod.row.netns_path} ss -Hlnup   # {pod.row.pod}, UDP", lines or ("(nothing)",)
    )


def _daemon_udp(pod: PodEvidence) -> Iterator[str]:
    tcp = {entry.local.port for entry in pod.listeners}
    for port in ports_of(pod):
        if port not in tcp:
            yield f"no TCP listener is on {port} inside {pod.row.pod}"
    if pod.row.dns:
        yield from _wrong_dns(pod)
    for entry in pod.udp:
        if pod.daemon.pid in {owner.pid for owner in entry.owners} and entry.local.port != ports.DNS:
            yield f"the daemon (pid {pod.daemon.pid}) has the UDP socket {entry.local} inside {pod.row.pod}"


def _wrong_dns(pod: PodEvidence) -> Iterator[str]:
    owners = {owner.pid for e in pod.udp if e.local.port == ports.DNS for owner in e.owners}
    if not owners:
        yield f"no UDP socket is on {ports.DNS} inside {pod.row.pod}, where its DNS goes"
    elif owners != {pod.daemon.pid}:
        yield f"UDP {ports.DNS} inside {pod.row.pod} belongs to pids {sorted(owners)}, not to the daemon"
