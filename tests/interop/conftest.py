"""Both directions, made once for a module; tests differ in their Envoy, which starts in 50 ms."""

import itertools
from collections.abc import Iterator

import pytest

from tests.support.interop import Way, way

_ports = itertools.count(7300)


@pytest.fixture(scope="module")
def outward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    """zproxy's client meets Envoy's server."""
    with way(tmp_path_factory.mktemp("outward"), is_outward=True) as made:
        yield made


@pytest.fixture(scope="module")
def inward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    """Envoy's client meets zproxy's server."""
    with way(tmp_path_factory.mktemp("inward"), is_outward=False) as made:
        yield made


@pytest.fixture(params=["outward", "inward"])
def either(request: pytest.FixtureRequest) -> Way:
    """Each direction in turn."""
    made: Way = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def port() -> int:
    """A port of the server pod that no other test uses, so that its log lines are this test's."""
    return next(_ports)
