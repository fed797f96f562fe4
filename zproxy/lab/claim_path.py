"""Claims 2 and 3: HBONE runs from pod to pod, and its tunnels belong to identities, not to nodes or ports."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Final

from zproxy.lab import claim_log
from zproxy.lab.evidence.packets import TCP, Packet
from zproxy.lab.observation import Observation
from zproxy.lab.proof import Evidence, Proof
from zproxy.lab.rows import ConnectionRow, TunnelRow
from zproxy.lab.traffic import Answer
from zproxy.model import ports
from zproxy.model.addr import Endpoint

_SHOWN: Final = 8
"""Lines of one kind that are printed before the rest is only counted."""


def prove_endpoints(seen: Observation) -> Proof:
    """Judge claim 2 by the packets in both pods and by what the app says of its peer."""
    hbone = [p for p in seen.source.captured.on_wire() if p.protocol == TCP and _is_hbone(p)]
    arrivals = Counter(p.src.ip for p in seen.target.captured.on_loopback() if _reaches_app(seen, p))
    evidence = (
        Evidence(_tcpdump(seen, "tcp port 15008"), tuple(_talkers(hbone))),
        Evidence(_node_command(seen), tuple(_nodes(seen))),
        *_origins(seen),
        Evidence(
            f"nsenter --net={seen.target.row.netns_path} tcpdump -ni lo 'tcp[tcpflags] == tcp-syn'",
            tuple(f"{count} connections to the app from {ip}" for ip, count in arrivals.items())
            or ("(nothing)",),
        ),
    )
    against = [*_wrong_endpoints(seen, hbone), *_wrong_origins(seen)]
    if arrivals[seen.source.address] < len(seen.answers):
        found = ", ".join(arrivals) or "nobody"
        against.append(
            f"the app was dialled by {found}, not {len(seen.answers)} times by {seen.source.address}"
        )
    return Proof(
        2, "HBONE does not dial node IPs: pod IP to pod IP, also for the app", evidence, tuple(against)
    )


def prove_tunnels(seen: Observation) -> Proof:
    """Judge claim 3 by both daemons' records and logs, and by the TCP connections on the wire."""
    carried = [_outbound(seen, answer) for answer in seen.answers]
    known = [row for row in carried if row is not None]
    used = [row for row in seen.source.tunnels if row.id in {c.tunnel for c in known}]
    node = seen.source.row.node
    outer = sorted({p.src for p in seen.wire() if p.dst == _peer(seen)})
    evidence = (
        Evidence(
            f"zproxy --node {node} connections",
            tuple(_connection_line(row) for row in known) or ("(nothing)",),
        ),
        Evidence(f"zproxy --node {node} tunnels", tuple(_tunnel_lines(seen, used)) or ("(nothing)",)),
        Evidence(
            _tcpdump(seen, "tcp dst port 15008"),
            tuple(f"outer connection {end} > {_peer(seen)}" for end in outer) or ("(nothing)",),
        ),
        *claim_log.evidence(seen),
    )
    against = [
        *_not_carried(seen, carried),
        *_not_one_tunnel(seen, used, outer),
        *_shared_tunnels(seen),
        *claim_log.against(seen),
    ]
    return Proof(
        3,
        "no host-to-host pipe: one tunnel per pair of identities, app ports are streams",
        evidence,
        tuple(against),
    )


def _peer(seen: Observation) -> Endpoint:
    return Endpoint(seen.target.address, ports.INBOUND_HBONE)


def _is_hbone(packet: Packet) -> bool:
    return ports.INBOUND_HBONE in (packet.src.port, packet.dst.port)


def _reaches_app(seen: Observation, packet: Packet) -> bool:
    return packet.is_syn and packet.dst.ip == seen.target.address and packet.dst.port in seen.ports


def _tcpdump(seen: Observation, filter_text: str) -> str:
    return f"nsenter --net={seen.source.row.netns_path} tcpdump -ni eth0 '{filter_text}'"


def _talkers(packets: list[Packet]) -> Iterator[str]:
    count, size = Counter[str](), Counter[str]()
    for packet in packets:
        count[packet.endpoints] += 1
        size[packet.endpoints] += len(packet.payload)
    for ends, number in count.most_common(_SHOWN):
        yield f"{ends}: {number} packets, {size[ends]} bytes"
    if len(count) > _SHOWN:
        yield f"and {len(count) - _SHOWN} more pairs of endpoints"
    if not count:
        yield "(nothing)"


def _node_command(seen: Observation) -> str:
    return "; ".join(f"nsenter -t {pod.daemon.pid} -n ip -br addr" for pod in seen.pods())


def _nodes(seen: Observation) -> Iterator[str]:
    for pod in seen.pods():
        hits = sum(bool({p.src.ip, p.dst.ip} & set(pod.node_addresses)) for p in _hbone(seen))
        yield f"{pod.row.node}: {' '.join(pod.node_addresses)}; in {hits} of the packets above"


def _hbone(seen: Observation) -> list[Packet]:
    return [p for p in seen.source.captured.on_wire() if p.protocol == TCP and _is_hbone(p)]


