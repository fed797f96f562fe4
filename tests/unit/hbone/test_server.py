"""The accepting end: who may come in."""

import socket
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.support.ca import CLIENT, SpiffeCa, shared_ca, spiffe
from tests.support.plane import Plane
from zproxy.model.conn import Direction
from zproxy.model.credentials import Credentials


def of_another_ca() -> Credentials:
    return SpiffeCa("other").credentials(CLIENT, roots=shared_ca().roots)


def of_another_trust_domain() -> Credentials:
    return shared_ca().credentials(spiffe("demo", "client", "elsewhere.example"))


def expired() -> Credentials:
    return shared_ca().expired(CLIENT)


def nameless() -> Credentials:
    return shared_ca().credentials()


@pytest.mark.parametrize(
    ("credentials", "sentence"),
    [
        (of_another_ca, "unknown"),
        (of_another_trust_domain, "of trust domain elsewhere.example; this pod accepts cluster.local"),
        (expired, "expired"),
        (nameless, "no SPIFFE identity"),
    ],
)
def test_a_client_that_may_not_come_in_reaches_no_app(
    credentials: Callable[[], Credentials], sentence: str
) -> None:
    with closing(Plane(client_credentials=credentials())) as plane:
        app = plane.serve()
        near = plane.dial()
        with pytest.raises(ConnectionResetError):
            plane.receive(near, 1)
        plane.wait(lambda: any(c.direction is Direction.INBOUND for c in plane.lines.ended_connections))
        record = next(c for c in plane.lines.ended_connections if c.direction is Direction.INBOUND)
        assert sentence in record.error
        assert record.peers is None
        plane.wait(lambda: not plane.server.tunnels)
        app.settimeout(0)
        with pytest.raises(BlockingIOError):
            app.accept()


def test_what_is_no_tls_is_refused_with_one_line() -> None:
    with closing(Plane()) as plane:
        stranger = socket.create_connection(("127.0.0.2", plane.hbone_port))
        stranger.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        record = plane.ended(1)[0]
        assert (record.direction, record.reason) == (Direction.INBOUND, "TLS_FAILURE")
        plane.wait(lambda: not plane.server.tunnels)
        stranger.close()


def test_a_silent_stranger_loses_its_place_at_the_deadline() -> None:
    with closing(Plane()) as plane:
        stranger = socket.create_connection(("127.0.0.2", plane.hbone_port))
        plane.wait(lambda: bool(plane.server.tunnels))
        plane.worker.poller.clock = lambda: plane.worker.poller.now + 11
        plane.worker.sweep()
        record = plane.ended(1)[0]
        assert "TLS and HTTP/2 handshake took longer than 10 s" in record.error
        assert not plane.server.tunnels
        stranger.close()
