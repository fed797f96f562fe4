"""What is wanted of a pod or node, beside what the kernel has: a finding for each check. It only decides.

A finding that is MISSING or DRIFTED has a repair, or a remedy for a person where zproxy has none of its own:
it NEVER changes what somebody else made.
"""

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Final, NamedTuple

from zproxy.model import ports
from zproxy.model.pod import PodOptions
from zproxy.node.drift_network import judge_network
from zproxy.node.facts import PodFacts
from zproxy.node.findings import Finding, Repair, Status
from zproxy.steering.inspect_pod import LinkFact, NodeFacts, ObjectFact, SteeringFacts

LISTENERS: Final = {
    ports.OUTBOUND: "outbound",
    ports.INBOUND_PLAINTEXT: "plaintext",
    ports.INBOUND_HBONE: "hbone",
    ports.DNS: "dns",
}
NAME_SIZE: Final = 63
"""Bytes of a pod's name that zp_pods has room for."""


class Wanted(NamedTuple):
    """A pod as it was enrolled."""

    pod: str
    cookie: int
    options: PodOptions
    programs: Mapping[str, int]
    """Program → the id that its links should run."""
    owned: frozenset[int] | None = None
    """Inodes of the daemon's sockets; None when nobody knows them."""


def judge(wanted: Wanted, facts: PodFacts) -> list[Finding]:
    """Return a verdict on everything of a pod, in the order in which a connection meets it."""
    return [
        _entry(wanted, facts),
        _addresses(facts),
        *(_link(wanted, link) for link in facts.steering.links),
        *_strays(facts.steering),
        _counters(facts.steering),
        *_listeners(wanted, facts),
        _datagrams(wanted, facts),
        _slot(facts),
        *judge_network(facts.network, dns=wanted.options.dns),
    ]


def judge_node(facts: NodeFacts) -> list[Finding]:
    """Return a verdict on what serves all pods."""
    programs = {each.name: each for each in facts.programs}
    return [
        _pins("maps", facts.maps),
        _pins("programs", facts.programs),
        *(_node_link(link, programs[link.program]) for link in facts.links),
    ]


def _pins(check: str, objects: Sequence[ObjectFact]) -> Finding:
    missing = [each.name for each in objects if not each.pinned]
    others = [each.name for each in objects if each.pinned and each.pinned != each.id]
    if others:
        remedy = "somebody exchanged pins: restart the daemon, which refuses or adopts them"
        return Finding(check, Status.DRIFTED, f"not ours: {', '.join(others)}", remedy)
    if missing:
        return Finding(check, Status.MISSING, f"not pinned: {', '.join(missing)}", "", Repair.HOOKS)
    return Finding(check, Status.OK, f"{len(objects)} pinned")


def _node_link(link: LinkFact, program: ObjectFact) -> Finding:
    finding = _verdict(f"hook {link.pin}", link, program.id, Repair.HOOKS)
    return (
        finding._replace(detail=f"{finding.detail}, tag {program.tag}") if finding.repair is None else finding
    )


def _link(wanted: Wanted, link: LinkFact) -> Finding:
    program = wanted.programs.get(link.program, 0)
    finding = _verdict(link.pin, link, program, Repair.STEERING)
    if finding.status is not Status.OK:
        return finding
    if program not in link.attached:
        detail = f"program {program} does not run at {link.where}"
        return finding._replace(status=Status.MISSING, detail=detail, repair=Repair.STEERING)
    before = link.attached[: link.attached.index(program)]
    if before:
        listed = ", ".join(map(str, before))
        remedy = "what they decide is never seen by zproxy; their owner can attach them after it"
        return finding._replace(
            status=Status.NOTE, detail=f"programs of others run before it: {listed}", remedy=remedy
        )
    return finding


def _verdict(check: str, link: LinkFact, program: int, repair: Repair) -> Finding:
    found = link.found
    if found is None:
        return Finding(check, Status.MISSING, f"no link is pinned for {link.where}", "", repair)
    if not found.target:
        return Finding(check, Status.MISSING, f"its link to {link.where} is dead", "", repair)
    if link.target and found.target != link.target:
        detail = f"its link hangs on {found.target} and not on {link.where} ({link.target})"
        return Finding(check, Status.DRIFTED, detail, "", repair)
    if found.prog_id != program:
        detail = f"its link runs program {found.prog_id} and not {program}"
        return Finding(check, Status.DRIFTED, detail, "", repair)
    return Finding(check, Status.OK, f"link {found.id} at {link.where}, program {found.prog_id}")


def _strays(steering: SteeringFacts) -> Iterator[Finding]:
    if steering.strays:
        detail = f"links at places that the pod no longer has: {', '.join(steering.strays)}"
        yield Finding("other links", Status.DRIFTED, detail, "", Repair.STEERING)


