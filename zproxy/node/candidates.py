"""Pods of a runtime that are not enrolled, as `zproxy pods --all` shows them."""

from typing import Any, Final

from zproxy.cri.sandbox import PodSandbox, refusal
from zproxy.errors import EnrollError
from zproxy.node.manager import Manager

READY: Final = "ready"
"""It can be enrolled."""
ENDED: Final = "ended"
UNFIT: Final = "unfit"
"""It is such that it cannot be; the reason says why."""
UNKNOWN: Final = "unknown"
"""The mesh does not have it, or otherwise than it would have to."""


def row_of(found: PodSandbox, manager: Manager) -> dict[str, Any]:
    """Return the row of a pod that is not enrolled, with the keys of one that is as far as they are known."""
    state, reason = _judge(found, manager)
    return {
        "pod": found.pod,
        "namespace": found.brief.namespace,
        "name": found.brief.name,
        "node": manager.node,
        "ips": list(found.ips),
        "state": state,
        "reason": reason,
        "netns": {"path": found.netns},
        "cgroup": found.cgroup_parent,
        "sandbox": found.brief.id,
        "pod_uid": found.brief.uid,
    }


def _judge(found: PodSandbox, manager: Manager) -> tuple[str, str]:
    if sentence := refusal(found):
        is_over = not found.brief.is_ready and not found.is_host_network
        return (ENDED if is_over else UNFIT), sentence
    try:
        manager.check(found.pod)
    except EnrollError as error:
        return UNKNOWN, str(error)
    return READY, ""
