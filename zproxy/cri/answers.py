"""A runtime's answers as records of ours. Pure, but it loads protobuf, which sandbox.py does not.

The interface itself tells neither a pod's process nor its network namespace. Both stand in the JSON that
PodSandboxStatus adds when it is asked to be verbose: containerd since 1.0 and CRI-O since 1.18 put `pid` and
`runtimeSpec`, the OCI runtime's configuration, into it.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from zproxy.cri.sandbox import Brief, PodSandbox
from zproxy.proto import cri_pb2

MAX_INFO: Final = 4 << 20
"""Characters of a runtime's own JSON; real ones have some ten thousand."""


def brief(item: cri_pb2.PodSandbox | cri_pb2.PodSandboxStatus) -> Brief:
    """Return the record of an entry of ListPodSandbox, or of what PodSandboxStatus has in common with it."""
    of = item.metadata
    return Brief(
        item.id,
        of.namespace,
        of.name,
        of.uid,
        item.state == cri_pb2.SANDBOX_READY,
        item.created_at,
        item.runtime_handler,
    )


def sandbox(answer: cri_pb2.PodSandboxStatusResponse) -> PodSandbox:
    """Return the record of a verbose PodSandboxStatus; what is missing or odd in its JSON is left empty."""
    status = answer.status
    info = _info(answer.info)
    network = status.network
    ips = (network.ip, *(each.ip for each in network.additional_ips))
    pid = info.get("pid")
    return PodSandbox(
        brief=brief(status)._replace(runtime_handler=status.runtime_handler or _text(info, "runtimeHandler")),
        ips=tuple(ip for ip in ips if ip),
        is_host_network=status.linux.namespaces.options.network == cri_pb2.NODE,
        netns=_netns(info),
        pid=pid if isinstance(pid, int) and pid > 0 else None,
        cgroup_parent=_text(_part(_part(info, "config"), "linux"), "cgroup_parent"),
        runtime_type=_text(info, "runtimeType"),
        labels=dict(status.labels),
        annotations=dict(status.annotations),
    )


def _info(texts: Mapping[str, str]) -> dict[str, Any]:
    text = texts.get("info", "")
    if not text or len(text) > MAX_INFO:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _netns(info: Mapping[str, Any]) -> str:
    namespaces = _part(_part(info, "runtimeSpec"), "linux").get("namespaces")
    for each in namespaces if isinstance(namespaces, list) else ():
        if isinstance(each, dict) and each.get("type") == "network":
            path = _text(each, "path")
            return path if path.startswith("/") else ""
    return ""


def _part(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = value.get(key)
    return part if isinstance(part, dict) else {}


def _text(value: Mapping[str, Any], key: str) -> str:
    text = value.get(key)
    return text if isinstance(text, str) else ""
