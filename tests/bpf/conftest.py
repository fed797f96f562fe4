"""One node's steering for all hook tests: they differ in pods, not in programs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bpf_maps import bpffs
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


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[Path]:
    """A bpffs of the test's own."""
    with bpffs(tmp_path / "bpffs") as mounted:
        yield mounted
