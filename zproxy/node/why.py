"""`zproxy why`: what would become of a connection, or what became of one, and by which rule.

All decisions are made by the functions of the data plane, on the snapshot that it has at this moment.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from zproxy.errors import ConfigError
from zproxy.model import ports
from zproxy.model.addr import Endpoint
from zproxy.model.route import Refuse, Upstream
from zproxy.model.settings import Settings
from zproxy.model.workload import Workload
from zproxy.node.manager import Manager
from zproxy.node.pod import Pod
from zproxy.node.why_answer import Answer, route_text
from zproxy.node.why_connection import Seen, explained
from zproxy.node.why_names import Asked, Meaning, meaning, parse
from zproxy.node.why_steering import Steered, steer_tcp, steer_udp
from zproxy.node.why_ways import LISTED, Ground, Way, telling, ways
from zproxy.node.workers import PodWorker
from zproxy.proxy.straw import TunnelView
from zproxy.state.names import Asker
from zproxy.state.policy import Decide
from zproxy.state.store import Mesh
from zproxy.state.trace import Trace

PROTOCOLS: Final = ("tcp", "udp", "dns")
_STANDINGS: Final = 16
"""Endpoints whose standing with the balancer is told."""


class Why:
    """Answers for the pods of one node."""

    def __init__(
        self,
        workers: Sequence[PodWorker],
        manager: Manager,
        mesh: Callable[[], Mesh],
        settings: Settings,
        decide: Decide,
    ) -> None:
        self._workers = workers
        self._manager = manager
        self._mesh = mesh
        self._settings = settings
        self._decide = decide

    async def why(self, source: str, destination: str, protocol: str = "tcp") -> dict[str, Any]:
        """Return what becomes of a connection or datagram of the pod `source`; raise ConfigError."""
        if protocol not in PROTOCOLS:
            raise ConfigError(f"unknown protocol {protocol!r}; write one of {', '.join(PROTOCOLS)}")
        pod, ground = self._pod(source), self._ground()
        workload = ground.mesh.by_uid(pod.workload.uid) or pod.workload
        answer = Answer(source, destination, protocol)
        asked = parse(destination)
        if protocol == "dns":
            return _of_name(answer, pod, ground.mesh, await pod.straw.asker(), asked)
        named = Trace()
        meant = meaning(ground.mesh, await pod.straw.asker(), asked, named)
        if not meant.ips:
            raise ConfigError(
                f"the mesh does not know {asked.host}, so the pod's own resolver is asked: give the address "
                "that it answers"
            )
        to = Endpoint(meant.ips[0], _port(asked, meant))
        answer.section("name", named)
        if protocol == "udp":
            return _of_datagram(answer, pod, workload, to)
        steering = steer_tcp(workload, pod.options, to, answer.section("steering"))
        if steering.steered is not Steered.PROXY:
            return answer.ending(f"{source} reaches {to} past the mesh: {steering.why}", is_allowed=True)
        return await self._of_connection(answer, pod, ground, workload, to)

    async def why_connection(self, number: int) -> dict[str, Any]:
        """Return why a connection that is open or ended lately is where it is; raise ConfigError."""
        for worker in self._workers:
            seen = await worker.connection(number, Seen.of)
            if seen is not None:
                return explained(self._ground(), number, seen)
        raise ConfigError(f"no connection {number}: `zproxy connections` lists those that are remembered")

    def _pod(self, name: str) -> Pod:
        pod = self._manager.pods.get(name)
        if pod is None:
            raise ConfigError(
                f"{name} is not enrolled on node {self._manager.node}, so nobody here knows what it sends; "
                "`zproxy pods` lists those that are"
            )
        return pod

    def _ground(self) -> Ground:
        return Ground(self._mesh(), self._settings, self._decide, tuple(self._manager.pods))

    async def _of_connection(
        self, answer: Answer, pod: Pod, ground: Ground, source: Workload, to: Endpoint
    ) -> dict[str, Any]:
        found = ways(ground, source, to)
        first = telling(found)
        answer.section("route", first.sending)
        if isinstance(first.route, Upstream):
            await _live(answer.section("now"), pod, first.route, found)
            answer.section(f"receiving side: {first.route.workload.pod}", first.receiving)
        elif not isinstance(first.route, Refuse):
            answer.section("receiving side", first.receiving)
        _others(answer.section("all ways"), found)
        allowed = sum(way.outcome.is_allowed for way in found)
        if allowed == len(found):
            sentence = f"{source.pod} may reach {to}: {first.outcome.why}"
        elif not allowed:
            sentence = f"{source.pod} may not reach {to}: {first.outcome.why}"
        else:
            sentence = (
                f"{source.pod} may reach {to} by {allowed} of {len(found)} ways only: {first.outcome.why}"
            )
        return answer.ending(sentence, is_allowed=allowed == len(found))


def _of_name(answer: Answer, pod: Pod, mesh: Mesh, asker: Asker, asked: Asked) -> dict[str, Any]:
    """Answer what a query of the pod comes to."""
    if asked.is_ip:
        raise ConfigError(
            f"{asked.host} is an address and no name; `zproxy why` takes it without --protocol dns"
        )
    steering = answer.section("steering")
    if not pod.options.dns:
        steering.note("steering", "not steered", f"{pod.name} was enrolled with --no-dns")
        sentence = (
            f"a query of {pod.name} for {asked.host} goes to its own resolver: it was enrolled with --no-dns"
        )
        return answer.ending(sentence, is_allowed=True)
    steering.note(
        "steering", Steered.DNS.value, f"the DNS of {pod.name} goes to port {ports.DNS} of its straw"
    )
    found = meaning(mesh, asker, asked, answer.section("name"))
    said = (
        f"is answered by the mesh: {', '.join(found.ips)}"
        if found.ips
        else "goes on to the resolver it was sent to"
    )
    return answer.ending(f"a query of {pod.name} for {asked.host} {said}", is_allowed=True)


def _of_datagram(answer: Answer, pod: Pod, source: Workload, to: Endpoint) -> dict[str, Any]:
    steering = steer_udp(source, pod.options, to, answer.section("steering"))
    is_allowed = steering.steered is not Steered.DROPPED
    verb = "may send" if is_allowed else "may not send"
    return answer.ending(f"{pod.name} {verb} UDP to {to}: {steering.why}", is_allowed=is_allowed)


def _port(asked: Asked, meant: Meaning) -> int:
    """Return the port that is meant: the one of the service, where it has one only."""
    if asked.port is not None:
        return asked.port
    served = [] if meant.service is None else [port for port, _ in meant.service.ports]
    if len(served) == 1:
        return served[0]
    choice = f", one of {', '.join(map(str, served))}" if served else ""
    raise ConfigError(f"which port of {asked.host}? write {asked.host}:PORT{choice}")


def _others(trace: Trace, found: Sequence[Way]) -> None:
    if len(found) < 2:
        return
    for way in found[:LISTED]:
        outcome = "allowed" if way.outcome.is_allowed else "refused"
        trace.note("way", outcome, f"{route_text(way.route)}: {way.outcome.why}")
    if len(found) > LISTED:
        trace.note("way", "more", f"only {LISTED} were looked at")


async def _live(trace: Trace, pod: Pod, route: Upstream, found: Sequence[Way]) -> None:
    """Note what is there already: tunnels that would serve, and how the balancer sees the endpoints."""

    def view(tunnel: TunnelView, _: float) -> tuple[bool, str]:
        is_ours = tunnel.role == "client" and tunnel.remote == route.address
        proven = tunnel.identities[1]
        serves = is_ours and proven in (*route.identities, " ".join(route.identities))
        return serves, f"{tunnel.id} to {tunnel.remote}, with {tunnel.wire.open_streams} streams, {proven}"

    if route.identities:
        serving = [text for serves, text in await pod.straw.tunnels(view) if serves]
        for text in serving:
            trace.note("tunnel", "open", text)
        if not serving:
            trace.note("tunnel", "none", f"one to {route.hostname or route.address} will be dialled")
    routes = [way.route for way in found[:_STANDINGS]]
    several = [each for each in routes if isinstance(each, Upstream) and each.is_choice]
    standings = await pod.straw.standings([(each.chosen, each.target_port) for each in several])
    for each, standing in zip(several, standings, strict=True):
        if standing.open or standing.failures:
            out = f", left out for {standing.ejected_s:.0f} s" if standing.ejected_s else ""
            so_far = f"{standing.open} connections, {standing.failures} failures in a row{out}"
            trace.note("balancer", "knows", f"{each.workload.pod}: {so_far}")
