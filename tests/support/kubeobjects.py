"""Objects of Kubernetes as its API server tells them, with what tests say about them."""

from typing import Any

Object = dict[str, Any]


def kube_pod(
    key: str, *ips: str, uid: str = "", node: str = "node-a", ready: bool = True, **more: Any
) -> Object:
    """A running pod `namespace/name`.

    `more` are `labels`, `annotations`, and keys of its spec; `phase` is its status's.
    """
    namespace, _, name = key.partition("/")
    metadata: Object = {"name": name, "namespace": namespace, "uid": uid or f"uid-of-{name}"}
    for each in ("labels", "annotations", "ownerReferences", "generateName", "deletionTimestamp"):
        if each in more:
            metadata[each] = more.pop(each)
    phase = more.pop("phase", "Running")
    return {
        "metadata": metadata,
        "spec": {"nodeName": node, "serviceAccountName": "default", "containers": [], **more},
        "status": {
            "phase": phase,
            "podIP": ips[0] if ips else None,
            "podIPs": [{"ip": ip} for ip in ips],
            "conditions": [
                {"type": "Initialized", "status": "True"},
                {"type": "Ready", "status": "True" if ready else "False"},
            ],
        },
    }


def kube_namespace(name: str, mode: str = "", **annotations: str) -> Object:
    """A namespace, labelled with a mode of the data plane if one is given."""
    labels = {"istio.io/dataplane-mode": mode} if mode else {}
    return {"metadata": {"name": name, "labels": labels, "annotations": annotations}}


def kube_service(
    key: str, *ips: str, ports: dict[str, tuple[int, int | str]] | None = None, **spec: Any
) -> Object:
    """A service `namespace/name`; `ports` are port and target by name."""
    namespace, _, name = key.partition("/")
    annotations = spec.pop("annotations", {})
    listed = [
        {"name": port_name, "port": port, "targetPort": target, "protocol": "TCP"}
        for port_name, (port, target) in (ports or {"http": (80, 8080)}).items()
    ]
    return {
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": ips[0] if ips else "None",
            "clusterIPs": list(ips) or ["None"],
            "ports": listed,
            **spec,
        },
    }


def kube_slice(
    key: str, service: str, endpoints: list[Object], ports: dict[str, int] | None = None, family: str = "IPv4"
) -> Object:
    """A slice `namespace/name` of a service; `endpoints` are made by `endpoint`."""
    namespace, _, name = key.partition("/")
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service} if service else {},
        },
        "addressType": family,
        "ports": [
            {"name": port_name, "port": port, "protocol": "TCP"}
            for port_name, port in (ports or {"http": 8080}).items()
        ],
        "endpoints": endpoints,
    }


def kube_endpoint(ip: str, pod: str = "", *, ready: bool | None = True) -> Object:
    """An endpoint of a slice; `pod` is the name of one."""
    target = {"targetRef": {"kind": "Pod", "name": pod}} if pod else {}
    conditions = {} if ready is None else {"ready": ready}
    return {"addresses": [ip], "conditions": conditions, **target}
