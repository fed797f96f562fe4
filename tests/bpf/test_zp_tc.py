"""Which packets the ingress program notes for the plaintext listener, and which it lets pass."""

import socket
import struct
import time

import pytest

from tests.support.netns import Namespace, pair
from tests.support.straw import Arrival, Straw, attached, dial, size_of
from zproxy.model.addr import Endpoint
from zproxy.steering.steering import Steering

pytestmark = pytest.mark.root

FAMILIES = pytest.mark.parametrize("family", [4, 6])
DESTINATION_OPTIONS = bytes([0, 0, 1, 4, 0, 0, 0, 0])
"""One IPv6 extension header of eight bytes that says nothing (PadN)."""


def address(host: Namespace, family: int) -> str:
    return host.ip4 if family == 4 else host.ip6


@FAMILIES
def test_traffic_from_outside_comes_to_15006_with_its_original_destination(
    straw: Straw, pod: Namespace, peer: Namespace, family: int
) -> None:
    noted = size_of("zp_in")
    with pod.listen(8080), dial(peer, address(pod, family), 8080) as client:
        arrival = Arrival.take(straw.plaintext)
        arrival.sock.close()
        assert arrival.local == Endpoint(address(pod, family), 8080)
        assert arrival.peer == Endpoint(address(peer, family), client.getsockname()[1])
    assert size_of("zp_in") == noted


def test_a_port_without_listener_is_captured_too(straw: Straw, pod: Namespace, peer: Namespace) -> None:
    with dial(peer, pod.ip4, 9):
        Arrival.take(straw.plaintext).sock.close()


@pytest.mark.parametrize("port", [15001, 15006])
def test_the_proxys_own_ports_cannot_be_dialled_from_outside(
    straw: Straw, pod: Namespace, peer: Namespace, port: int
) -> None:
    with dial(peer, pod.ip4, port):
        arrival = Arrival.take(straw.plaintext)
        arrival.sock.close()
    assert arrival.local == Endpoint(pod.ip4, port)


@FAMILIES
def test_hbone_passes(straw: Straw, pod: Namespace, peer: Namespace, family: int) -> None:
    with pod.listen(15008) as hbone, dial(peer, address(pod, family), 15008):
        Arrival.take(hbone).sock.close()


@FAMILIES
def test_an_app_reaches_itself(straw: Straw, pod: Namespace, family: int) -> None:
    with pod.listen(8080) as app, dial(pod, address(pod, family), 8080):
        Arrival.take(app).sock.close()


@FAMILIES
def test_a_connection_from_before_enrolment_goes_on(
    steering: Steering, pod: Namespace, peer: Namespace, family: int
) -> None:
    with (
        pod.listen(8080) as app,
        dial(peer, address(pod, family), 8080) as client,
        Arrival.take(app).sock as server,
        attached(steering, pod),
    ):
        client.sendall(b"ping")
        assert server.recv(16) == b"ping"
        server.sendall(b"pong")
        assert client.recv(16) == b"pong"


@FAMILIES
def test_replies_to_the_proxys_own_connections_pass(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace, family: int
) -> None:
    before = steering.stats()["inbound_recorded"]
    with peer.listen(15008) as far, pod.socket(socket.AF_INET if family == 4 else socket.AF_INET6) as near:
        steering.exempt(near.fileno())
        near.connect((address(peer, family), 15008))
        with Arrival.take(far).sock as accepted:
            accepted.sendall(b"reply")
            assert near.recv(16) == b"reply"
    assert steering.stats()["inbound_recorded"] == before


@FAMILIES
def test_a_reused_source_port_meets_the_proxy_again(
    straw: Straw, pod: Namespace, peer: Namespace, family: int
) -> None:
    """The proxy closes first, so its side is in TIME_WAIT, where a SYN finds the app by itself."""
    with pod.listen(8080):
        for _ in range(5):
            with peer.socket(socket.AF_INET if family == 4 else socket.AF_INET6) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                client.bind((address(peer, family), 40404))
                client.connect((address(pod, family), 8080))
                arrival = Arrival.take(straw.plaintext)
                arrival.sock.close()
                assert client.recv(1) == b""
            assert arrival.peer.port == 40404


@FAMILIES
def test_syn_cookies_meet_the_proxy(straw: Straw, pod: Namespace, peer: Namespace, family: int) -> None:
    pod.sysctl("ipv4.tcp_syncookies", "2")
    noted = size_of("zp_in")
    with pod.listen(8080):
        for _ in range(5):
            with dial(peer, address(pod, family), 8080):
                Arrival.take(straw.plaintext).sock.close()
    assert size_of("zp_in") == noted


