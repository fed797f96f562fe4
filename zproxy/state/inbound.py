"""Inbound decision: whether a CONNECT that reached a pod's 15008 may go on to the app, and to which port.

The checks, their order and their statuses are ztunnel's, so that peers and tools see what they know:
authority parses (400), is of this pod (400), a hostname resolves (503), port is not ours (503). Then the
peers are known, and policy is asked (zproxy.state.policy, 401).

What is of this pod: its own address, that the connection came to; anything, where the pod has an application
tunnel; a workload or service whose waypoint it is. A name is of the pod when it serves it, too: ztunnel takes
every name that it can resolve, which `Compat.ZTUNNEL` restores.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from zproxy.model import ports
from zproxy.model.addr import Endpoint
from zproxy.model.service import GatewayAddress, Service
from zproxy.model.settings import DEFAULT_SETTINGS, Compat, Settings
from zproxy.model.workload import AppProtocol, Workload
from zproxy.state.balance import target_port
from zproxy.state.lookup import service_at, service_named
from zproxy.state.reference import is_meant
from zproxy.state.store import Mesh
from zproxy.state.trace import Trace

_HOSTNAME: Final = re.compile(r"(?=.{1,253}:)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?:([0-9]{1,5})")
_SHOWN: Final = 80
"""Characters of a peer's authority that a reason repeats."""
_LOOPBACKS: Final = {False: "127.0.0.1", True: "::1"}


class Admit(NamedTuple):
    """Connect the stream to the app."""

    target: Endpoint
    """The port of this pod that policy is asked about."""
    dial: Endpoint
    """Where the app is reached: the target, or a port of the loopback."""
    service: Service | None = None
    """That the authority named."""
    proxied: Endpoint | None = None
    """What the connection was meant for, to be told to the app in a PROXY header; None: nothing is."""


class Reject(NamedTuple):
    """Answer the CONNECT with `status`; `reason` is a sentence for the operator."""

    status: int
    reason: str


def admit(
    mesh: Mesh,
    local: Workload,
    connection_dst: Endpoint,
    authority: str,
    settings: Settings = DEFAULT_SETTINGS,
    trace: Trace | None = None,
) -> Admit | Reject:
    """Decide on a CONNECT for `authority` over a connection to `connection_dst`, an address of `local`."""
    try:
        asked = Endpoint.parse(authority)
    except ValueError:
        found = _by_name(mesh, local, authority, settings, trace)
    else:
        found = _by_address(mesh, local, connection_dst, asked, trace)
    if isinstance(found, Reject):
        _note(trace, "authority", "refused", found.reason)
        return found
    admitted = _to_app(local, connection_dst, *found)
    if isinstance(admitted, Reject):
        _note(trace, "port", "refused", admitted.reason)
    else:
        _note(trace, "authority", "accepted", f"{authority[:_SHOWN]} is {admitted.target} of {local.pod}")
    return admitted


def _by_address(
    mesh: Mesh, local: Workload, connection_dst: Endpoint, asked: Endpoint, trace: Trace | None
) -> tuple[Endpoint, Service | None] | Reject:
    """Return what is asked for, if it is of this pod."""
    if asked.ip == connection_dst.ip:
        return asked, None
    workload = mesh.by_ip(asked.ip, local.network)
    if local.application_tunnel is not None:
        _note(trace, "application tunnel", "any address", f"{local.pod} takes what is meant for {asked.ip}")
        is_pods = workload is not None
        return asked, service_at(mesh, local.network, asked.ip, local.namespace, is_exact=is_pods)
    service = None
    if workload is None:
        service = service_at(mesh, local.network, asked.ip, local.namespace)
    whose = workload or service
    if whose is not None and _is_waypoint(mesh, local, whose):
        _note(trace, "waypoint", "its own", f"{local.pod} is the waypoint of {asked.ip}")
        return asked, service
    return Reject(400, f"ip mismatch: {connection_dst.ip} != {asked.ip}")


