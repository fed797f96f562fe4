"""Sockets under Istio's rules: every one of them carries the mark."""

import socket
from contextlib import closing

import pytest

from tests.support.netns import Namespace
from zproxy.model.addr import Endpoint
from zproxy.net.marked import PROXY_MARK, MarkedSockets, mark
from zproxy.net.sockets import SO_MARK

pytestmark = pytest.mark.root


def mark_of(sock: socket.socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, SO_MARK)


def test_every_socket_is_marked_and_what_is_accepted_too(pod: Namespace) -> None:
    sockets = MarkedSockets(pod.netns)
    to = Endpoint(pod.ip4, 15001)
    with closing(sockets.listen(15001, 8)) as listener, closing(sockets.bind_datagrams(15053)) as datagrams:
        with closing(sockets.dial(to)) as far, closing(sockets.dial_datagrams(to)) as ask:
            listener.settimeout(5)
            with listener.accept()[0] as accepted:
                assert sockets.original_destination(accepted) is None
                assert sockets.arrived_at(accepted) == to
                found = [mark_of(each) for each in (listener, datagrams, far, ask, accepted)]
        with closing(sockets.dial_app(to, pod.ip4)) as own, closing(sockets.dial_app(to, "10.9.9.9")) as app:
            found += [mark_of(own), mark_of(app)]
            assert app.getsockname()[0] == "10.9.9.9"
    assert found == [PROXY_MARK] * 7


def test_marking_leaves_the_descriptor_open() -> None:
    with socket.socket() as sock:
        mark(sock.fileno())
        assert mark_of(sock) == PROXY_MARK
