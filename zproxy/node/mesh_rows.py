"""The mesh as rows of a listing. Pure; keys are stable, since scripts read them with `-o json`."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from zproxy.model.policy import Authorization, Match, PolicyScope, Rule
from zproxy.model.service import (
    BalancerMode,
    GatewayAddress,
    LoadBalancer,
    Service,
    SessionAffinity,
)
from zproxy.model.workload import Status, Workload
from zproxy.proxy.balancer import Known
from zproxy.state.reference import leads_to
from zproxy.state.store import Mesh

UNKNOWN: Final = "NA"
"""Stands for a waypoint that the mesh does not know, as in `istioctl ztunnel-config`."""


def workload_rows(mesh: Mesh, enrolled: Collection[str]) -> list[dict[str, Any]]:
    """Return a row per workload, by namespace, name and node; `enrolled` are the pods of the daemon."""
    known = sorted(mesh.workloads, key=lambda each: (each.namespace, each.name, each.node))
    return [_workload(mesh, each) | {"enrolled": each.pod in enrolled} for each in known]


def service_rows(mesh: Mesh) -> list[dict[str, Any]]:
    """Return a row per service, by namespace and hostname."""
    return [_service(mesh, each) for each in sorted(mesh.services, key=lambda each: each.key)]


def policy_rows(mesh: Mesh) -> list[dict[str, Any]]:
    """Return a row per policy, by namespace and name."""
    selected: dict[str, int] = {}
    for workload in mesh.workloads:
        for policy in workload.authorization_policies:
            selected[policy] = selected.get(policy, 0) + 1
    known = sorted(mesh.policies, key=lambda each: each.key)
    return [_policy(each, selected.get(each.key, 0)) for each in known]


def endpoint_rows(mesh: Mesh, known: Mapping[int, Iterable[Known]]) -> list[dict[str, Any]]:
    """Return a row per worker and endpoint, or port of one, that it knows; first who is left out."""
    rows = [
        _endpoint(worker, workload, each)
        for worker, found in known.items()
        for each in found
        if (workload := mesh.by_uid(each.uid)) is not None
    ]
    return sorted(rows, key=lambda row: (-row["ejected_s"], row["endpoint"], row["port"] or 0, row["worker"]))


def _endpoint(worker: int, workload: Workload, known: Known) -> dict[str, Any]:
    standing = known.standing
    return {
        "endpoint": workload.pod,
        "services": list(workload.services),
        "port": known.port or None,
        "connections": standing.open,
        "failures": standing.failures,
        "ejected_s": round(standing.ejected_s, 1),
        "worker": worker,
        "uid": known.uid,
    }


def _workload(mesh: Mesh, item: Workload) -> dict[str, Any]:
    return {
        "namespace": item.namespace,
        "name": item.name,
        "address": list(item.workload_ips) or ([item.hostname] if item.hostname else []),
        "node": item.node,
        "waypoint": _name(mesh, item.waypoint),
        "protocol": item.protocol.value,
        "identity": str(item.identity),
        "uid": item.uid,
        "status": item.status.value,
        "network": item.network,
        "services": list(item.services),
        "policies": list(item.authorization_policies),
        "waypoint_address": _address(item.waypoint),
        "gateway_address": _address(item.network_gateway),
    }


def _service(mesh: Mesh, item: Service) -> dict[str, Any]:
    endpoints = mesh.endpoints(item.key)
    healthy = sum(each.status is Status.HEALTHY for each in endpoints)
    return {
        "namespace": item.namespace,
        "name": item.name,
        "hostname": item.hostname,
        "vip": [*(vip.ip for vip in item.vips), *(f"{cidr.ip}/{cidr.length}" for cidr in item.cidr_vips)],
        "waypoint": ",".join(_name(mesh, each) for each in _waypoints(item)),
        "endpoints": f"{healthy}/{len(endpoints)}",
        "ports": [f"{port}:{target}" for port, target in item.ports],
        "port_names": dict(item.port_names),
        "load_balancer": _balancer(item.load_balancer),
        "visibility": item.visibility.value,
        "canonical": item.canonical,
        "addresses": [*map(str, item.vips), *map(str, item.cidr_vips)],
        "waypoint_address": _waypoint_address(item),
        "subject_alt_names": list(item.subject_alt_names),
    }


def _policy(item: Authorization, workloads: int) -> dict[str, Any]:
    return {
        "namespace": item.namespace,
        "name": item.name,
        "action": item.action.value,
        "scope": item.scope.value,
        "dry_run": item.dry_run,
        "rules_count": len(item.rules),
        "selected_by": workloads if item.scope is PolicyScope.WORKLOAD_SELECTOR else None,
        "defect": item.defect,
        "rules": [_rule(rule) for rule in item.rules],
    }


def _rule(rule: Rule) -> list[list[dict[str, list[Any]]]]:
    return [[_match(match) for match in clause] for clause in rule]


def _match(match: Match) -> dict[str, list[Any]]:
    return {
        field: [each if isinstance(each, int) else str(each) for each in values]
        for field, values in match._asdict().items()
        if values
    }


def _balancer(item: LoadBalancer) -> str:
    """Return the mode and what is not as usual, in a few words."""
    scopes = "/".join(scope.value for scope in item.routing_preferences)
    words = [item.mode.value + (f" by {scopes}" if scopes and item.mode is not BalancerMode.STANDARD else "")]
    if item.session_affinity is not SessionAffinity.NONE:
        words.append(item.session_affinity.value)
    return ", ".join(words)


def _name(mesh: Mesh, waypoint: GatewayAddress | None) -> str:
    """Return the name of the service or workload that is the waypoint; nothing where there is none."""
    if waypoint is None:
        return ""
    found = leads_to(mesh, waypoint)
    return UNKNOWN if found is None else found.name


def _waypoints(item: Service) -> list[GatewayAddress]:
    weighted = [each.destination for each in item.weighted_waypoints]
    return weighted or ([] if item.waypoint is None else [item.waypoint])


def _address(where: GatewayAddress | None) -> str:
    return "" if where is None else str(where)


def _waypoint_address(item: Service) -> str:
    if item.weighted_waypoints:
        return ",".join(f"{each.destination} ({each.weight})" for each in item.weighted_waypoints)
    return _address(item.waypoint)
