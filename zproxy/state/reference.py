"""Whom a waypoint's or gateway's address leads to: a workload by address or name, or one of a service.

An address is that of a service, or else of a workload, and never one of a range: who names a waypoint means
that one, and not a service whose range happens to hold it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from zproxy.model.addr import Endpoint
from zproxy.model.service import GatewayAddress, NamespacedHostname, Service
from zproxy.model.workload import Workload
from zproxy.state.balance import candidates
from zproxy.state.choose import Candidate, Chooser
from zproxy.state.lookup import service_at
from zproxy.state.store import Mesh
from zproxy.state.trace import Trace

_ANY_V4 = "0.0.0.0"  # noqa: S104 - nobody's address, of the family to prefer where a name says nothing


class Referred(NamedTuple):
    """All that a reference may lead to."""

    service: Service | None
    """Of which one is to be chosen; None where it was a workload that was named."""
    candidates: Sequence[Candidate]
    """Their `target_port` is the one to dial."""


class Located(NamedTuple):
    """The workload that a reference led to, and how to reach it."""

    workload: Workload
    ip: str
    """Empty where only its `hostname` is known."""
    port: int
    identities: tuple[str, ...]
    """URIs, sorted, one of which it must prove: its own, or one that its service may have."""


def leads_to(
    mesh: Mesh, reference: GatewayAddress, namespace: str | None = None
) -> Service | Workload | None:
    """Return the service, or else the workload, that `reference` means to a namespace; None: to anybody."""
    where = reference.destination
    if isinstance(where, NamespacedHostname):
        named = (each for each in mesh.by_hostname(where.hostname) if each.namespace == where.namespace)
        return mesh.service(str(where)) or next(named, None)
    service = service_at(mesh, where.network, where.ip, namespace, is_exact=True)
    return service or mesh.by_ip(where.ip, where.network)


def is_meant(mesh: Mesh, reference: GatewayAddress, workload: Workload, namespace: str | None = None) -> bool:
    """Tell whether `workload` is one that `reference` means, even while it is unhealthy."""
    named = leads_to(mesh, reference, namespace)
    if isinstance(named, Service):
        return named.key in workload.services
    return named is not None and named.uid == workload.uid


def refer(mesh: Mesh, source: Workload, reference: GatewayAddress, trace: Trace | None = None) -> Referred:
    """Return all that `reference` may lead `source` to; no candidates when it leads nowhere."""
    where, port = reference.destination, reference.hbone_mtls_port
    dialled = _ANY_V4 if isinstance(where, NamespacedHostname) else where.ip
    named = leads_to(mesh, reference, source.namespace)
    if isinstance(named, Service):
        to = Endpoint(dialled, port)
        return Referred(named, candidates(mesh, named, source, to, is_waypoint=True, trace=trace))
    if named is None:
        return Referred(None, ())
    ip = dialled if dialled in named.workload_ips else next(iter(named.workload_ips), "")
    if not ip and not named.hostname:
        return Referred(None, ())
    return Referred(None, (Candidate(named, port, 0, ip),))


def locate(
    mesh: Mesh, source: Workload, reference: GatewayAddress, chooser: Chooser, trace: Trace | None = None
) -> Located | None:
    """Return who is to be dialled for `reference`; None when it leads nowhere."""
    service, found = refer(mesh, source, reference, trace)
    if not found:
        return None
    chosen = found[0] if service is None else chooser.endpoint(service, found)
    own = str(chosen.workload.identity)
    sans = service.subject_alt_names if service is not None else ()
    return Located(chosen.workload, chosen.ip, chosen.target_port, identities(own, sans))


def identities(own: str, subject_alt_names: Sequence[str]) -> tuple[str, ...]:
    """Return the URIs that a peer may prove, sorted, each once."""
    return tuple(sorted({own, *subject_alt_names})) if subject_alt_names else (own,)
