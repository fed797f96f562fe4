"""What reaches a pod from outside, in the forms that Istio's rules capture: 15006, or a reset.

The plain ones are in test_zp_tc.py and test_zp_lookup.py; docs/equality.md has the whole table.
"""

import select
import socket
import struct

import pytest

from tests.support.netns import Namespace, batch
from tests.support.nodes import wait_for
from tests.support.straw import Arrival, Straw, attached, dial, size_of
from zproxy.model.addr import Endpoint
from zproxy.steering.steering import Steering

pytestmark = pytest.mark.root

FAMILIES = pytest.mark.parametrize("family", [4, 6])
NEAR, FAR = "fe80::77:1", "fe80::77:2"
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60
TCP = 6


def address(host: Namespace, family: int) -> str:
    return host.ip4 if family == 4 else host.ip6


def has_nothing(listener: socket.socket) -> bool:
    return not select.select([listener], [], [], 0)[0]


@FAMILIES
def test_listeners_that_share_a_port_are_never_met_from_outside(
    straw: Straw, pod: Namespace, peer: Namespace, family: int
) -> None:
    """An SO_REUSEPORT group chooses among its own sockets, and the straw's is in nobody's group."""
    group = [sharing_listener(pod, 8080) for _ in range(3)]
    for _ in range(20):
        with dial(peer, address(pod, family), 8080):
            Arrival.take(straw.plaintext).sock.close()
    assert all(has_nothing(listener) for listener in group)
    with dial(pod, address(pod, family), 8080):
        assert not all(has_nothing(listener) for listener in group), "the app reaches itself"
    for listener in group:
        listener.close()


def sharing_listener(pod: Namespace, port: int) -> socket.socket:
    listener = pod.socket(socket.AF_INET6)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(("::", port))
    listener.listen()
    return listener


@FAMILIES
@pytest.mark.parametrize("cookies", ["0", "1", "2"])
def test_a_reused_source_port_with_and_without_syn_cookies(
    straw: Straw, pod: Namespace, peer: Namespace, family: int, cookies: str
) -> None:
    pod.sysctl("ipv4.tcp_syncookies", cookies)
    with pod.listen(8080) as app:
        for _ in range(4):
            with peer.socket(socket.AF_INET if family == 4 else socket.AF_INET6) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                client.bind((address(peer, family), 40600))
                client.connect((address(pod, family), 8080))
                arrival = Arrival.take(straw.plaintext)
                arrival.sock.close()
                assert client.recv(1) == b""
            assert arrival.local == Endpoint(address(pod, family), 8080)
        assert has_nothing(app)


@FAMILIES
def test_an_app_that_takes_the_port_of_a_closed_straw_gets_nothing(
    straw: Straw, pod: Namespace, peer: Namespace, family: int
) -> None:
    """The daemon is gone and its port is free: the slot holds a socket, not a number."""
    straw.plaintext.close()
    with pod.listen(15006) as thief:
        for port in (8080, 15006):
            with pytest.raises(ConnectionRefusedError):
                dial(peer, address(pod, family), port)
        assert has_nothing(thief)


@pytest.fixture
def linked(pod: Namespace, peer: Namespace) -> int:
    """Both sides with a link-local address; returns the number of the peer's interface."""
    for side, ip in ((pod, NEAR), (peer, FAR)):
        batch(side.name, [f"addr add {ip}/64 dev eth0 nodad"])
    return peer.run(lambda: socket.if_nametoindex("eth0"))


def test_a_link_local_address_is_no_way_past_the_proxy(
    straw: Straw, pod: Namespace, peer: Namespace, linked: int
) -> None:
    noted = size_of("zp_in")
    with pod.listen(8080) as app, peer.socket(socket.AF_INET6) as client:
        with pytest.raises(ConnectionRefusedError):
            client.connect((NEAR, 8080, 0, linked))
        assert has_nothing(app)
    assert has_nothing(straw.plaintext)
    assert size_of("zp_in") == noted


def test_a_link_local_connection_from_before_enrolment_goes_on(
    steering: Steering, pod: Namespace, peer: Namespace, linked: int
) -> None:
    with pod.listen(8080) as app, peer.socket(socket.AF_INET6) as client:
        client.connect((NEAR, 8080, 0, linked))
        with Arrival.take(app).sock as server, attached(steering, pod):
            client.sendall(b"ping")
            assert server.recv(16) == b"ping"


@pytest.mark.parametrize(
    "headers",
    [
        (HOP_BY_HOP,),
        (DESTINATION, DESTINATION),
        (HOP_BY_HOP, DESTINATION),
        (FRAGMENT,),
        (HOP_BY_HOP, DESTINATION, FRAGMENT, DESTINATION),
    ],
)
def test_a_syn_behind_extension_headers_is_noted(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace, headers: tuple[int, ...]
) -> None:
    before = steering.stats()["inbound_recorded"]
    send6(peer, pod, chain(headers, syn(40610, 8080)), headers[0])
    steering_reaches(steering, "inbound_recorded", before + 1)


@pytest.mark.parametrize("size", [8, 13])
def test_an_ipv6_fragment_that_splits_the_tcp_header_is_dropped(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace, size: int
) -> None:
    before = steering.stats()["malformed"]
    first = struct.pack("!BBHI", TCP, 0, 1, 77)
    send6(peer, pod, first + syn(40611, 8080)[:size], FRAGMENT)
    steering_reaches(steering, "malformed", before + 1)


def syn(source: int, destination: int) -> bytes:
    """A bare SYN; its checksum is not looked at before the flow is noted."""
    return struct.pack("!HHIIBBHHH", source, destination, 1, 0, 5 << 4, 0x02, 1024, 0, 0)


def chain(headers: tuple[int, ...], payload: bytes) -> bytes:
    """Put eight bytes of each kind before `payload`: padding, or the header of a whole packet's fragment."""
    packet = b""
    for number, kind in enumerate(headers):
        following = headers[number + 1] if number + 1 < len(headers) else TCP
        packet += bytes(
            [following, 0, 0, 0, 0, 0, 0, 77] if kind == FRAGMENT else [following, 0, 1, 4, 0, 0, 0, 0]
        )
    return packet + payload


def send6(peer: Namespace, pod: Namespace, payload: bytes, next_header: int) -> None:
    """Send a whole IPv6 packet by hand."""
    addresses = (socket.inet_pton(socket.AF_INET6, ip) for ip in (peer.ip6, pod.ip6))
    header = struct.pack("!IHBB16s16s", 6 << 28, len(payload), next_header, 64, *addresses)
    with peer.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(header + payload, (pod.ip6, 0))


def steering_reaches(steering: Steering, reason: str, count: int) -> None:
    wait_for(lambda: steering.stats()[reason] == count, f"{reason} is {count}", 5)
