"""Ways to connect that Istio's rules capture, one by one: each must arrive on 15001 with what was dialled.

The plain ones are in test_zp_sock.py; docs/equality.md has the whole table.
"""

import ctypes
import errno
import select
import socket
import struct

import pytest

from tests.support import io_uring
from tests.support.netns import Namespace
from tests.support.straw import Arrival, Straw, attached, dial, size_of
from zproxy.model.addr import Endpoint
from zproxy.steering.steering import Steering

pytestmark = pytest.mark.root

V4, V6, MAPPED = "203.0.113.9", "2001:db8::9", "::ffff:203.0.113.9"
EVERY_FORM = pytest.mark.parametrize(("ip", "original"), [(V4, V4), (V6, V6), (MAPPED, V4)])
TCP_FASTOPEN_CONNECT = 30
FASTOPEN_WITHOUT_COOKIE = "5"
"""net.ipv4.tcp_fastopen: client, and data in a first SYN (0x1 and 0x4)."""


def socket_for(pod: Namespace, ip: str) -> socket.socket:
    return pod.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)


def take(straw: Straw) -> Arrival:
    """Accept and close: its addresses are what is looked at."""
    arrival = Arrival.take(straw.outbound)
    arrival.sock.close()
    assert arrival.local.port == 15001
    return arrival


@EVERY_FORM
def test_a_non_blocking_connect(straw: Straw, pod: Namespace, ip: str, original: str) -> None:
    with socket_for(pod, ip) as app:
        app.setblocking(False)
        assert app.connect_ex((ip, 80)) == errno.EINPROGRESS
        assert select.select([], [app], [], 5)[1], "the handshake never ended"
        assert app.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert take(straw).original == Endpoint(original, 80)
        assert app.getpeername()[:2] == (ip, 80)


@pytest.mark.parametrize(
    ("bound", "ip"), [("OWN4", V4), ("OWN6", V6), ("127.0.0.1", V4), ("::1", V6), ("0.0.0.0", V4), ("::", V6)]
)
def test_a_socket_that_was_bound_first(straw: Straw, pod: Namespace, bound: str, ip: str) -> None:
    """Bound to loopback it would go nowhere without steering; steered it stays in the pod, so it arrives."""
    at = {"OWN4": pod.ip4, "OWN6": pod.ip6}.get(bound, bound)
    with socket_for(pod, ip) as app:
        app.bind((at, 40500))
        app.connect((ip, 80))
        arrival = take(straw)
    assert (arrival.peer.port, arrival.original) == (40500, Endpoint(ip, 80))


def test_a_mapped_socket_that_was_bound_first(straw: Straw, pod: Namespace) -> None:
    with socket_for(pod, MAPPED) as app:
        app.bind((f"::ffff:{pod.ip4}", 40501))
        app.connect((MAPPED, 80))
        assert take(straw).original == Endpoint(V4, 80)
        assert app.getpeername()[:2] == (MAPPED, 80)


@EVERY_FORM
def test_a_socket_bound_to_a_device(straw: Straw, pod: Namespace, ip: str, original: str) -> None:
    with socket_for(pod, ip) as app:
        app.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        app.connect((ip, 80))
        assert take(straw).original == Endpoint(original, 80)


@pytest.mark.parametrize("sysctl", ["1", FASTOPEN_WITHOUT_COOKIE])
@EVERY_FORM
def test_fast_open_by_a_flag_of_sendto(
    straw: Straw, pod: Namespace, ip: str, original: str, sysctl: str
) -> None:
    pod.sysctl("ipv4.tcp_fastopen", sysctl)
    with socket_for(pod, ip) as app:
        app.setblocking(True)  # a timeout makes it non-blocking, and then this only begins
        app.sendto(b"early", socket.MSG_FASTOPEN, (ip, 80))
        arrival = Arrival.take(straw.outbound)
        with arrival.sock:
            assert (arrival.original, arrival.sock.recv(64)) == (Endpoint(original, 80), b"early")


@pytest.mark.parametrize("sysctl", ["1", FASTOPEN_WITHOUT_COOKIE])
@EVERY_FORM
def test_fast_open_by_a_deferred_connect(
    straw: Straw, pod: Namespace, ip: str, original: str, sysctl: str
) -> None:
    """Where data may ride on the SYN, connect() only notes the address and the first write sends it."""
    pod.sysctl("ipv4.tcp_fastopen", sysctl)
    with socket_for(pod, ip) as app:
        app.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        app.setblocking(True)
        app.connect((ip, 80))
        app.sendall(b"early")
        arrival = Arrival.take(straw.outbound)
        with arrival.sock:
            assert (arrival.original, arrival.sock.recv(64)) == (Endpoint(original, 80), b"early")


