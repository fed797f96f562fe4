"""The workload of a pod, from what its controller is called."""

from typing import Any

import pytest

from zproxy.kube.owner import Owner, owner_of


def metadata(kind: str = "", name: str = "", *, generated: bool = True, **labels: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": "web-x-y",
        "labels": {each.replace("_", "-"): v for each, v in labels.items()},
    }
    if kind:
        made["ownerReferences"] = [
            {"kind": "Node", "name": "other", "controller": False},
            {"kind": kind, "name": name, "controller": True},
        ]
    if generated:
        made["generateName"] = "web-"
    return made


@pytest.mark.parametrize(
    ("given", "owner"),
    [
        (metadata(), Owner("web-x-y", "pod")),
        (metadata("ReplicaSet", "web-5d4", pod_template_hash="5d4"), Owner("web", "deployment")),
        (metadata("ReplicaSet", "web-5d4"), Owner("web-5d4", "pod")),
        (metadata("ReplicaSet", "web-5d4", pod_template_hash="other"), Owner("web-5d4", "pod")),
        (metadata("ReplicaSet", "web-5d4", rollouts_pod_template_hash="5d4"), Owner("web", "pod")),
        (metadata("ReplicationController", "web-3", deploymentconfig="web"), Owner("web", "pod")),
        (metadata("StatefulSet", "db"), Owner("db", "pod")),
        (metadata("DaemonSet", "agent"), Owner("agent", "pod")),
        (metadata("Job", "migrate"), Owner("migrate", "job")),
        (metadata("Job", "report-28012345"), Owner("report", "cronjob")),
        (metadata("Job", "report-1234567"), Owner("report-1234567", "job")),
        (
            metadata("ReplicaSet", "web-5d4", generated=False, pod_template_hash="5d4"),
            Owner("web-x-y", "pod"),
        ),
    ],
)
def test_owners(given: dict[str, Any], owner: Owner) -> None:
    assert owner_of(given) == owner


def test_a_label_names_the_workload_otherwise() -> None:
    given = metadata("Job", "migrate") | {"labels": {"service.istio.io/workload-name": "nightly"}}
    assert owner_of(given) == Owner("nightly", "job")


def test_a_pod_without_labels() -> None:
    assert owner_of({"name": "alone", "labels": None, "ownerReferences": None}) == Owner("alone", "pod")
