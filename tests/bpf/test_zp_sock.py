"""connect4/6, getpeername4/6 and sock_release on the real kernel: who is steered, and what the app sees."""

import ctypes
import errno
import json
import socket
import struct
import subprocess
import sys

import pytest

from tests.support.netns import Namespace, namespace, pair
from tests.support.straw import Arrival, Straw, attached, dial
from zproxy.model.addr import Endpoint
from zproxy.steering.steering import Steering

pytestmark = pytest.mark.root

V4, V6, MAPPED = "203.0.113.9", "2001:db8::9", "::ffff:203.0.113.9"
SO_MARK = 36
IPPROTO_MPTCP = 262
ISTIO_MARK = 0x539

DIAL = """
import json, socket, sys
family, kind, mark, ip, port = json.loads(sys.argv[1])
sock = socket.socket(family, kind)
if mark:
    sock.setsockopt(socket.SOL_SOCKET, 36, mark)
sock.settimeout(5)
sock.connect((ip, port))
print(json.dumps(sock.getpeername()[:2]))
"""


def dialled_by_child(pod: Namespace, *prefix: str, mark: int = 0, ip: str = V4) -> Endpoint:
    """Let another process of the pod's namespace dial; return what its getpeername() says."""
    what = json.dumps([socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM, mark, ip, 80])
    return Endpoint(*json.loads(pod.execute(*prefix, sys.executable, "-c", DIAL, what).stdout))


@pytest.mark.parametrize(("ip", "original"), [(V4, V4), (V6, V6), (MAPPED, V4)])
def test_a_connect_arrives_on_15001_with_its_original_destination(
    straw: Straw, pod: Namespace, ip: str, original: str
) -> None:
    own = pod.ip6 if ":" in original else pod.ip4
    with dial(pod, ip, 80) as app:
        arrival = Arrival.take(straw.outbound)
        with arrival.sock:
            assert arrival.original == Endpoint(original, 80)
            assert arrival.local == Endpoint(own, 15001)
            assert arrival.peer == Endpoint(own, app.getsockname()[1])


@pytest.mark.parametrize("ip", [V4, V6, MAPPED])
def test_getpeername_is_what_the_app_dialled(straw: Straw, pod: Namespace, ip: str) -> None:
    with dial(pod, ip, 443) as app:
        assert app.getpeername()[:2] == (ip, 443)


def test_bytes_travel_both_ways(straw: Straw, pod: Namespace) -> None:
    with dial(pod, V4, 80) as app, Arrival.take(straw.outbound).sock as proxy:
        app.sendall(b"request")
        assert proxy.recv(64) == b"request"
        proxy.sendall(b"reply")
        assert app.recv(64) == b"reply"


def test_accept_on_a_servers_socket_shows_the_real_peer(straw: Straw, pod: Namespace) -> None:
    with pod.listen(8080) as server, dial(pod, pod.ip4, 8080) as app, Arrival.take(server).sock as accepted:
        assert accepted.getpeername()[:2] == (f"::ffff:{pod.ip4}", app.getsockname()[1])


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_socket_of_the_proxy_is_not_steered(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace, family: int
) -> None:
    to = peer.ip4 if family == socket.AF_INET else peer.ip6
    before = steering.stats()["exempt_self"]
    with peer.listen(9000) as server, pod.socket(family) as sock:
        steering.exempt(sock.fileno())
        sock.connect((to, 9000))
        with Arrival.take(server).sock:
            assert sock.getpeername()[:2] == (to, 9000)
    assert steering.stats()["exempt_self"] == before + 1


def test_a_mark_exempts_nobody(straw: Straw, pod: Namespace) -> None:
    """CAP_NET_RAW alone, which containers have by default, may set SO_MARK since Linux 5.17."""
    only_net_raw = [
        "setpriv",
        "--reuid=65534",
        "--clear-groups",
        "--inh-caps=-all,+net_raw",
        "--ambient-caps=-all,+net_raw",
        "--bounding-set=-all,+net_raw",
    ]
    assert dialled_by_child(pod, *only_net_raw, mark=ISTIO_MARK) == Endpoint(V4, 80)
    with Arrival.take(straw.outbound).sock as accepted:
        assert accepted.getsockname()[1] == 15001


@pytest.mark.parametrize("ip", [V4, V6])
def test_a_process_that_entered_the_namespace_is_steered(straw: Straw, pod: Namespace, ip: str) -> None:
    assert dialled_by_child(pod, ip=ip) == Endpoint(ip, 80)
    arrival = Arrival.take(straw.outbound)
    arrival.sock.close()
    assert arrival.original == Endpoint(ip, 80)


