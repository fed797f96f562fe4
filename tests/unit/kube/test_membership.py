"""Labels and what stands against them."""

from typing import Any

import pytest

from tests.support.kubeobjects import kube_pod
from zproxy.kube.membership import membership
from zproxy.kube.objects import Namespace, read_pod


@pytest.mark.parametrize("of_namespace", ["", "ambient", "none", "odd"])
@pytest.mark.parametrize("of_pod", ["", "ambient", "none", "odd"])
def test_the_label_of_the_pod_counts_before_that_of_its_namespace(of_pod: str, of_namespace: str) -> None:
    labels = {"istio.io/dataplane-mode": of_pod} if of_pod else {}
    pod = read_pod(kube_pod("demo/web", "10.0.0.1", labels=labels))
    wanted = (of_pod or of_namespace) == "ambient"
    found = membership(pod, Namespace(of_namespace, ""))
    assert found.is_wanted is wanted
    assert ("label" in found.why) or not wanted


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"hostNetwork": True}, "node's network"),
        ({"annotations": {"sidecar.istio.io/status": "{}"}}, "sidecar"),
        ({"phase": "Succeeded"}, "ended"),
    ],
)
def test_what_keeps_a_labelled_pod_out(more: dict[str, Any], why: str) -> None:
    pod = read_pod(kube_pod("demo/web", "10.0.0.1", **more))
    found = membership(pod, Namespace("ambient", ""))
    assert not found.is_wanted
    assert why in found.why


def test_without_its_namespace_a_pod_without_a_label_is_out() -> None:
    assert not membership(read_pod(kube_pod("demo/web"))).is_wanted
