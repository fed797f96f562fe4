"""A running pod is enrolled, and nobody notices: no packet is lost, no connection breaks, none is refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bystander import traffic
from tests.support.crowd import Crowd, crowd
from tests.support.nodes import wait_for

pytestmark = pytest.mark.root

PODS = 4
FOLLOWING_MS = 50
"""What enrolment may take once the daemon has enrolled a pod: the best of several, on a busy machine."""


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Crowd]:
    with crowd(PODS, tmp_path) as made:
        yield made


@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
def test_a_running_pod_loses_nothing_at_its_enrolment(pods: Crowd, *, v6: bool) -> None:
    for number, pod in enumerate(pods.fleet.pods):
        before = pods.steered()
        with traffic(pod, pods.fleet.peer, v6=v6) as running:
            pods.enroll(number)
            wait_for(lambda before=before: pods.steered() > before + 40, "new connections are steered")  # type: ignore[misc]
            running.goes_on()
            running.end()


def test_the_pods_after_the_first_are_enrolled_at_once(pods: Crowd) -> None:
    _, *following = [pods.enroll(number) for number in range(PODS)]
    assert min(following) < FOLLOWING_MS