@pytest.mark.parametrize(
    ("ip", "reason"),
    [
        ("127.0.0.1", "exempt_loopback"),
        ("127.7.7.7", "exempt_loopback"),
        ("::ffff:127.0.0.1", "exempt_loopback"),
        ("::1", "exempt_loopback"),
        ("0.0.0.0", "exempt_unspecified"),
        ("::", "exempt_unspecified"),
        ("OWN4", "exempt_own_ip"),
        ("OWN6", "exempt_own_ip"),
        ("MAPPED_OWN4", "exempt_own_ip"),
    ],
)
def test_what_stays_in_the_pod_is_not_steered(
    steering: Steering, straw: Straw, pod: Namespace, ip: str, reason: str
) -> None:
    own = {"OWN4": pod.ip4, "OWN6": pod.ip6, "MAPPED_OWN4": f"::ffff:{pod.ip4}"}
    before = steering.stats()[reason]
    with pod.listen(8080) as server, dial(pod, own.get(ip, ip), 8080):
        arrival = Arrival.take(server)
        arrival.sock.close()
        assert arrival.local.port == 8080
    assert steering.stats()[reason] == before + 1


@pytest.mark.parametrize(
    ("ip", "reason"),
    [
        ("224.0.0.9", "exempt_multicast"),
        ("255.255.255.255", "exempt_multicast"),
        ("ff02::9", "exempt_multicast"),
        ("169.254.7.127", "exempt_probe"),
        ("fd16:9254:7127:1337:ffff:ffff:ffff:ffff", "exempt_probe"),
    ],
)
def test_what_is_no_mesh_destination_is_left_to_the_kernel(
    steering: Steering, straw: Straw, pod: Namespace, ip: str, reason: str
) -> None:
    before = steering.stats()[reason]
    with pod.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as sock:
        sock.setblocking(False)
        result = sock.connect_ex((ip, 80))
    assert result != 0
    assert steering.stats()[reason] == before + 1


@pytest.mark.parametrize("ip", ["169.254.169.254", "240.0.0.1", "fe80::9", "::9"])
def test_unusual_unicast_destinations_are_steered(straw: Straw, pod: Namespace, ip: str) -> None:
    with dial(pod, ip, 80), Arrival.take(straw.outbound).sock as accepted:
        assert accepted.getsockname()[1] == 15001


def test_another_namespace_is_not_steered(straw: Straw, peer: Namespace) -> None:
    with peer.listen(9001) as server, dial(peer, peer.ip4, 9001) as sock, Arrival.take(server).sock:
        assert sock.getpeername() == (peer.ip4, 9001)
    with namespace("other") as other, pytest.raises(OSError, match="Network is unreachable"):
        dial(other, V4, 80)


def test_another_pods_address_is_no_own_address(steering: Steering, straw: Straw, pod: Namespace) -> None:
    with pair("other", "router") as (other, _), attached(steering, other):
        with dial(pod, other.ip4, 8080):
            arrival = Arrival.take(straw.outbound)
            arrival.sock.close()
        assert arrival.original == Endpoint(other.ip4, 8080)


@pytest.mark.parametrize("ip", [V4, MAPPED])
def test_a_family_that_the_pod_lacks_is_refused(steering: Steering, pod: Namespace, ip: str) -> None:
    before = steering.stats()["refused_no_family"]
    with attached(steering, pod, ips=(pod.ip6,)), pytest.raises(OSError, match="unreachable") as refused:
        dial(pod, ip, 80)
    assert refused.value.errno == errno.ENETUNREACH
    assert steering.stats()["refused_no_family"] == before + 1


def test_ipv6_is_refused_in_a_pod_without(steering: Steering, pod: Namespace) -> None:
    with attached(steering, pod, ips=(pod.ip4,)), pytest.raises(OSError, match="unreachable") as refused:
        dial(pod, V6, 80)
    assert refused.value.errno == errno.ENETUNREACH


def test_a_socket_bound_to_the_pods_address_is_steered(straw: Straw, pod: Namespace) -> None:
    with pod.socket() as sock:
        sock.bind((pod.ip4, 40404))
        sock.connect((V4, 80))
        arrival = Arrival.take(straw.outbound)
        arrival.sock.close()
    assert (arrival.peer, arrival.original) == (Endpoint(pod.ip4, 40404), Endpoint(V4, 80))


def test_a_socket_bound_to_the_device_is_steered(straw: Straw, pod: Namespace) -> None:
    with pod.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        sock.connect((V4, 80))
        arrival = Arrival.take(straw.outbound)
        arrival.sock.close()
    assert arrival.original == Endpoint(V4, 80)


