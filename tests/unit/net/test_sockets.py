"""Sockets of a straw."""

import errno
import os
import select
import socket
from typing import Any

import pytest

from tests.support.netns import Namespace, namespace, pair
from zproxy.model.addr import Endpoint
from zproxy.net.netns import Netns
from zproxy.net.sockets import SocketFactory, close_with_reset, connect_progress, peer_of, tune, tune_tunnel

pytestmark = pytest.mark.root


def finished(sock: socket.socket) -> int:
    """Wait until a connect is over and return its errno."""
    assert select.select([], [sock], [], 5)[1]
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def factory(pod: Namespace, exempted: list[int] | None = None) -> SocketFactory:
    return SocketFactory(pod.netns, (exempted if exempted is not None else []).append)


@pytest.mark.parametrize("family", ["ip4", "ip6"])
def test_what_it_dials_leaves_from_the_pods_address_and_is_exempt(family: str) -> None:
    with pair() as (client, server):
        exempted: list[int] = []
        listener = factory(server).listen(8080, 16)
        sock = factory(client, exempted).dial(Endpoint(getattr(server, family), 8080))
        assert exempted == [sock.fileno()]
        assert finished(sock) == 0
        listener.setblocking(True)
        accepted, address = listener.accept()
        assert peer_of(address).ip == getattr(client, family)
        assert not sock.getblocking()
        for opened in (sock, accepted, listener):
            opened.close()


@pytest.mark.parametrize("family", ["ip4", "ip6"])
def test_the_app_is_dialled_from_a_borrowed_address_with_a_mark_and_no_exemption(family: str) -> None:
    with pair() as (client, server):
        exempted: list[int] = []
        borrowed = getattr(client, family)
        sock = factory(server, exempted).dial_app(Endpoint(getattr(server, family), 1), borrowed)
        assert sock.getsockname()[0] == borrowed
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 0x111
        assert exempted == []
        sock.close()


def test_a_pod_that_calls_itself_borrows_nothing() -> None:
    with pair() as (_, server):
        sock = factory(server).dial_app(Endpoint(server.ip4, 1), server.ip4)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 0
        sock.close()


def test_a_taken_port_is_refused() -> None:
    with pair() as (client, _):
        first = factory(client).listen(15001, 16)
        with pytest.raises(OSError, match="Address already in use"):
            factory(client).listen(15001, 16)
        first.close()


def test_an_unreachable_address_fails_at_once_and_leaks_nothing() -> None:
    with pair(v6=False) as (client, _), pytest.raises(OSError, match="connect"):
        factory(client).dial(Endpoint("fd99::1", 80))


def test_no_original_destination_without_steering() -> None:
    with pair() as (client, _):
        sock = client.socket()
        assert factory(client).original_destination(sock) is None
        sock.close()


def test_tuning_is_visible() -> None:
    with socket.socket() as sock:
        tune(sock)
        tune_tunnel(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 9
        assert sock.getsockopt(socket.IPPROTO_TCP, 25) == 128 << 10


def test_closing_with_reset_is_seen_as_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
        close_with_reset(far)
        with near, pytest.raises(ConnectionResetError):
            near.recv(1)


def test_a_pod_whose_ipv6_is_disabled_listens_for_ipv4() -> None:
    with pair(v6=False) as (client, server):
        server.sysctl("ipv6.conf.all.disable_ipv6", "1")
        with factory(server).listen(15001, 16) as listener, client.socket() as sock:
            sock.connect((server.ip4, 15001))
            listener.setblocking(True)
            accepted, address = listener.accept()
            accepted.close()
            assert peer_of(address).ip == client.ip4


def test_a_kernel_without_ipv6_listens_for_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def without_v6(family: int = -1, *more: Any, **rest: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return real(family, *more, **rest)

    with namespace() as pod:
        monkeypatch.setattr(socket, "socket", without_v6)
        with factory(pod).listen(15001, 16) as listener:
            monkeypatch.undo()
            assert (listener.family, listener.getsockname()) == (socket.AF_INET, ("0.0.0.0", 15001))


class Steered:
    """A socket whose SO_ORIGINAL_DST answers as our program does, at one level only."""

    def __init__(self, level: int, raw: bytes) -> None:
        self._level, self._raw = level, raw

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        if (level, option, size) != (self._level, 80, len(self._raw)):
            raise OSError(92, "Protocol not available")
        return self._raw


@pytest.mark.parametrize(
    ("level", "raw", "expected"),
    [
        (socket.SOL_IP, "0200 1f90 0af40205 0000000000000000", Endpoint("10.244.2.5", 8080)),
        (
            socket.IPPROTO_IPV6,
            f"0a00 1f90 00000000 {0xFD << 120 | 5:032x} 00000000",
            Endpoint("fd00::5", 8080),
        ),
        (
            socket.IPPROTO_IPV6,
            f"0a00 1f90 00000000 {0xFFFF0AF40205:032x} 00000000",
            Endpoint("10.244.2.5", 8080),
        ),
    ],
    ids=["v4", "v6", "v4 mapped"],
)
def test_an_original_destination_is_read_in_either_family(level: int, raw: str, expected: Endpoint) -> None:
    steered: Any = Steered(level, bytes.fromhex(raw))
    with Netns.current() as here:
        assert SocketFactory(here, lambda fd: None).original_destination(steered) == expected


def test_the_progress_of_a_connect() -> None:
    with pair() as (client, server):
        listener = factory(server).listen(8080, 16)
        up = factory(server).dial_app(Endpoint(server.ip4, 8080), server.ip4)
        assert connect_progress(up, Endpoint(server.ip4, 8080)) == 0
        assert connect_progress(up, Endpoint(server.ip4, 8080)) == 0
        refused = factory(server).dial_app(Endpoint(server.ip4, 1), server.ip4)
        assert connect_progress(refused, Endpoint(server.ip4, 1)) == errno.ECONNREFUSED
        nowhere = client.ip4.rpartition(".")[0] + ".77"  # an address of the link that nobody has
        waiting = factory(client).dial(Endpoint(nowhere, 80))
        assert connect_progress(waiting, Endpoint(nowhere, 80)) == errno.EINPROGRESS
        for opened in (listener, up, refused, waiting):
            opened.close()
