"""Measures one run of `zproxy prove`: capture, traffic, then sockets, processes, rules and records."""

import os
import secrets
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any, Final, NamedTuple, Protocol

from zproxy.errors import EnrollError, ZproxyError
from zproxy.lab import pod_files
from zproxy.lab.evidence import firewall, links, processes, sockets
from zproxy.lab.evidence.capture import Capture
from zproxy.lab.evidence.steering import pod_entry
from zproxy.lab.logs import AccessLine, Tail, log_of
from zproxy.lab.observation import Observation, PodEvidence
from zproxy.lab.rows import ConnectionRow, PodRow, ServiceRow, TunnelRow
from zproxy.lab.traffic import Answer, curl, curl_by_name, datagram, temporary_app
from zproxy.model.addr import Endpoint
from zproxy.model.ports import ILLEGAL
from zproxy.net.netns import Netns

REPEATS: Final = 4
"""Requests to the first port; the others get one each."""
_RECORDS_S: Final = 3.0
"""How long the daemons may take to show connections that have ended."""


class Daemon(Protocol):
    """What is asked of a node's daemon; zproxy.node.client.Client is one."""

    def call(self, command: str, **arguments: Any) -> Any:
        """Run a command and return its result."""


class Side(NamedTuple):
    """One pod, opened: its row, its namespace, its daemon, what the daemon knew before the run."""

    row: PodRow
    netns: Netns
    daemon: Daemon
    known: frozenset[int]
    """Ids of connections that are older than this run."""
    streams: dict[int, int]
    log: Tail | None
    """The daemon's log from the beginning of the run on; None when it is no file."""


def find(pod: str, daemons: Mapping[str, Daemon]) -> tuple[PodRow, Daemon]:
    """Return the row of an enrolled pod and the daemon that has it; raise EnrollError when none has."""
    for daemon in daemons.values():
        for row in daemon.call("pods"):
            if row["pod"] == pod and row.get("state") == "refused":
                raise EnrollError(f"{pod} is refused on {row['node']}: {row['reason']}")
            if row["pod"] == pod:
                return PodRow.of(row), daemon
    if not daemons:
        raise EnrollError(
            f"no zproxy daemon runs on this machine, so {pod} is not enrolled; see `zproxy run`"
        )
    raise EnrollError(f"{pod} is not enrolled on {' or '.join(daemons)}; enrol it with `zproxy enroll {pod}`")


def observe(source: str, target: str, ports: tuple[int, ...], daemons: Mapping[str, Daemon]) -> Observation:
    """Make traffic from pod `source` to pod `target` and measure everything the claims are about.

    With one port, a second one that is free in the target gets an app for the time being.
    """
    if source == target:
        raise ZproxyError(f"{source} cannot prove anything with itself; name two pods")
    with ExitStack() as stack:
        here, there = (_open(*find(pod, daemons), stack) for pod in (source, target))
        addresses = _common_family(here.row, there.row)
        ports, missing = _choose_ports(there.netns, ports)
        stack.enter_context(temporary_app(there.netns, missing))
        captures = [stack.enter_context(Capture(side.netns)) for side in (here, there)]
        marker = f"marker-{secrets.token_hex(12)}"
        answers = _ask(here.netns, addresses[1], ports, marker, captures)
        service = ServiceRow.before(target, here.daemon.call("services"), here.daemon.call("workloads"))
        called = _call(here, service, ":" in addresses[1], ports, marker, captures)
        udp = datagram(here.netns, there.netns, *addresses, f"datagram-{secrets.token_hex(12)}".encode())
        connections = _wait_for_records(here, there, (*answers, *called))
        host = processes.in_host_namespace()
        seen = [
            _evidence(side, address, capture, rows, host)
            for side, address, capture, rows in zip(
                (here, there), addresses, captures, connections, strict=True
            )
        ]
        return Observation(seen[0], seen[1], host, ports, answers, marker.encode(), udp, service, called)


def _open(row: PodRow, daemon: Daemon, stack: ExitStack) -> Side:
    try:
        netns = stack.enter_context(Netns.open(row.netns_path))
    except OSError as error:
        raise ZproxyError(
            f"the namespace of {row.pod} cannot be opened at {row.netns_path}: {error.strerror}"
        ) from error
    if netns.key != row.netns:
        raise ZproxyError(
            f"{row.netns_path} is not the namespace that {row.pod} was enrolled with; enrol it again"
        )
    known = frozenset(entry["id"] for entry in daemon.call("connections"))
    streams = {entry["id"]: entry["streams_total"] for entry in daemon.call("tunnels")}
    path = log_of(row.pid)
    return Side(row, netns, daemon, known, streams, Tail(path) if path is not None else None)


def _common_family(here: PodRow, there: PodRow) -> tuple[str, str]:
    for is_v6 in (False, True):
        found = [next((ip for ip in row.ips if (":" in ip) == is_v6), None) for row in (here, there)]
        if found[0] is not None and found[1] is not None:
            return found[0], found[1]
    raise ZproxyError(f"{here.pod} and {there.pod} have no address of the same family")