def test_tcp_fast_open_is_steered(straw: Straw, pod: Namespace) -> None:
    with pod.socket() as sock:
        sock.setblocking(True)  # a timeout makes it non-blocking, and then this only begins
        sock.sendto(b"early", socket.MSG_FASTOPEN, (V4, 80))
        arrival = Arrival.take(straw.outbound)
        with arrival.sock:
            assert (arrival.original, arrival.sock.recv(64)) == (Endpoint(V4, 80), b"early")


@pytest.mark.parametrize("ip", [V4, V6])
def test_mptcp_is_steered_and_shows_what_it_dialled(
    steering: Steering, straw: Straw, pod: Namespace, ip: str
) -> None:
    before = len(steering.connections())
    with pod.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, proto=IPPROTO_MPTCP) as sock:
        sock.connect((ip, 80))
        arrival = Arrival.take(straw.outbound)
        arrival.sock.close()
        assert arrival.original == Endpoint(ip, 80)
        assert sock.getpeername()[:2] == (ip, 80)
        assert len(steering.connections()) == before + 1
    assert len(steering.connections()) == before


def test_udp_is_not_steered(straw: Straw, pod: Namespace) -> None:
    with pod.socket(kind=socket.SOCK_DGRAM) as sock:
        sock.connect((V4, 53))
        assert sock.getpeername() == (V4, 53)
        assert sock.getsockname()[0] == pod.ip4


def test_a_dissolved_socket_that_dials_loopback_shows_its_real_peer(
    steering: Steering, straw: Straw, pod: Namespace
) -> None:
    with dial(pod, V4, 80) as sock, pod.listen(8080) as server:
        Arrival.take(straw.outbound).sock.close()
        disconnect(sock)
        sock.connect(("127.0.0.1", 8080))
        with Arrival.take(server).sock:
            assert sock.getpeername() == ("127.0.0.1", 8080)
            assert cookies(steering, pod) == []


def test_a_dissolved_socket_can_be_steered_again(straw: Straw, pod: Namespace) -> None:
    with dial(pod, V4, 80) as sock:
        Arrival.take(straw.outbound).sock.close()
        disconnect(sock)
        sock.connect(("198.51.100.7", 81))
        arrival = Arrival.take(straw.outbound)
        arrival.sock.close()
        assert arrival.original == Endpoint("198.51.100.7", 81)
        assert sock.getpeername() == ("198.51.100.7", 81)


@pytest.mark.parametrize(("own", "port"), [(True, 8080), (False, 15001)])
def test_a_socket_that_dials_again_after_unenrolment_shows_its_real_peer(
    steering: Steering, pod: Namespace, peer: Namespace, own: bool, port: int
) -> None:
    to = pod if own else peer
    with attached(steering, pod) as straw:
        sock = dial(pod, V4, 80)
        Arrival.take(straw.outbound).sock.close()
    disconnect(sock)
    with sock, to.listen(port) as server:
        sock.connect((to.ip4, port))
        with Arrival.take(server).sock:
            assert sock.getpeername() == (to.ip4, port)


def test_zp_conn_shows_a_connection_for_as_long_as_its_socket_lives(
    steering: Steering, straw: Straw, pod: Namespace
) -> None:
    with dial(pod, V4, 80) as sock, Arrival.take(straw.outbound).sock:
        (shown,) = [entry for entry in steering.connections() if entry.netns == pod.netns.cookie()]
        assert shown.original == Endpoint(V4, 80)
        assert shown.source == Endpoint(pod.ip4, sock.getsockname()[1])
        cookie = struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, 57, 8))[0]  # SO_COOKIE
        assert shown.cookie == cookie
    assert cookies(steering, pod) == []


def test_zp_conn_forgets_the_sockets_of_a_killed_process(
    steering: Steering, straw: Straw, pod: Namespace
) -> None:
    hold = (
        "import socket,sys; s=socket.create_connection(sys.argv[1:]); print(1, flush=True); sys.stdin.read()"
    )
    command = ["ip", "netns", "exec", pod.name, sys.executable, "-c", hold, V4, "80"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as app:
        assert app.stdout is not None
        assert app.stdout.readline() == b"1\n"
        assert len(cookies(steering, pod)) == 1
        app.kill()
    assert cookies(steering, pod) == []


def test_a_closed_15001_refuses(straw: Straw, pod: Namespace) -> None:
    straw.outbound.close()
    with pytest.raises(ConnectionRefusedError):
        dial(pod, V4, 80)


def cookies(steering: Steering, pod: Namespace) -> list[int]:
    netns = pod.netns.cookie()
    return [entry.cookie for entry in steering.connections() if entry.netns == netns]


def disconnect(sock: socket.socket) -> None:
    """connect(AF_UNSPEC), which Python has no word for."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.connect(sock.fileno(), struct.pack("=H14x", socket.AF_UNSPEC), 16) == 0
