"""Endpoints that services tell of: a config dump has them there, and there only."""

from collections.abc import Iterable
from dataclasses import replace

from zproxy.model.workload import ServicePort, Workload
from zproxy.sources.services import Endpoint


def with_endpoints(workloads: Iterable[Workload], told: Iterable[tuple[str, Endpoint]]) -> list[Workload]:
    """Return the workloads, which are endpoints also of the services that say so; raise ConfigError.

    `told` are keys of services and what each says. What a workload says of its own ports has the first word.
    """
    known = {each.uid: each for each in workloads}
    for service, endpoint in told:
        workload = known.get(endpoint.uid)
        if workload is None:
            raise endpoint.place.error("there is no workload of this uid; name one of the list `workloads:`")
        if endpoint.status not in (None, workload.status):
            raise endpoint.place.error(
                f"the workload says {workload.status.value}; say it there only, for all its services"
            )
        if all(port.service != service for port in workload.service_ports):
            known[endpoint.uid] = _behind(workload, service, endpoint.ports)
    return list(known.values())


def _behind(workload: Workload, service: str, ports: tuple[ServicePort, ...]) -> Workload:
    services = dict.fromkeys((*workload.services, service))
    return replace(workload, services=tuple(services), service_ports=(*workload.service_ports, *ports))
