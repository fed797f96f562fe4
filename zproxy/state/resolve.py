"""Outbound decision: where a connection of a pod goes (ztunnel's procedure, as far as workloads reach).

1. A workload on the source's network has the address: HBONE to podIP:15008, or plain TCP to podIP:port,
   as its protocol says. Its health is not asked: who dials a pod's own address means that pod. A workload
   on the same node is no exception; it is dialled like any other.
2. Nobody has it: passthrough to where the app wanted to go, or refused where only the mesh may be dialled.
3. A port of the straw itself, on a workload or on the loopback: refused, it could only be a loop.
4. An IPv6 link-local address: refused. Which link is meant was the app's to know and is lost on the way; no
   part of the mesh has such an address.
"""

import ipaddress

from zproxy.model import ports
from zproxy.model.addr import Endpoint
from zproxy.model.route import Passthrough, Refuse, Route, Upstream
from zproxy.model.settings import DEFAULT_SETTINGS, OutboundPolicy, Settings
from zproxy.model.workload import Protocol, Workload
from zproxy.state.choose import RANDOM, Chooser
from zproxy.state.store import Mesh
from zproxy.state.trace import Trace


def resolve(
    mesh: Mesh,
    source: Workload,
    to: Endpoint,
    settings: Settings = DEFAULT_SETTINGS,
    chooser: Chooser = RANDOM,
    trace: Trace | None = None,
) -> Route:
    """Decide where a connection from `source` to `to` goes."""
    workload = mesh.by_ip(to.ip, source.network)
    if to.port in ports.ILLEGAL and (workload is not None or ipaddress.ip_address(to.ip).is_loopback):
        return Refuse(
            f"attempted recursive call to ourselves: {to} is a listener of the mesh proxy; "
            "dial the port of the app itself"
        )
    if workload is None:
        if to.is_v6 and ipaddress.ip_address(to.ip).is_link_local:
            return Refuse(f"{to} is link-local, and the link is not known: dial a routable address")
        only_registry = settings.outbound_policy is OutboundPolicy.REGISTRY_ONLY
        if only_registry and not ipaddress.ip_address(to.ip).is_loopback:
            return Refuse(f"{to} is no part of the mesh, and the outbound policy is registry_only")
        return Passthrough(to)
    if workload.protocol is Protocol.HBONE:
        address = Endpoint(to.ip, ports.INBOUND_HBONE)
        return Upstream(workload, address, str(to), (str(workload.identity),), to.port)
    return Upstream(workload, to, "", (), to.port)
