"""The hand-over of the original destination from the client's socket to the accepted one."""

import socket

import pytest

from tests.support.netns import Namespace
from tests.support.straw import Arrival, Straw, dial, size_of
from zproxy.model.addr import Endpoint
from zproxy.steering.steering import Steering

pytestmark = pytest.mark.root


@pytest.mark.parametrize("ip", ["203.0.113.9", "2001:db8::9", "::ffff:203.0.113.9"])
def test_nothing_is_left_between_the_sockets(straw: Straw, pod: Namespace, ip: str) -> None:
    before = size_of("zp_tuple")
    with dial(pod, ip, 80), Arrival.take(straw.outbound).sock:
        assert size_of("zp_tuple") == before


def test_many_connections_each_keep_their_own_destination(straw: Straw, pod: Namespace) -> None:
    apps = [dial(pod, f"203.0.113.{number}", 8000 + number) for number in range(1, 41)]
    found = {}
    for _ in apps:
        arrival = Arrival.take(straw.outbound)
        found[arrival.peer.port] = arrival.original
        arrival.sock.close()
    assert found == {app.getsockname()[1]: Endpoint(*app.getpeername()) for app in apps}
    for app in apps:
        app.close()


def test_a_direct_dial_of_15001_has_no_original_destination(
    steering: Steering, straw: Straw, pod: Namespace
) -> None:
    before = steering.stats()["handover_missing"]
    with dial(pod, pod.ip4, 15001):
        arrival = Arrival.take(straw.outbound)
        arrival.sock.close()
    assert arrival.original is None
    assert steering.stats()["handover_missing"] == before + 1


def test_syn_cookies_do_not_lose_the_destination(straw: Straw, pod: Namespace) -> None:
    pod.sysctl("ipv4.tcp_syncookies", "2")
    for ip in ("203.0.113.9", "2001:db8::9"):
        with dial(pod, ip, 80):
            arrival = Arrival.take(straw.outbound)
            arrival.sock.close()
        assert arrival.original == Endpoint(ip, 80)


def test_a_connection_that_a_full_backlog_delays_keeps_its_destination(
    steering: Steering, straw: Straw, pod: Namespace
) -> None:
    straw.outbound.listen(1)
    apps = [pod.socket() for _ in range(4)]
    for number, app in enumerate(apps, start=1):
        app.setblocking(False)
        app.connect_ex(("203.0.113.9", number))
    ports = set()
    for _ in apps:
        arrival = Arrival.take(straw.outbound)
        assert arrival.original is not None
        ports.add(arrival.original.port)
        arrival.sock.close()
    for app in apps:
        app.close()
    assert ports == {1, 2, 3, 4}


def test_plain_tcp_of_the_machine_is_none_of_our_business(steering: Steering) -> None:
    before = steering.stats()
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as app,
    ):
        assert app.getpeername() == server.getsockname()
    assert steering.stats() == before
