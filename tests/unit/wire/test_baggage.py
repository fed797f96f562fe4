"""Labels that a peer tells of itself."""

import pytest

from tests.support.mesh import workload
from zproxy.model.identity import SpiffeId
from zproxy.wire.baggage import workload_of
from zproxy.wire.headers import baggage_text

ECHO = SpiffeId("cluster.local", "default", "echo")


def test_what_we_write_is_what_we_read() -> None:
    told = workload(
        "default/echo-1",
        service_account="echo",
        cluster_id="east",
        canonical_name="echo, the one",
        canonical_revision="v2",
        workload_name="echo",
        workload_type="deployment",
    )
    found = workload_of(baggage_text(told), ECHO)
    assert found is not None
    assert (found.name, found.namespace, found.identity) == ("echo", "default", told.identity)
    assert (found.cluster_id, found.canonical_name, found.canonical_revision) == (
        "east", "echo, the one", "v2",
    )  # fmt: skip
    assert (found.workload_name, found.workload_type) == ("echo", "deployment")


def test_the_namespace_is_that_of_the_proven_identity() -> None:
    found = workload_of("k8s.namespace.name=kube-system,k8s.pod.name=x", ECHO)
    assert found is not None
    assert found.namespace == "default"


def test_localities_are_taken() -> None:
    found = workload_of("k8s.pod.name=x,cloud.region=r1,cloud.availability_zone=z1", ECHO)
    assert found is not None
    assert found.locality[:2] == ("r1", "z1")


@pytest.mark.parametrize(
    "baggage",
    ["", "=", ",,;", "k8s.pod.name=", "k8s.pod.name=%0a", f"k8s.pod.name={'x' * 254}", "k8s.pod.name"],
)
def test_what_says_nothing_is_nobody(baggage: str) -> None:
    assert workload_of(baggage, ECHO) is None


def test_the_same_words_are_the_same_workload() -> None:
    assert workload_of("k8s.pod.name=x", ECHO) is workload_of("k8s.pod.name=x", ECHO)
