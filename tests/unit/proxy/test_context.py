"""What the connections of one pod share."""

from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from tests.support.ca import CLIENT, shared_ca
from tests.support.mesh import workload
from tests.support.plane import Plane
from zproxy.identity.certificate import Certificate
from zproxy.model.conn import Direction
from zproxy.model.identity import SpiffeId
from zproxy.proxy.context import PEERS_CACHED, TlsContexts
from zproxy.wire.tls import choose_engine

OUT = Direction.OUTBOUND


class Rotating:
    """A certificate source whose certificate the test renews."""

    def __init__(self) -> None:
        self.serial = 1

    def current(self) -> Certificate:
        now = datetime.now(UTC)
        return Certificate(SpiffeId.parse(CLIENT), shared_ca().credentials(CLIENT), self.serial, now, now)


def test_a_tls_context_lives_as_long_as_its_certificate() -> None:
    source: Any = Rotating()
    contexts = TlsContexts(choose_engine(), source)
    first = contexts.client()
    assert contexts.client() is first
    assert contexts.server() is contexts.server() is not first
    source.serial = 2
    assert contexts.client() is not first


def test_peers_are_resolved_once_and_bounded() -> None:
    with closing(Plane()) as plane:
        pod = plane.client
        known = pod.peers(OUT, pod.workload, None, 80)
        assert pod.peers(OUT, pod.workload, None, 81) is known
        assert pod.peers(Direction.INBOUND, pod.workload, None, 80) is not known
        for number in range(PEERS_CACHED):
            other = workload(f"demo/p{number}", f"10.9.{number >> 8}.{number & 255}")
            pod.peers(OUT, pod.workload, other, 80)
        assert pod.peers(OUT, pod.workload, None, 80) is not known


def test_a_changed_workload_is_not_shown_with_its_old_fields() -> None:
    with closing(Plane()) as plane:
        old = workload("demo/x", "10.0.0.9")
        new = workload("demo/x", "10.0.0.9", canonical_name="renamed")
        first = plane.client.peers(OUT, old, None, 80)
        second = plane.client.peers(OUT, new, None, 80)
        assert first is not second
        assert second.source is new
