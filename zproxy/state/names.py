"""What a DNS name means to one pod: ztunnel's rules, with pod names, SRV and PTR beside them. Pure.

Names are lower-case text without the final dot. What is not found here belongs to somebody else.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from zproxy.model.addr import canonical_ip
from zproxy.model.service import HealthPolicy, Service
from zproxy.model.settings import CLUSTER_DOMAIN
from zproxy.model.workload import Status, Workload
from zproxy.state.balance import target_port
from zproxy.state.lookup import preferred_of, service_named, visible_to
from zproxy.state.store import Mesh
from zproxy.state.trace import Trace

PROTOCOLS: Final = ("_tcp", "_udp")
"""Of an SRV name. The mesh does not know which one a port speaks, so it answers for both (RFC 2782)."""


class Asker(NamedTuple):
    """On whose behalf a name is looked up, and what decides about names that are not in full."""

    workload: Workload
    domain: str = CLUSTER_DOMAIN
    search: tuple[str, ...] = ()
    """The search list of the pod's resolv.conf; empty stands for the one that Kubernetes gives."""
    favourite: str = ""
    """A namespace whose services are preferred where nothing else tells."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What the pod's resolver appends to a name."""
        services = f"svc.{self.domain}"
        return self.search or (f"{self.workload.namespace}.{services}", services, self.domain)


class Alias(NamedTuple):
    """One name in full that a query may be short for."""

    name: str
    canonical: str = ""
    """The query without a search suffix; empty where nothing was taken off."""


class Found(NamedTuple):
    """What has a name: a service, or one pod of it."""

    service: Service
    pod: Workload | None = None
    canonical: str = ""
    """Where the answer says that the query is an alias, of what."""


class Target(NamedTuple):
    """Who serves a port (RFC 2782)."""

    name: str
    port: int
    ips: tuple[str, ...]


def find(mesh: Mesh, asker: Asker, name: str, trace: Trace | None = None) -> Found | None:
    """Return what `name` means to `asker`, None where the mesh does not know it."""
    for alias in aliases(asker, name):
        for candidate in wildcards(alias.name):
            service = _service(mesh, asker, candidate, trace)
            if service is not None:
                return Found(service, None, "" if candidate.startswith("*.") else alias.canonical)
        found = _pod(mesh, asker, alias)
        if found is not None:
            return found
        if trace is not None:
            trace.note("name", "no match", alias.name)
    return None


def aliases(asker: Asker, name: str) -> Iterator[Alias]:
    """Yield the names that `name` may be short for, the likeliest first.

    A suffix of the search list is taken off again: the resolver of an app may have put it on. Outside the
    cluster's domain what is left is a name in full, and nothing more is made of it.
    """
    yield Alias(name)
    for full in _in_full(asker, name):
        yield Alias(full)
    for suffix in asker.suffixes:
        short = name.removesuffix(f".{suffix}")
        if not short or short == name:
            continue
        yield Alias(short, short)
        if _is_within(suffix, asker.domain):
            for full in _in_full(asker, short):
                yield Alias(full, short)


def wildcards(name: str) -> Iterator[str]:
    """Yield `name`, then the wildcards that cover it, the longest first; `*.com` covers, `*` does not."""
    yield name
    rest = name
    while "." in rest:
        rest = rest.partition(".")[2]
        yield f"*.{rest}"


def addresses(mesh: Mesh, asker: Asker, found: Found) -> tuple[str, ...]:
    """Return the addresses of what was found, of both families, that mean something on the pod's network.

    Of a headless service these are the first ones of each endpoint; Kubernetes publishes no others.
    """
    service, network = found.service, asker.workload.network
    if found.pod is not None:
        return _firsts(service, found.pod)
    vips = tuple(vip.ip for vip in service.vips if vip.network == network)
    if vips or not is_headless(service, asker.domain):
        return vips
    return tuple(
        dict.fromkeys(ip for each in _endpoints(mesh, asker, service) for ip in _firsts(service, each))
    )


def is_known(asker: Asker, found: Found) -> bool:
    """Tell whether the mesh answers for the name: who is outside and has no address is DNS's to find."""
    service = found.service
    return bool(service.vips) or is_headless(service, asker.domain)


def is_headless(service: Service, domain: str) -> bool:
    """Tell whether the service's name stands for the addresses of its endpoints."""
    return not service.vips and service.hostname.endswith(f".svc.{domain}")


