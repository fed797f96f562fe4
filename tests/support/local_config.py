"""The local configuration that describes records: one line of JSON for each, which is YAML too."""

import json
from typing import Any

from zproxy.model.policy import Authorization, Match, ServiceAccountMatch, StringKind, StringMatch
from zproxy.model.service import GatewayAddress, LoadBalancer, Service
from zproxy.model.workload import Workload


def yaml_of(*records: Workload | Service | Authorization) -> str:
    """The file that `records` would be read from, in their order; what is default is left out."""
    lists = {
        "workloads": [_workload(each) for each in records if isinstance(each, Workload)],
        "services": [_service(each) for each in records if isinstance(each, Service)],
        "policies": [_policy(each) for each in records if isinstance(each, Authorization)],
    }
    lines = []
    for key, entries in lists.items():
        lines.append(f"{key}:" if entries else f"{key}: []")
        lines += [f"- {json.dumps(_given(each))}" for each in entries]
    return "\n".join(lines) + "\n"


def _given(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if value}


def _workload(item: Workload) -> dict[str, Any]:
    ports: dict[str, dict[str, int]] = {service: {} for service in item.services}
    for entry in item.service_ports:
        ports[entry.service][str(entry.port)] = entry.target_port
    tunnel = item.application_tunnel
    return {
        "uid": item.uid,
        "name": item.name,
        "namespace": item.namespace,
        "serviceAccount": item.service_account,
        "trustDomain": item.trust_domain,
        "workloadIps": list(item.workload_ips),
        "protocol": item.protocol.value,
        "node": item.node,
        "network": item.network,
        "clusterId": item.cluster_id,
        "canonicalName": item.canonical_name,
        "canonicalRevision": item.canonical_revision,
        "workloadName": item.workload_name,
        "workloadType": item.workload_type,
        "status": item.status.value,
        "services": ports,
        "locality": item.locality._asdict() if any(item.locality) else {},
        "hostname": item.hostname,
        "networkMode": item.network_mode.value,
        "waypoint": _gateway(item.waypoint),
        "networkGateway": _gateway(item.network_gateway),
        "applicationTunnel": tunnel
        and {"protocol": tunnel.protocol.value} | ({"port": tunnel.port} if tunnel.port else {}),
        "authorizationPolicies": list(item.authorization_policies),
        "nativeTunnel": item.native_tunnel,
    } | ({} if item.capacity == 1 else {"capacity": _Shown(item.capacity)})


class _Shown(int):
    """A number that is written although it is 0."""

    def __bool__(self) -> bool:
        return True


def _service(item: Service) -> dict[str, Any]:
    return {
        "name": item.name,
        "namespace": item.namespace,
        "hostname": item.hostname,
        "vips": [str(vip) for vip in (*item.vips, *item.cidr_vips)],
        "ports": {str(port): target for port, target in item.ports},
        "subjectAltNames": list(item.subject_alt_names),
        "waypoint": _gateway(item.waypoint),
        "weightedWaypoints": [
            {"destination": _gateway(each.destination), "weight": each.weight}
            for each in item.weighted_waypoints
        ],
        "loadBalancer": _balancer(item.load_balancer),
        "ipFamilies": item.ip_families.value,
        "canonical": item.canonical,
        "visibility": item.visibility.value,
        "portNames": dict(item.port_names),
    }


def _balancer(item: LoadBalancer) -> dict[str, Any]:
    return {
        "routingPreferences": [scope.value for scope in item.routing_preferences],
        "mode": item.mode.value,
        "healthPolicy": item.health_policy.value,
        "sessionAffinity": item.session_affinity.value,
    }


def _gateway(item: GatewayAddress | None) -> dict[str, Any] | None:
    return item and {"destination": str(item.destination), "hboneMtlsPort": item.hbone_mtls_port}


def _policy(item: Authorization) -> dict[str, Any]:
    return {
        "name": item.name,
        "namespace": item.namespace,
        "scope": item.scope.value,
        "action": item.action.value,
        "rules": [[[_match(match) for match in clause] for clause in rule] for rule in item.rules],
        "dryRun": item.dry_run,
    }


def _match(item: Match) -> dict[str, list[Any]]:
    found = {}
    for name, values in item._asdict().items():
        head, *rest = name.split("_")
        if values:
            found[head + "".join(word.capitalize() for word in rest)] = [_condition(each) for each in values]
    return found


def _condition(value: object) -> object:
    if isinstance(value, StringMatch):
        return {value.kind.value: [] if value.kind is StringKind.PRESENCE else value.value}
    if isinstance(value, ServiceAccountMatch):
        return {"namespace": value.namespace, "serviceAccount": value.service_account}
    return value if isinstance(value, int) else str(value)