def origin_of(answer: Answer) -> str:
    """Return the peer address that the app says it saw; empty when the app is not one that says so."""
    try:
        found = json.loads(answer.body)["origin"]
        return Endpoint.parse(found).ip
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


def _origins(seen: Observation) -> Iterator[Evidence]:
    for command in dict.fromkeys(answer.command for answer in seen.answers):
        yield Evidence(command, tuple(_origin_line(a) for a in seen.answers if a.command == command))


def _origin_line(answer: Answer) -> str:
    if answer.error:
        return f"failed: {answer.error}"
    origin = origin_of(answer)
    return f'{{"origin": "{json.loads(answer.body)["origin"]}", ...}}' if origin else f"HTTP {answer.status}"


def _wrong_endpoints(seen: Observation, hbone: list[Packet]) -> Iterator[str]:
    if not any(p.dst == _peer(seen) and p.src.ip == seen.source.address for p in hbone):
        yield f"no packet went from {seen.source.address} to {_peer(seen)}"
    for pod in seen.pods():
        hit = next((p for p in hbone if {p.src.ip, p.dst.ip} & set(pod.node_addresses)), None)
        if hit is not None:
            yield f"{hit.endpoints} has an address of {pod.row.node}"
    straight = sum(
        p.dst.port in seen.ports and p.protocol == TCP for p in seen.wire() if p.dst.ip == seen.target.address
    )
    if straight:
        yield f"{straight} packets went straight to the app's port, past the straw"
    if seen.source.captured.lost or seen.target.captured.lost:
        yield "the capture lost packets; run again while the pods are less busy"


def _wrong_origins(seen: Observation) -> Iterator[str]:
    for answer in seen.answers:
        origin = origin_of(answer)
        if answer.error:
            yield f"{answer.command} failed: {answer.error}"
        elif origin and origin != seen.source.address:
            yield f"the app saw {origin} as its peer, not {seen.source.address}"


def _outbound(seen: Observation, answer: Answer) -> ConnectionRow | None:
    rows = (
        row
        for row in seen.source.connections
        if row.direction == "outbound" and row.pod == seen.source.row.pod
    )
    return next((row for row in rows if row.src == str(answer.local)), None)


def _connection_line(row: ConnectionRow) -> str:
    return f"src.addr={row.src} dst.addr={row.dst} dst.hbone_addr={row.hbone_addr} tunnel={row.tunnel}"


def _tunnel_lines(seen: Observation, used: list[TunnelRow]) -> Iterator[str]:
    for row in used:
        new = row.streams_total - seen.source.streams_before.get(row.id, 0)
        yield f"tunnel {row.id}: {row.local} > {row.remote} {row.tls} {row.alpn}, {new} streams in this run"
        yield f"pool key {row.pool_key}"
        yield from (
            f"its other end in {seen.target.row.pod}: tunnel {end.id}" for end in _other_ends(seen, row)
        )


def _other_ends(seen: Observation, row: TunnelRow) -> list[TunnelRow]:
    ends = (row.remote, row.local)
    return [other for other in seen.target.tunnels if (other.local, other.remote) == ends]


def _not_carried(seen: Observation, carried: list[ConnectionRow | None]) -> Iterator[str]:
    for answer, row in zip(seen.answers, carried, strict=True):
        if row is None:
            yield f"{seen.source.row.node} has no record of a connection from {answer.local}"
        elif not row.tunnel:
            yield f"the connection from {row.src} to {row.dst} was not carried by a tunnel"
    asked = {str(Endpoint(seen.target.address, port)) for port in seen.ports}
    missing = asked - {row.hbone_addr for row in carried if row is not None}
    if missing:
        yield f"no stream had the authority {' or '.join(sorted(missing))}"
    if len(seen.ports) < 2:
        yield "only one app port was asked, so nothing is shown about sharing"


def _not_one_tunnel(seen: Observation, used: list[TunnelRow], outer: list[Endpoint]) -> Iterator[str]:
    if len(used) != 1:
        yield f"the connections used {len(used)} tunnels, not 1"
    if len(outer) != 1:
        yield f"the wire shows {len(outer)} outer connections to {_peer(seen)}, not 1"
    for row in used:
        if (row.src_identity, row.dst_identity) != (seen.source.row.identity, seen.target.row.identity):
            yield f"tunnel {row.id} joins {row.src_identity} to {row.dst_identity}: not these pods"
        if outer and row.local not in {str(end) for end in outer}:
            yield f"tunnel {row.id} says that it comes from {row.local}, where the wire shows nothing"
        if row.streams_total - seen.source.streams_before.get(row.id, 0) < len(seen.answers):
            yield f"tunnel {row.id} carried fewer new streams than there were connections"
        if not _other_ends(seen, row):
            yield f"{seen.target.row.node} does not know the other end of tunnel {row.id}"


def _shared_tunnels(seen: Observation) -> Iterator[str]:
    for pod in seen.pods():
        pairs: dict[int, set[tuple[str, str]]] = {}
        for row in pod.connections:
            if row.tunnel:
                pairs.setdefault(row.tunnel, set()).add((row.src_identity, row.dst_identity))
        for number, found in pairs.items():
            if len(found) > 1:
                yield f"tunnel {number} of {pod.row.node} carried {len(found)} pairs of identities"