def targets(mesh: Mesh, asker: Asker, name: str) -> tuple[Target, ...] | None:
    """Return who serves `_PORT._PROTOCOL.SERVICE`, PORT a name or number, or all ports of plain `SERVICE`.

    None where the mesh does not know the service or the port: the query is somebody else's.
    """
    labels = name.split(".", 2)
    wanted, rest = "", name
    if len(labels) == 3 and labels[0].startswith("_") and labels[1] in PROTOCOLS:
        wanted, rest = labels[0][1:], labels[2]
    found = find(mesh, asker, rest)
    if found is None or not is_known(asker, found):
        return None
    served = tuple(
        port for port, _ in found.service.ports if not wanted or port == _port(found.service, wanted)
    )
    if wanted and not served:
        return None
    return tuple(target for port in served for target in _targets(mesh, asker, found, port))


def names_of(mesh: Mesh, asker: Asker, ip: str) -> tuple[str, ...]:
    """Return the names that have `ip`: of services, or else of a pod within its headless services."""
    workload = asker.workload
    services = visible_to(mesh.services_at(ip, workload.network), workload.namespace)
    if services:
        first = preferred_of(services, workload.namespace, asker.favourite)
        rest = (each.hostname for each in services if each is not first)
        return tuple(each for each in dict.fromkeys((first.hostname, *rest)) if not each.startswith("*"))
    pod = mesh.by_ip(ip, workload.network)
    if pod is None:
        return ()
    own = (mesh.service(key) for key in pod.services)
    return tuple(
        f"{pod.name}.{each.hostname}"
        for each in own
        if each is not None and is_headless(each, asker.domain) and each.is_visible_to(workload.namespace)
    )


def _service(mesh: Mesh, asker: Asker, hostname: str, trace: Trace | None = None) -> Service | None:
    return service_named(mesh, hostname, asker.workload.namespace, trace, asker.favourite)


def _pod(mesh: Mesh, asker: Asker, alias: Alias) -> Found | None:
    """Return the endpoint that `POD.SERVICE` names: by its name, or by an address with dashes."""
    pod, _, hostname = alias.name.partition(".")
    service = _service(mesh, asker, hostname)
    if service is None or not is_headless(service, asker.domain):
        return None
    own = mesh.by_pod(f"{service.namespace}/{pod}")
    if own is None and (ip := _undashed(pod)) is not None:
        own = mesh.by_ip(ip, asker.workload.network)
    if own is None or service.key not in own.services or not _takes_part(asker, service, own):
        return None
    return Found(service, own, alias.canonical)


def _in_full(asker: Asker, name: str) -> tuple[str, ...]:
    """Return what Kubernetes lets one leave out of a service's name, and of a pod's."""
    services, namespace = f"svc.{asker.domain}", asker.workload.namespace
    labels = name.split(".")
    if len(labels) == 1:
        return (f"{name}.{namespace}.{services}",)
    if len(labels) == 2:
        return f"{name}.{services}", f"{name}.{namespace}.{services}"
    if len(labels) == 3:
        own = (f"{name}.{asker.domain}",) if labels[-1] == "svc" else ()
        return *own, f"{name}.{services}"
    return (f"{name}.{asker.domain}",) if len(labels) == 4 and labels[-1] == "svc" else ()


def _is_within(name: str, domain: str) -> bool:
    return name == domain or name.endswith(f".{domain}")


def _endpoints(mesh: Mesh, asker: Asker, service: Service) -> Iterator[Workload]:
    return (each for each in mesh.endpoints(service.key) if _takes_part(asker, service, each))


def _takes_part(asker: Asker, service: Service, endpoint: Workload) -> bool:
    takes_all = service.load_balancer.health_policy is HealthPolicy.ALLOW_ALL
    is_well = takes_all or endpoint.status is Status.HEALTHY
    return is_well and endpoint.network == asker.workload.network


def _firsts(service: Service, workload: Workload) -> tuple[str, ...]:
    """Return the first address of each family that the service uses."""
    firsts = {":" in ip: ip for ip in reversed(workload.workload_ips)}
    return tuple(
        ip for ip in workload.workload_ips if ip in firsts.values() and service.ip_families.allows(ip)
    )


def _port(service: Service, wanted: str) -> int | None:
    return int(wanted) if wanted.isdecimal() else dict(service.port_names).get(wanted)


def _targets(mesh: Mesh, asker: Asker, found: Found, port: int) -> Iterator[Target]:
    service = found.service
    if found.pod is None and service.vips:
        yield Target(service.hostname, port, addresses(mesh, asker, found))
        return
    pods: Iterable[Workload] = _endpoints(mesh, asker, service) if found.pod is None else (found.pod,)
    for pod in pods:
        target = target_port(service, pod, port)
        ips = _firsts(service, pod)
        if target and ips:
            yield Target(f"{pod.name}.{service.hostname}", target, ips)


def _undashed(label: str) -> str | None:
    """Return the address that a label such as 10-0-0-1 or 2001-db8--1 is; None for any other."""
    for separator in (".", ":"):
        try:
            return canonical_ip(label.replace("-", separator))
        except ValueError:
            continue
    return None