def test_ip_options_are_no_way_past_the_proxy(straw: Straw, pod: Namespace, peer: Namespace) -> None:
    with pod.listen(8080), peer.socket() as client:
        client.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, bytes([1, 1, 1, 0]))
        client.connect((pod.ip4, 8080))
        Arrival.take(straw.plaintext).sock.close()


def test_extension_headers_are_no_way_past_the_proxy(straw: Straw, pod: Namespace, peer: Namespace) -> None:
    with pod.listen(8080), peer.socket(socket.AF_INET6) as client:
        client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, DESTINATION_OPTIONS)
        client.connect((pod.ip6, 8080))
        Arrival.take(straw.plaintext).sock.close()


@pytest.mark.parametrize("size", [8, 13])
def test_a_fragment_that_splits_the_tcp_header_is_dropped(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace, size: int
) -> None:
    """Put together again it would be a SYN that nobody noted."""
    before = steering.stats()["malformed"]
    send_fragment(peer, pod, segment(40405, 8080)[:size])
    wait_for(steering, "malformed", before + 1)


def test_a_synthetic_syn_is_noted(steering: Steering, straw: Straw, pod: Namespace, peer: Namespace) -> None:
    """What the fragment above would have been, in one piece: shows that the tests can tell."""
    before = steering.stats()["inbound_recorded"]
    send_fragment(peer, pod, segment(40406, 8080), more=False)
    wait_for(steering, "inbound_recorded", before + 1)


def test_more_extension_headers_than_we_walk_are_dropped(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace
) -> None:
    before = steering.stats()["malformed"]
    chained = bytes([60, 0, 1, 4, 0, 0, 0, 0]) * 9
    with peer.socket(socket.AF_INET6, socket.SOCK_RAW, 60) as raw:
        raw.sendto(chained + bytes([6, 0, 1, 4, 0, 0, 0, 0]) + segment(40407, 8080), (pod.ip6, 0))
    wait_for(steering, "malformed", before + 1)


def test_udp_and_icmp_pass(straw: Straw, pod: Namespace, peer: Namespace) -> None:
    with pod.socket(kind=socket.SOCK_DGRAM) as app, peer.socket(kind=socket.SOCK_DGRAM) as client:
        app.bind((pod.ip4, 5353))
        client.sendto(b"datagram", (pod.ip4, 5353))
        assert app.recv(64) == b"datagram"
    with peer.socket(kind=socket.SOCK_RAW, proto=socket.IPPROTO_ICMP) as echo:
        echo.sendto(bytes.fromhex("0800f7ff00000000"), (pod.ip4, 0))
        assert echo.recv(64)[20] == 0  # an echo reply


def test_forwarded_traffic_is_not_captured(steering: Steering, pod: Namespace, peer: Namespace) -> None:
    """An address that is not the pod's own is somebody else's, even if the pod carries its packets."""
    with attached(steering, pod, ips=(pod.ip6,)), pod.listen(8080) as app, dial(peer, pod.ip4, 8080):
        Arrival.take(app).sock.close()


def test_two_pods_of_a_node_have_their_own_listeners(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace
) -> None:
    with pair("second", "beside") as (second, beside), attached(steering, second) as other:
        with dial(beside, second.ip4, 80), dial(peer, pod.ip4, 80):
            one, two = Arrival.take(straw.plaintext), Arrival.take(other.plaintext)
            one.sock.close()
            two.sock.close()
        assert (one.local.ip, two.local.ip) == (pod.ip4, second.ip4)


def segment(source: int, destination: int) -> bytes:
    """A bare SYN; its checksum is not looked at before the flow is noted."""
    return struct.pack("!HHIIBBHHH", source, destination, 1, 0, 5 << 4, 0x02, 1024, 0, 0)


def send_fragment(peer: Namespace, pod: Namespace, payload: bytes, *, more: bool = True) -> None:
    """Send a first fragment by hand; the kernel fills in checksum and source."""
    flags = 0x2000 if more else 0
    addresses = socket.inet_aton(peer.ip4), socket.inet_aton(pod.ip4)
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 77, flags, 64, 6, 0, *addresses)
    with peer.socket(kind=socket.SOCK_RAW, proto=socket.IPPROTO_RAW) as raw:
        raw.sendto(header + payload, (pod.ip4, 0))


def wait_for(steering: Steering, reason: str, count: int) -> None:
    deadline = time.monotonic() + 5
    while steering.stats()[reason] != count:
        assert time.monotonic() < deadline, f"{reason} is {steering.stats()[reason]}, not {count}"
        time.sleep(0.005)
