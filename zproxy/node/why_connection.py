"""Why a connection that is open or ended lately is where it is, and whether it would be so now. Pure."""

from typing import Any, NamedTuple

from zproxy.model.addr import Endpoint
from zproxy.model.conn import Direction
from zproxy.model.identity import SpiffeId
from zproxy.model.route import Route
from zproxy.model.workload import Workload
from zproxy.node.why_answer import Answer, route_text
from zproxy.node.why_ways import Ground, Outcome, judged, telling, ways
from zproxy.observe.connections import Connection
from zproxy.state.inbound import Reject, admit
from zproxy.state.recheck import objection


class Seen(NamedTuple):
    """What a connection's record said at one moment."""

    pod: str
    is_outbound: bool
    state: str
    error: str
    src: Endpoint
    dst: Endpoint
    wanted: Endpoint
    hbone_addr: str
    tunnel: int
    route: Route | None
    identity: SpiffeId | None
    has_peers: bool

    @classmethod
    def of(cls, connection: Connection) -> "Seen":
        """Read the record; on its worker."""
        peers = connection.peers
        return cls(
            connection.pod,
            connection.direction is Direction.OUTBOUND,
            connection.state,
            connection.error,
            connection.src,
            connection.dst,
            connection.wanted,
            connection.hbone_addr,
            connection.tunnel,
            connection.route,
            None if peers is None else peers.source_identity,
            peers is not None,
        )


def explained(ground: Ground, number: int, seen: Seen) -> dict[str, Any]:
    """Return what became of a connection, and what would now."""
    to = str(seen.wanted)
    answer = Answer(seen.pod if seen.is_outbound else str(seen.src), to, "tcp")
    record = answer.section("connection")
    side = "outbound" if seen.is_outbound else "inbound"
    record.note("record", seen.state, f"{side} of {seen.pod}, from {seen.src} to {to}")
    if seen.hbone_addr:
        tunnel = f" in tunnel {seen.tunnel}" if seen.tunnel else ""
        record.note("hop", "HBONE", f"to {seen.dst} for {seen.hbone_addr}{tunnel}")
    if seen.error:
        record.note("error", seen.state, seen.error)
    workload = ground.mesh.by_pod(seen.pod)
    if workload is None:
        sentence = f"connection {number} is {seen.state}, and {seen.pod} is not in the mesh any more"
        return answer.ending(sentence, is_allowed=False)
    then = f"connection {number} of {workload.pod} {_was(seen)}"
    outcome = (
        _sent(answer, ground, workload, seen) if seen.is_outbound else _came(answer, ground, workload, seen)
    )
    verb = "is allowed" if outcome.is_allowed else "is refused"
    return answer.ending(f"{then}; now it {verb}: {outcome.why}", is_allowed=outcome.is_allowed)


def _sent(answer: Answer, ground: Ground, source: Workload, seen: Seen) -> Outcome:
    """Decide about an outbound connection again."""
    if seen.route is not None:
        answer.section("then").note("route", "taken", route_text(seen.route))
    found = ways(ground, source, seen.wanted)
    if seen.state == "open" and seen.route is not None:
        why = objection(ground.mesh, source, seen.wanted, seen.route, ground.settings)
        answer.section("stays").note("route", "refused" if why else "may stay", why or route_text(seen.route))
    same = [
        way for way in found if seen.route is not None and route_text(way.route) == route_text(seen.route)
    ]
    first = same[0] if same else telling(found)
    answer.section("route now", first.sending)
    answer.section("receiving side now", first.receiving)
    return first.outcome


def _came(answer: Answer, ground: Ground, local: Workload, seen: Seen) -> Outcome:
    """Decide about an inbound connection again."""
    trace = answer.section("receiving side now")
    target = seen.wanted
    if seen.hbone_addr:
        admitted = admit(ground.mesh, local, seen.dst, seen.hbone_addr, ground.settings, trace)
        if isinstance(admitted, Reject):
            return Outcome(False, f"{local.pod} answers {admitted.status}: {admitted.reason}")
        target = admitted.target
    elif not seen.has_peers:
        return Outcome(False, seen.error)
    return judged(ground, local, seen.identity, seen.src.ip, target, trace)


def _was(seen: Seen) -> str:
    if seen.state == "open":
        return "is open"
    return f"failed: {seen.error}" if seen.error else "has ended"
