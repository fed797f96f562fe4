"""The dialling end: whom it trusts, and that nobody else gets a byte."""

from collections.abc import Callable

import pytest

from tests.support.ca import SERVER, SpiffeCa, shared_ca, spiffe
from tests.support.plane import Plane
from zproxy.config import Deadlines
from zproxy.hbone.client import connect_error
from zproxy.hbone.tunnel import State
from zproxy.model.conn import Direction
from zproxy.model.credentials import Credentials


def of_another_ca() -> Credentials:
    return SpiffeCa("other").credentials(SERVER, roots=shared_ca().roots)


def of_another_identity() -> Credentials:
    return shared_ca().credentials(spiffe("demo", "billing"))


def expired() -> Credentials:
    return shared_ca().expired(SERVER)


def nameless() -> Credentials:
    return shared_ca().credentials()


@pytest.mark.parametrize(
    ("credentials", "sentence"),
    [
        (of_another_ca, "unknown"),
        (of_another_identity, "presented spiffe://cluster.local/ns/demo/sa/billing; expected spiffe://"),
        (expired, "expired"),
        (nameless, "no SPIFFE identity; expected"),
    ],
)
def test_a_server_that_is_not_the_expected_one_gets_no_stream(
    credentials: Callable[[], Credentials], sentence: str
) -> None:
    plane = Plane(server_credentials=credentials())
    app = plane.serve()
    near = plane.dial()
    near.sendall(b"secret")
    with pytest.raises(ConnectionResetError):
        plane.receive(near, 1)
    record = next(c for c in plane.ended(1) if c.direction is Direction.OUTBOUND)
    assert record.reason == "TLS_FAILURE"
    assert sentence in record.error
    assert (record.bytes_sent, record.bytes_recv) == (0, 0)
    assert list(plane.client.pool.tunnels()) == []
    app.settimeout(0)
    with pytest.raises(BlockingIOError):
        app.accept()
    plane.close()


def test_a_goaway_moves_new_streams_to_another_tunnel() -> None:
    plane = Plane()
    near, far = plane.pair(8080)
    first = next(iter(plane.client.pool.tunnels()))
    next(iter(plane.server.tunnels)).drain()
    plane.wait(lambda: first.wire.is_draining)
    again, again_far = plane.pair(8081)
    assert len(list(plane.client.pool.tunnels())) == 2
    for one, other in ((near, far), (again, again_far)):
        one.sendall(b"still here")
        assert plane.receive(other, 10) == b"still here"
    near.close()
    far.close()
    plane.wait(lambda: first.state is State.CLOSED)
    plane.close()


def test_an_idle_tunnel_is_closed_after_a_while() -> None:
    plane = Plane(deadlines=Deadlines(pool_idle_s=300))
    near, far = plane.pair()
    near.close()
    far.close()
    plane.ended(2)
    tunnel = next(iter(plane.client.pool.tunnels()))
    now = plane.worker.poller.clock()
    tunnel.on_tick(now + 299)
    assert tunnel.state.value == "open"
    tunnel.on_tick(now + 301)
    assert tunnel.state.value == "closed"
    plane.wait(lambda: not plane.server.tunnels)
    plane.close()


def test_errors_name_their_likely_cause() -> None:
    assert "nothing listens there" in connect_error("10.0.0.1:15008", 111)
    assert connect_error("10.0.0.1:15008", 5) == "connect to 10.0.0.1:15008 failed: Input/output error"