@EVERY_FORM
def test_io_uring(straw: Straw, pod: Namespace, ip: str, original: str) -> None:
    with socket_for(pod, ip) as app:
        app.setblocking(True)
        io_uring.connect(app, ip, 80)
        assert take(straw).original == Endpoint(original, 80)
        assert app.getpeername()[:2] == (ip, 80)


def test_io_uring_meets_a_closed_15001(straw: Straw, pod: Namespace) -> None:
    straw.outbound.close()
    with pod.socket() as app:
        app.setblocking(True)
        with pytest.raises(ConnectionRefusedError):
            io_uring.connect(app, V4, 80)


@pytest.mark.parametrize(
    "again", [(V4, "198.51.100.7"), (V6, "2001:db8::a"), (MAPPED, "::ffff:198.51.100.7")]
)
def test_a_socket_that_dials_again_and_again(straw: Straw, pod: Namespace, again: tuple[str, str]) -> None:
    """Dissolved by AF_UNSPEC in between. (From mapped back to IPv6 the kernel itself does not come.)"""
    with socket_for(pod, again[0]) as app:
        for number, ip in enumerate(again * 2, start=80):
            app.connect((ip, number))
            assert take(straw).original == Endpoint(ip.removeprefix("::ffff:"), number)
            assert app.getpeername()[:2] == (ip, number)
            dissolve(app)


def test_a_refused_socket_may_dial_again(straw: Straw, pod: Namespace) -> None:
    straw.outbound.close()
    with pod.socket() as app:
        app.setblocking(True)  # with a timeout the kernel reports the refusal once more instead
        with pytest.raises(ConnectionRefusedError):
            app.connect((V4, 80))
        straw.outbound = pod.listen(15001)
        app.connect((V4, 81))
        assert take(straw).original == Endpoint(V4, 81)


@pytest.mark.parametrize("ip", [V4, V6, MAPPED])
def test_what_a_refused_connect_dialled_is_forgotten(straw: Straw, pod: Namespace, ip: str) -> None:
    before = size_of("zp_tuple")
    straw.outbound.close()
    for _ in range(5):
        with pytest.raises(ConnectionRefusedError):
            dial(pod, ip, 80)
    assert size_of("zp_tuple") == before


def test_what_a_given_up_connect_dialled_is_forgotten(straw: Straw, pod: Namespace) -> None:
    """The backlog is full and the app does not wait: its SYN is out, and nobody will take it."""
    before = size_of("zp_tuple")
    straw.outbound.listen(0)
    with dial(pod, V4, 79):
        for port in range(80, 85):
            with pod.socket() as app:
                app.setblocking(False)
                assert app.connect_ex((V4, port)) == errno.EINPROGRESS
        Arrival.take(straw.outbound).sock.close()
    assert size_of("zp_tuple") == before


def test_a_direct_dial_after_a_refused_connect_has_no_destination(straw: Straw, pod: Namespace) -> None:
    """From the same source port, to 15001: an entry that was left would name the former destination."""
    straw.outbound.close()
    with pod.socket() as app:
        app.bind((pod.ip4, 40502))
        with pytest.raises(ConnectionRefusedError):
            app.connect((V4, 80))
    straw.outbound = pod.listen(15001)
    with pod.socket() as app:
        app.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        app.bind((pod.ip4, 40502))
        app.connect((pod.ip4, 15001))
        assert take(straw).original is None


@pytest.mark.parametrize("family", [4, 6])
def test_a_connection_from_before_enrolment_keeps_its_peer(
    steering: Steering, pod: Namespace, peer: Namespace, family: int
) -> None:
    to = peer.ip4 if family == 4 else peer.ip6
    with peer.listen(9000) as server, dial(pod, to, 9000) as app, Arrival.take(server).sock as far:
        with attached(steering, pod):
            app.sendall(b"ping")
            assert far.recv(16) == b"ping"
            far.sendall(b"pong")
            assert app.recv(16) == b"pong"
            assert app.getpeername()[:2] == (to, 9000)
        assert app.getpeername()[:2] == (to, 9000)


def test_a_socket_from_before_enrolment_is_steered_when_it_dials(steering: Steering, pod: Namespace) -> None:
    with pod.socket() as app, attached(steering, pod) as straw:
        app.connect((V4, 80))
        assert take(straw).original == Endpoint(V4, 80)


def dissolve(sock: socket.socket) -> None:
    """connect(AF_UNSPEC), which Python has no word for."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.connect(sock.fileno(), struct.pack("=H14x", socket.AF_UNSPEC), 16) == 0