def _by_name(
    mesh: Mesh, local: Workload, authority: str, settings: Settings, trace: Trace | None
) -> tuple[Endpoint, Service | None] | Reject:
    """Return what a name asks for, with an IP that is empty where it is this pod's own."""
    shown = repr(authority[:_SHOWN])
    shape = _HOSTNAME.fullmatch(authority)
    if shape is None or not 0 < int(shape[1]) < 65536:
        return Reject(400, f"invalid CONNECT address: {shown} is neither ip:port nor host:port")
    port = int(shape[1])
    hostname = authority.rpartition(":")[0].rstrip(".").lower()
    service = service_named(mesh, hostname, local.namespace, trace)
    if service is not None:
        return _of_service(mesh, local, service, port, settings)
    workload = next(iter(mesh.by_hostname(hostname)), None)
    if workload is None:
        return Reject(503, f"no service or workload for hostname: {shown}")
    is_ours = workload.uid == local.uid or _takes_all(mesh, local, workload)
    if not is_ours and settings.compat is Compat.ZPROXY:
        return Reject(400, f"hostname mismatch: {hostname} is {workload.pod}, not {local.pod}")
    return Endpoint("", port), None


def _of_service(
    mesh: Mesh, local: Workload, service: Service, port: int, settings: Settings
) -> tuple[Endpoint, Service | None] | Reject:
    asked = f"{service.hostname}:{port}"
    takes_all = _takes_all(mesh, local, service)
    is_ours = takes_all or service.key in local.services
    if not is_ours and settings.compat is Compat.ZPROXY:
        return Reject(400, f"hostname mismatch: {local.pod} is no endpoint of {service.key}")
    if takes_all:
        vip = min((vip for vip in service.vips), key=lambda vip: vip.network != local.network, default=None)
        return Endpoint(vip.ip if vip is not None else "", port), service
    target = target_port(service, local, port)
    if target is None:
        return Reject(503, f"requested service {asked} found, but cannot resolve port")
    return Endpoint("", target), service


def _takes_all(mesh: Mesh, local: Workload, whose: Workload | Service) -> bool:
    """Tell whether `local` is to have what is meant for `whose` as it was meant."""
    return local.application_tunnel is not None or _is_waypoint(mesh, local, whose)


def _is_waypoint(mesh: Mesh, local: Workload, whose: Workload | Service) -> bool:
    """Tell whether `whose` names `local` as a waypoint, by whatever address or name."""
    return any(is_meant(mesh, each, local, local.namespace) for each in _waypoints(whose))


def _waypoints(whose: Workload | Service) -> Iterator[GatewayAddress]:
    if whose.waypoint is not None:
        yield whose.waypoint
    if isinstance(whose, Service):
        yield from (each.destination for each in whose.weighted_waypoints)


def _to_app(
    local: Workload, connection_dst: Endpoint, asked: Endpoint, service: Service | None
) -> Admit | Reject:
    """Return the way to the app for what was `asked` for."""
    tunnel = local.application_tunnel
    port = tunnel.port if tunnel is not None and tunnel.port is not None else asked.port
    target = Endpoint(connection_dst.ip, port)
    for number in (asked.port, port):
        if number in ports.ILLEGAL:
            at = Endpoint(connection_dst.ip, number)
            return Reject(503, f"attempted recursive call to ourselves: {at} is a listener of the mesh proxy")
    if tunnel is not None and tunnel.protocol is AppProtocol.PROXY:
        dial = Endpoint(_LOOPBACKS[connection_dst.is_v6], port)
        return Admit(target, dial, service, Endpoint(asked.ip or connection_dst.ip, asked.port))
    return Admit(target, target, service)


def _note(trace: Trace | None, subject: str, outcome: str, detail: str) -> None:
    if trace is not None:
        trace.note(subject, outcome, detail)
