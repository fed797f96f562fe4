"""What a destination means to a pod, as `zproxy why` is asked about it: an address, a pod or a service. Pure.

Names are tried as a pod's resolver with its search list would have them answered from the mesh.
"""

import re
from typing import Final, NamedTuple

from zproxy.errors import ConfigError
from zproxy.model.addr import canonical_ip
from zproxy.model.service import Service
from zproxy.model.workload import Workload
from zproxy.state import names
from zproxy.state.names import Asker, Found
from zproxy.state.store import Mesh
from zproxy.state.trace import Trace

_SHOWN: Final = 80
_PORT: Final = re.compile(r"[0-9]{1,5}")


class Asked(NamedTuple):
    """A destination as somebody wrote it."""

    host: str
    """An address in canonical text, or a name."""
    port: int | None
    is_ip: bool


class Meaning(NamedTuple):
    """Where a destination leads."""

    ips: tuple[str, ...]
    """Empty where the mesh does not know the name."""
    service: Service | None = None
    workload: Workload | None = None


def parse(text: str) -> Asked:
    """Return what IP, IP:PORT, [IPv6]:PORT, NAME or NAME:PORT stands for; raise ConfigError."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    ip = _ip(bare)
    if ip is not None:
        return Asked(ip, None, is_ip=True)
    host, colon, port = text.rpartition(":")
    if not colon:
        host, port = text, ""
    if port and (_PORT.fullmatch(port) is None or not 0 < int(port) < 65536):
        raise ConfigError(f"{port[:_SHOWN]!r} is no port; write one from 1 to 65535")
    number = int(port) if port else None
    ip = _ip(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    if ip is not None:
        return Asked(ip, number, is_ip=True)
    if not re.fullmatch(r"[A-Za-z0-9_*./-]+", host):
        raise ConfigError(
            f"{text[:_SHOWN]!r} is no destination; write an address, NAMESPACE/POD or a service's name"
        )
    return Asked(host.rstrip(".").lower(), number, is_ip=False)


def meaning(mesh: Mesh, asker: Asker, asked: Asked, trace: Trace) -> Meaning:
    """Return where `asked` leads `asker`; raise ConfigError for a pod that nobody knows."""
    if asked.is_ip:
        trace.note("address", "given", asked.host)
        return Meaning((asked.host,))
    if "/" in asked.host:
        return _qualified(mesh, asker, asked.host, trace)
    found = names.find(mesh, asker, asked.host, trace)
    return Meaning(()) if found is None else _of(mesh, asker, found, trace)


def _qualified(mesh: Mesh, asker: Asker, name: str, trace: Trace) -> Meaning:
    """Return what NAMESPACE/NAME is: a pod, a service by its hostname, or by its name."""
    workload = mesh.by_pod(name)
    if workload is not None:
        trace.note("pod", "found", f"{name} has {', '.join(workload.workload_ips) or 'no address'}")
        if not workload.workload_ips:
            raise ConfigError(f"{name} has no address that an app could dial; dial a service of it")
        return Meaning(workload.workload_ips, None, workload)
    namespace, _, host = name.partition("/")
    service = mesh.service(name) or mesh.service(f"{namespace}/{host}.{namespace}.svc.{asker.domain}")
    if service is None:
        raise ConfigError(
            f"unknown destination {name}: `zproxy workloads` and `zproxy services` list what there is"
        )
    return _of(mesh, asker, Found(service), trace)


def _of(mesh: Mesh, asker: Asker, found: Found, trace: Trace) -> Meaning:
    """Return the addresses that DNS gives for what has the name: its own, or those of its endpoints."""
    service = found.service
    if not names.is_known(asker, found):
        trace.note("service", "outside", f"{service.key} has no address in the mesh")
        return Meaning(())
    if found.pod is not None:
        trace.note("pod", "found", f"{found.pod.pod}, an endpoint of {service.key}")
    elif not service.vips:
        trace.note("service", "headless", f"{service.key} has no address, so those of its endpoints count")
    ips = names.addresses(mesh, asker, found)
    if not ips:
        raise ConfigError(f"{service.key} has neither an address here nor endpoints with one; give it vips")
    trace.note("service", "means", f"{service.key} is {', '.join(ips[:8])}")
    return Meaning(ips, service, found.pod)


def _ip(text: str) -> str | None:
    try:
        return canonical_ip(text)
    except ValueError:
        return None