def _entry(wanted: Wanted, facts: PodFacts) -> Finding:
    entry = facts.steering.entry
    if entry is None:
        return Finding("pod entry", Status.MISSING, "not in zp_pods: nothing is steered", "", Repair.STEERING)
    have = facts.network.ips
    faults = []
    if entry.name != wanted.pod.encode()[:NAME_SIZE].decode(errors="replace"):
        faults.append(f"it is called {entry.name}")
    have_ports = (entry.outbound_port, entry.plaintext_port, entry.hbone_port, entry.dns_port)
    if have_ports != tuple(LISTENERS):
        faults.append("its ports are others")
    if entry.options != wanted.options:
        faults.append("its options are others than those chosen")
    for version, ip in ((4, entry.ip4), (6, entry.ip6)):
        ips = [each for each in have if _is_destination(each, version)]
        if have and ip not in ips and (ip or ips):
            faults.append(
                f"IPv{version} is sent to {ip or 'nothing'} and the pod has {', '.join(ips) or 'none'}"
            )
    if faults:
        return Finding("pod entry", Status.DRIFTED, "; ".join(faults), "", Repair.STEERING)
    detail = f"slot {entry.slot}, generation {entry.generation}"
    return Finding("pod entry", Status.OK, detail)


def _is_destination(ip: str, version: int) -> bool:
    address = ip_address(ip)
    return address.version == version and not address.is_link_local


def _addresses(facts: PodFacts) -> Finding:
    have, steering = facts.network.ips, facts.steering
    if not have:
        remedy = "give it the addresses back that the mesh says it has; until then nothing reaches it"
        return Finding("addresses", Status.MISSING, "the pod has no address", remedy)
    slot = steering.entry.slot if steering.entry else None
    missing = [ip for ip in have if steering.slots.get(ip) is None]
    others = [
        ip for ip, taken in steering.slots.items() if ip not in have or (slot is not None and taken != slot)
    ]
    if missing:
        detail = f"not in zp_podip, so what comes for it is not steered: {', '.join(missing)}"
        return Finding("addresses", Status.MISSING, detail, "", Repair.STEERING)
    if others:
        detail = f"zp_podip has other entries than it should for {', '.join(others)}"
        return Finding("addresses", Status.DRIFTED, detail, "", Repair.STEERING)
    return Finding("addresses", Status.OK, ", ".join(have))


def _counters(steering: SteeringFacts) -> Finding:
    if steering.has_counters:
        return Finding("counters", Status.OK, "in zp_podstat")
    return Finding("counters", Status.MISSING, "not in zp_podstat", "", Repair.STEERING)


def _listeners(wanted: Wanted, facts: PodFacts) -> Iterator[Finding]:
    for port, name in LISTENERS.items():
        check = f"listener {port}"
        found = [each for each in facts.network.listening if each.port == port]
        ours = [each for each in found if wanted.owned is None or each.inode in wanted.owned]
        if not ours:
            who = "somebody else listens there" if found else "nobody listens: connections are refused"
            yield Finding(check, Status.MISSING, f"{name}: {who}", "", Repair.LISTENERS)
        elif ours[0].waiting > ours[0].backlog:
            detail = f"{name}: {ours[0].waiting} connections wait to be accepted, no more are taken"
            yield Finding(check, Status.DRIFTED, detail, "is the daemon overloaded? see its log")
        else:
            yield Finding(check, Status.OK, f"{name}, {ours[0].waiting} of {ours[0].backlog} waiting")


def _datagrams(wanted: Wanted, facts: PodFacts) -> Finding:
    check, found = f"listener {ports.DNS}/udp", facts.network.datagrams
    if not any(wanted.owned is None or inode in wanted.owned for inode in found):
        who = "somebody else takes them" if found else "nobody takes queries"
        return Finding(check, Status.MISSING, f"{LISTENERS[ports.DNS]}: {who}", "", Repair.LISTENERS)
    return Finding(check, Status.OK, LISTENERS[ports.DNS])


def _slot(facts: PodFacts) -> Finding:
    check, listener = "listener slot", facts.steering.listener
    if facts.steering.entry is None or not listener:
        return Finding(
            check, Status.MISSING, "no socket: what comes in the clear is dropped", "", Repair.STEERING
        )
    cookies = [each.cookie for each in facts.network.listening if each.port == ports.INBOUND_PLAINTEXT]
    if listener not in cookies:
        detail = f"socket {listener} is no listener of the pod on {ports.INBOUND_PLAINTEXT}"
        return Finding(check, Status.DRIFTED, detail, "", Repair.STEERING)
    return Finding(check, Status.OK, f"socket {listener} in slot {facts.steering.entry.slot}")
