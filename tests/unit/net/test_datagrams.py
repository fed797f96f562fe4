"""Datagrams on loopback, where every address of 127.0.0.0/8 is local without being configured."""

import errno
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.netns import Namespace, namespace
from zproxy.model.addr import Endpoint
from zproxy.net import datagrams
from zproxy.net.sockets import SocketFactory


def receiver(family: socket.AddressFamily) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    datagrams.prepare(sock)
    sock.settimeout(5)
    sock.bind(("::" if family == socket.AF_INET6 else "", 0))
    return sock


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["v4", "dual-stack"])
def sock(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with closing(receiver(request.param)) as made:
        yield made


def test_a_datagram_tells_where_it_was_sent_and_is_answered_from_there(sock: socket.socket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.bind(("127.0.0.1", 0))
        client.sendto(b"query", ("127.9.9.9", sock.getsockname()[1]))
        got = datagrams.receive(sock, 100)
        assert got is not None
        assert (got.data, got.destination) == (b"query", "127.9.9.9")
        assert got.source == Endpoint("127.0.0.1", client.getsockname()[1])
        datagrams.answer(sock, b"answer", got)
        data, source = client.recvfrom(100)
        assert (data, source) == (b"answer", ("127.9.9.9", sock.getsockname()[1]))


def test_ipv6() -> None:
    sock = receiver(socket.AF_INET6)
    with closing(sock), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect(("::1", sock.getsockname()[1]))
        client.send(b"query")
        got = datagrams.receive(sock, 100)
        assert got is not None
        assert (got.source.ip, got.destination) == ("::1", "::1")
        datagrams.answer(sock, b"answer", got)
        assert client.recv(100) == b"answer"


def test_what_is_too_large_is_none(sock: socket.socket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"much too much", ("127.0.0.1", sock.getsockname()[1]))
        assert datagrams.receive(sock, 4) is None


def test_nothing_there(sock: socket.socket) -> None:
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        datagrams.receive(sock, 100)


@pytest.mark.root
def test_sockets_of_a_pod_for_datagrams() -> None:
    exempted: list[int] = []
    with namespace("datagrams") as pod:
        sockets = SocketFactory(pod.netns, exempted.append)
        pod.execute("ip", "addr", "add", "10.99.0.1/32", "dev", "lo")
        with closing(sockets.bind_datagrams(15053)) as server:
            assert server.getsockname()[1] == 15053
            with pytest.raises(OSError, match=rf"Errno {errno.EADDRINUSE}"):
                sockets.bind_datagrams(15053)
            with closing(sockets.dial_datagrams(Endpoint("10.99.0.1", 15053))) as client:
                assert exempted == [client.fileno()]
                client.send(b"query")
                server.setblocking(True)
                server.settimeout(5)
                got = datagrams.receive(server, 100)
                assert got is not None
                assert got.destination == "10.99.0.1"
            pod.execute("ss", "-K", "-u", "-a", "sport", "=", ":15053")  # whoever may, may destroy any socket
            with pytest.raises(OSError, match=rf"Errno {errno.ECONNABORTED}"):
                datagrams.receive(server, 100)
            with closing(sockets.dial_datagrams(Endpoint("10.99.0.1", 15053))) as client:
                client.send(b"once more")
                assert datagrams.receive(server, 100) is not None
        assert [sockets.is_own(ip) for ip in ("10.99.0.1", "127.0.0.1", "::1")] == [True, True, True]
        assert [sockets.is_own(ip) for ip in ("10.99.0.2", "192.0.2.1", "fd00::1")] == [False, False, False]


@pytest.mark.root
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_what_comes_from_outside_is_empty(
    hosts: tuple[Namespace, Namespace], family: socket.AddressFamily
) -> None:
    pod, peer = hosts
    to = pod.ip6 if family == socket.AF_INET6 else pod.ip4
    sockets = SocketFactory(pod.netns, lambda _: None)
    with closing(sockets.bind_datagrams(15053)) as server:
        server.settimeout(5)
        for host, expected in ((peer, b""), (pod, b"query")):
            with host.socket(family, socket.SOCK_DGRAM) as client:
                client.sendto(b"query", (to, 15053))
                got = datagrams.receive(server, 100)
                assert got is not None
                assert (got.data, got.destination) == (expected, to)
