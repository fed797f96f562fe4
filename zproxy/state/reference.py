"""Whom a waypoint's or gateway's address leads to: a workload by address or name, or one of a service."""

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


def refer(mesh: Mesh, source: Workload, reference: GatewayAddress, trace: Trace | None = None) -> Referred:
    """Return all that `reference` may lead `source` to; no candidates when it leads nowhere."""
    where, port = reference.destination, reference.hbone_mtls_port
    if isinstance(where, NamespacedHostname):
        service = mesh.service(str(where))
        workload = next(
            (each for each in mesh.by_hostname(where.hostname) if each.namespace == where.namespace), None
        )
        dialled = _ANY_V4
    else:
        service = service_at(mesh, where.network, where.ip, source.namespace)
        workload = mesh.by_ip(where.ip, where.network)
        dialled = where.ip
    if service is not None:
        to = Endpoint(dialled, port)
        return Referred(service, candidates(mesh, service, source, to, is_waypoint=True, trace=trace))
    if workload is None:
        return Referred(None, ())
    ip = dialled if dialled in workload.workload_ips else next(iter(workload.workload_ips), "")
    if not ip and not workload.hostname:
        return Referred(None, ())
    return Referred(None, (Candidate(workload, port, 0, ip),))


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
