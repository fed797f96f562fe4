"""One node's steering for all hook tests: they differ in pods, not in programs."""

from collections.abc import Iterator

import pytest

from tests.support.netns import Namespace
from tests.support.straw import Straw, attached, node_steering
from zproxy.steering.steering import Steering


@pytest.fixture(scope="session")
def steering() -> Iterator[Steering]:
    with node_steering() as opened:
        yield opened


@pytest.fixture
def straw(steering: Steering, pod: Namespace) -> Iterator[Straw]:
    """The pod, enrolled."""
    with attached(steering, pod) as made:
        yield made
