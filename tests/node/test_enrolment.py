"""A running pod is enrolled, and nobody notices: no packet is lost, no connection breaks, none is refused."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bystander import traffic
from tests.support.fleet import Fleet, fleet
from tests.support.mesh import yaml_of
from tests.support.netns import PREFIX
from tests.support.nodes import Node, wait_for

pytestmark = pytest.mark.root

PODS = 3
FOLLOWING_MS = 50
"""What enrolment may take once the daemon has enrolled a pod: the best of several, on a busy machine."""


@pytest.fixture
def pods() -> Iterator[Fleet]:
    with fleet(PODS) as made:
        yield made


@pytest.fixture
def node(pods: Fleet, tmp_path: Path) -> Iterator[Node]:
    made = Node(f"{PREFIX}enrolment", tmp_path, tmp_path / "ca")
    made.config.write_text(yaml_of(*pods.workloads(made.name)))
    try:
        made.start()
        yield made
    finally:
        made.clean()


def enroll(node: Node, pods: Fleet, number: int) -> float:
    """Enrol a pod and return the milliseconds that the daemon took to answer."""
    began = time.monotonic()
    node.client.call("enroll", pod=f"demo/pod-{number}", netns=pods.pods[number].name)
    return (time.monotonic() - began) * 1e3


@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
def test_a_running_pod_loses_nothing_at_its_enrolment(node: Node, pods: Fleet, *, v6: bool) -> None:
    for number, pod in enumerate(pods.pods):
        before = steered(node)
        with traffic(pod, pods.peer, v6=v6) as running:
            enroll(node, pods, number)
            wait_for(lambda before=before: steered(node) > before + 40, "new connections are steered")  # type: ignore[misc]
            running.goes_on()
            running.end()


def test_the_pods_after_the_first_are_enrolled_at_once(node: Node, pods: Fleet) -> None:
    _, *following = [enroll(node, pods, number) for number in range(PODS)]
    assert min(following) < FOLLOWING_MS


def steered(node: Node) -> int:
    """Return how many connections have come to the daemon."""
    return int(node.client.call("status")["connections_opened_total"])
