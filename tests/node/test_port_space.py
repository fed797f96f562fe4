"""All of a pod's connections lead to one address and port, so its source ports are all that it has."""

import errno
import itertools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from tests.support.netns import Namespace, pair
from tests.support.podstate import sysctls
from tests.support.straw import Straw, attached, node_steering, size_of
from zproxy.node.routes import PodNetwork
from zproxy.steering.steering import Steering

pytestmark = pytest.mark.root

MANY = 45_000
"""Well above the 28232 ports that a namespace has by default."""
FEW = 64


class Scene(NamedTuple):
    """A steered pod whose straw accepts, and its namespace prepared as enrolment does."""

    steering: Steering
    pod: Namespace
    straw: Straw

    def churn(self, count: int) -> None:
        """Make short connections in a row to many destinations; the app closes first."""
        for number in range(count):
            with socket.socket() as app:
                app.connect((f"203.0.113.{number % 250 + 1}", 1 + number % 60_000))
                proxy, _ = self.straw.outbound.accept()
            proxy.close()


@pytest.fixture(scope="module")
def steering() -> Iterator[Steering]:
    with node_steering("ports") as made:
        yield made


@contextmanager
def scene(steering: Steering, *, cured: bool = True) -> Iterator[Scene]:
    with pair("pod", "peer") as (pod, _), attached(steering, pod) as straw:
        if cured:
            PodNetwork(pod.netns).prepare()
        yield Scene(steering, pod, straw)


def test_45000_short_connections_in_a_row(steering: Steering) -> None:
    noted = size_of("zp_tuple", "ports")
    with scene(steering) as made:
        made.pod.run(lambda: made.churn(MANY))
    assert steering.stats()["handed_over"] >= MANY
    assert size_of("zp_tuple", "ports") == noted
    assert size_of("zp_conn", "ports") == 0


def test_without_enrolment_s_switch_the_ports_are_used_up(steering: Steering) -> None:
    """Each closed connection keeps its port for a minute. Shows that the test above can tell."""
    with scene(steering, cured=False) as made:
        assert "ipv4/tcp_tw_reuse = 2" in sysctls(made.pod)
        made.pod.sysctl("ipv4.ip_local_port_range", f"40000 {40000 + FEW - 1}")
        with pytest.raises(OSError, match=os.strerror(errno.EADDRNOTAVAIL)):
            made.pod.run(lambda: made.churn(2 * FEW))


def test_a_pod_has_as_many_connections_at_once_as_it_has_ports(steering: Steering) -> None:
    """What `zproxy doctor` says; whatever their destinations are."""
    with scene(steering) as made:
        made.pod.sysctl("ipv4.ip_local_port_range", f"40000 {40000 + FEW - 1}")
        apps = [made.pod.socket() for _ in range(FEW + 1)]
        results = [
            app.connect_ex((f"203.0.113.{n}", 80)) for n, app in zip(itertools.count(1), apps, strict=False)
        ]
        assert results == [0] * FEW + [errno.EADDRNOTAVAIL]
        for app in apps:
            app.close()
