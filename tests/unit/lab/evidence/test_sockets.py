"""Sockets of a namespace and their owners."""

import os
import socket

import pytest

from tests.support.netns import Namespace, pair
from zproxy.lab.evidence import sockets
from zproxy.model.addr import Endpoint

pytestmark = pytest.mark.root


def test_listeners_are_found_with_owner_and_not_outside_their_namespace() -> None:
    with pair() as (client, server), server.listen(15001) as listener, server.listen(15008, server.ip4):
        found = sockets.tcp_listeners(server.netns)
        assert [entry.local for entry in found] == [Endpoint("::", 15001), Endpoint(server.ip4, 15008)]
        assert [owner.pid for owner in found[0].owners] == [os.getpid()]
        assert found[0].owners[0].fd == listener.fileno()
        assert found[0].inode == os.fstat(listener.fileno()).st_ino
        assert sockets.tcp_listeners(client.netns) == ()


def test_connections_are_not_listeners() -> None:
    with pair() as (client, server), server.listen(8080), client.socket() as dialled:
        dialled.connect((server.ip4, 8080))
        assert [entry.local.port for entry in sockets.tcp_listeners(server.netns)] == [8080]
        assert sockets.tcp_listeners(client.netns) == ()


def test_udp_sockets_are_found_bound_or_connected() -> None:
    with (
        pair() as (client, server),
        _datagram(client, "127.0.0.1") as bound,
        _datagram(client, client.ip4) as connected,
    ):
        connected.connect((server.ip4, 53))
        found = {entry.local for entry in sockets.udp_sockets(client.netns)}
        assert found == {Endpoint(*bound.getsockname()), Endpoint(*connected.getsockname())}


def test_an_owner_reads_as_ss_writes_it() -> None:
    assert str(sockets.Owner(1029, "zproxy", 31)) == '("zproxy",pid=1029,fd=31)'


def _datagram(where: Namespace, ip: str) -> socket.socket:
    made = where.socket(kind=socket.SOCK_DGRAM)
    made.bind((ip, 0))
    return made
