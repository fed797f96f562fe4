"""Which workload a pod belongs to, found out as Istio does: from what its controller is called."""

import re
from collections.abc import Mapping
from sys import intern
from typing import Any, Final, NamedTuple

_OF_CRON_JOB: Final = re.compile(r"(.+)-\d{8,10}")
"""A CronJob's jobs: its name and the scheduled minute, or in older clusters the second, since 1970."""
_TYPES: Final = {"Deployment": "deployment", "Job": "job", "CronJob": "cronjob"}


class Owner(NamedTuple):
    """A workload's name and its type, in the words of ztunnel's local configuration."""

    name: str
    type: str


def owner_of(metadata: Mapping[str, Any]) -> Owner:
    """Return the workload of the pod with these metadata; a pod that nobody generated is its own."""
    labels, name = metadata.get("labels") or {}, metadata["name"]
    reference = next((each for each in metadata.get("ownerReferences") or () if each.get("controller")), None)
    kind = ""
    if reference is not None and metadata.get("generateName"):
        kind, name = _controller(reference["kind"], reference["name"], labels)
    return Owner(intern(labels.get("service.istio.io/workload-name") or name), _TYPES.get(kind, "pod"))


def _controller(kind: str, name: str, labels: Mapping[str, str]) -> tuple[str, str]:
    template = labels.get("pod-template-hash")
    rollout = labels.get("rollouts-pod-template-hash")
    config = labels.get("deploymentconfig")
    if kind == "ReplicaSet" and template and name.endswith(f"-{template}"):
        return "Deployment", name.removesuffix(f"-{template}")
    if kind == "ReplicaSet" and rollout and name.endswith(f"-{rollout}"):
        return "Rollout", name.removesuffix(f"-{rollout}")
    if kind == "ReplicationController" and config:
        return "DeploymentConfig", config
    scheduled = _OF_CRON_JOB.fullmatch(name) if kind == "Job" else None
    return ("CronJob", scheduled[1]) if scheduled else (kind, name)