def _choose_ports(target: Netns, ports: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ports to ask and those of them that need an app."""
    taken = {entry.local.port for entry in sockets.tcp_listeners(target)}
    wanted = ports
    if len(ports) == 1:
        free = (port for port in range(ports[0] + 1, 65536) if port not in taken | ILLEGAL)
        wanted = (ports[0], next(free))
    return wanted, tuple(port for port in wanted if port not in taken)


def _ask(
    source: Netns, to: str, ports: tuple[int, ...], marker: str, captures: Iterable[Capture]
) -> tuple[Answer, ...]:
    answers = []
    for port in (ports[0],) * (REPEATS - 1) + ports:
        answers.append(curl(source, Endpoint(to, port), f"/get?{marker}"))
        for capture in captures:
            capture.drain()
    return tuple(answers)


def _call(
    source: Side,
    service: ServiceRow | None,
    is_v6: bool,
    ports: tuple[int, ...],
    marker: str,
    captures: Iterable[Capture],
) -> tuple[Answer, ...]:
    """Ask the service by its address, and by its names where the pod can look them up."""
    if service is None:
        return ()
    port = next((port for port, target in service.ports if target in ports), None)
    vip = next((vip for vip in service.vips if (":" in vip) == is_v6), None)
    if port is None or vip is None:
        return ()
    path = f"/get?{marker}"
    answers = [curl(source.netns, Endpoint(vip, port), path)]
    if source.row.dns and any(file.name == "resolv.conf" for file in pod_files.of(source.netns.path)):
        names = service.names(source.row.pod.partition("/")[0])
        answers += [curl_by_name(source.netns, name, port, path) for name in names]
    for capture in captures:
        capture.drain()
    return tuple(answers)


def _wait_for_records(
    here: Side, there: Side, answers: tuple[Answer, ...]
) -> tuple[tuple[ConnectionRow, ...], tuple[ConnectionRow, ...]]:
    """Wait until the source's daemon shows every connection, and both logs a line for each.

    What never comes, the claims will miss.
    """
    wanted = {str(answer.local) for answer in answers}
    deadline = time.monotonic() + _RECORDS_S
    while True:
        rows = _new_connections(here)
        is_complete = wanted <= {row.src for row in rows} and _are_logged(here, there, wanted)
        if is_complete or time.monotonic() > deadline:
            return rows, _new_connections(there)
        time.sleep(0.02)


def _are_logged(here: Side, there: Side, wanted: set[str]) -> bool:
    """Whether the logs have what they should; one that is no file has nothing to wait for."""
    missing = wanted - {line.get("src.addr") for line in _access(here)}
    inbound = [line for line in _access(there) if line.get("direction") == "inbound"]
    return (here.log is None or not missing) and (there.log is None or len(inbound) >= len(wanted))


def _access(side: Side) -> tuple[AccessLine, ...]:
    """Return the lines about connections that began or ended in the pod."""
    lines = (AccessLine.of(text) for text in (side.log.lines() if side.log else ()))
    return tuple(line for line in lines if line is not None and _pod_of(line) == side.row.pod)


def _pod_of(line: AccessLine) -> str:
    end = "src" if line.get("direction") == "outbound" else "dst"
    return f"{line.get(f'{end}.namespace')}/{line.get(f'{end}.workload')}"


def _new_connections(side: Side) -> tuple[ConnectionRow, ...]:
    rows = (ConnectionRow.of(row) for row in side.daemon.call("connections") if row["id"] not in side.known)
    return tuple(row for row in rows if row.pod == side.row.pod)


def _evidence(
    side: Side,
    address: str,
    capture: Capture,
    connections: tuple[ConnectionRow, ...],
    host: processes.ProcessInfo | None,
) -> PodEvidence:
    daemon = processes.inspect(side.row.pid)
    with Netns.of_pid(daemon.pid) as home:
        outside = sockets.tcp_listeners(home)
        node_addresses = links.addresses(home)
    if host is not None and host.netns != daemon.netns:
        with Netns.of_pid(host.pid) as outermost:
            outside += sockets.tcp_listeners(outermost)
    tunnels = (TunnelRow.of(row) for row in side.daemon.call("tunnels"))
    return PodEvidence(
        row=side.row,
        address=address,
        netns=side.netns.key,
        daemon=daemon,
        node_addresses=node_addresses,
        listeners=sockets.tcp_listeners(side.netns),
        udp=sockets.udp_sockets(side.netns),
        outside=outside,
        links=links.links(side.netns),
        rules=firewall.rules(side.netns),
        steering=pod_entry(side.row.node, side.row.cookie),
        captured=capture.result(),
        connections=connections,
        tunnels=tuple(row for row in tunnels if row.pod == side.row.pod),
        streams_before=side.streams,
        identities=_identities(side),
        log=os.readlink(side.log.path) if side.log else "",
        access=_access(side),
    )


def _identities(side: Side) -> tuple[str, ...]:
    rows = side.daemon.call("certs")
    return tuple(row["identity"] for row in rows if row["type"] == "Leaf" and row["valid"])
