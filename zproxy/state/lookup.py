"""Whom an address or a name means to a client: ztunnel's rules of visibility and preference, but for one.

A workload's own address comes before a range that holds it: whoever dials a pod means that pod, and a range
that covers pods would otherwise take over all that they say to each other. `Compat.ZTUNNEL` has ztunnel's
order, the range first.
"""

from collections.abc import Iterable, Sequence

from zproxy.model.service import Service
from zproxy.model.settings import Compat
from zproxy.model.workload import Workload
from zproxy.state.store import Mesh
from zproxy.state.trace import Trace


def dialled(
    mesh: Mesh, source: Workload, ip: str, compat: Compat, trace: Trace | None = None
) -> tuple[Service | None, Workload | None]:
    """Return the service and the workload that `ip` means to `source`; where there are both, the service."""
    workload = mesh.by_ip(ip, source.network)
    is_pods = workload is not None and compat is not Compat.ZTUNNEL
    return service_at(mesh, source.network, ip, source.namespace, trace, is_exact=is_pods), workload


def service_at(
    mesh: Mesh,
    network: str,
    ip: str,
    namespace: str | None,
    trace: Trace | None = None,
    *,
    is_exact: bool = False,
) -> Service | None:
    """Return the service that `ip` on `network` belongs to, for a client in `namespace` (None: not known).

    Its own address comes before any range that holds it, the client's own namespace before others, then the
    longest prefix, then the canonical service, then the first by key. What the client may not see is no
    candidate, so a range may stand in for an address that is hidden. With `is_exact` no range is looked at.
    """
    exact = visible_to(mesh.services_at(ip, network), namespace)
    if exact:
        return _told(preferred_of(exact, namespace), exact, ip, trace)
    if is_exact:
        return None
    around = [
        (length, each)
        for (_, _, length), each in mesh.services_around(ip, network)
        if each.is_visible_to(namespace)
    ]
    if not around:
        return None
    best = min(around, key=lambda pair: (pair[1].namespace != namespace, -pair[0], not pair[1].canonical))
    return _told(best[1], [each for _, each in around], ip, trace)


def service_named(
    mesh: Mesh, hostname: str, namespace: str | None, trace: Trace | None = None, favourite: str = ""
) -> Service | None:
    """Return the service that `hostname` means to a client in `namespace`; see `preferred_of`."""
    visible = visible_to(mesh.services_named(hostname), namespace)
    return _told(preferred_of(visible, namespace, favourite), visible, hostname, trace) if visible else None


def visible_to(services: Iterable[Service], namespace: str | None) -> list[Service]:
    """Return those that a client in `namespace` may use, in their order."""
    return [each for each in services if each.is_visible_to(namespace)]


def preferred_of(services: Sequence[Service], namespace: str | None, favourite: str = "") -> Service:
    """Return the one that is meant: of the client's namespace, canonical, or in the `favourite` namespace."""
    return min(
        services,
        key=lambda each: (
            each.namespace != namespace,
            not each.canonical,
            not favourite or each.namespace != favourite,
        ),
    )


def _told(chosen: Service, among: Sequence[Service], what: str, trace: Trace | None) -> Service:
    if trace is not None:
        others = ", ".join(each.key for each in among if each is not chosen)
        over = f"; preferred to {others}" if others else ""
        trace.note("service", "found", f"{what} is {chosen.key}{over}")
    return chosen
