"""One node's steering, and pods for it, for the tests that need the kernel."""

from collections.abc import Iterator

import pytest

from tests.support.netns import Namespace
from tests.support.straw import Straw, node_steering
from zproxy.steering.steering import Steering


@pytest.fixture(scope="session")
def steering() -> Iterator[Steering]:
    with node_steering("unit") as opened:
        yield opened


@pytest.fixture
def straw(pod: Namespace) -> Iterator[Straw]:
    """Listeners in the pod, which is not enrolled."""
    made = Straw(pod)
    yield made
    made.close()
