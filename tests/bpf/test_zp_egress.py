"""What leaves a pod's interface in the clear: recorded or dropped UDP, and TCP that came past connect()."""

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.support import wire
from tests.support.netns import PREFIX, Namespace, batch, ip, namespace
from tests.support.nodes import wait_for
from tests.support.straw import Arrival, Straw, attached, counters_of, size_of, variant_steering
from tests.support.wire import ACK, RST, SYN, TCP, UDP, capture, mac, send_frame, send_raw
from zproxy.model.addr import Endpoint, canonical_ip
from zproxy.model.pod import PodOptions, UdpPolicy
from zproxy.net import netlink
from zproxy.steering.layout import FLOW, TUPLE_KEY, PodEntry, unpack_ip
from zproxy.steering.objects import open_maps
from zproxy.steering.pins import NodePins
from zproxy.steering.steering import Steering
from zproxy.steering.syscall import map_update
from zproxy.steering.udp import UdpFlow, flows

pytestmark = pytest.mark.root

PORT = 4433
UDP_SEGMENT, TCP_FASTOPEN_CONNECT, IPPROTO_MPTCP = 103, 30, 262
BLOCK = PodOptions(dns=False, udp=UdpPolicy.BLOCK)
POLICIES = pytest.mark.parametrize("policy", UdpPolicy, ids=lambda policy: policy.value)
FAMILIES = pytest.mark.parametrize("family", ["v4", "v6", "mapped"])
OPTIONS = bytes([0, 0, 1, 4, 0, 0, 0, 0])
"""IPv6 destination options of eight bytes that say nothing (PadN)."""
OUTSIDE = "203.0.113.9"


@pytest.fixture
def sink(peer: Namespace) -> Iterator[socket.socket]:
    """Something that takes datagrams, so that no ICMP error comes back."""
    with peer.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", PORT))
        yield sock


def choose(steering: Steering, straw: Straw, policy: UdpPolicy) -> None:
    steering.choose(straw.pod.netns.cookie(), PodOptions(dns=False, udp=policy))


def recorded(straw: Straw, label: str = "bpf") -> list[UdpFlow]:
    return flows(f"{PREFIX}{label}", straw.steering().name)


def figures(found: list[UdpFlow]) -> tuple[int, int, int]:
    """Return packets, bytes and blocked of all."""
    return sum(f.packets for f in found), sum(f.bytes for f in found), sum(f.blocked for f in found)


def counted(pod: Namespace) -> tuple[int, int, int]:
    """Return the same of the pod's counters."""
    counters = counters_of(pod)
    return counters["udp_packets"], counters["udp_bytes"], counters["udp_blocked"]


def address_of(peer: Namespace, family: str) -> str:
    return {"v4": peer.ip4, "v6": peer.ip6, "mapped": f"::ffff:{peer.ip4}"}[family]


def datagram(pod: Namespace, to: str) -> socket.socket:
    return pod.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)


@POLICIES
@FAMILIES
@pytest.mark.parametrize("is_connected", [True, False], ids=["connected", "unconnected"])
@pytest.mark.usefixtures("sink")
def test_every_packet_is_recorded_and_blocked_where_it_is_to_be(
    steering: Steering,
    straw: Straw,
    pod: Namespace,
    peer: Namespace,
    *,
    policy: UdpPolicy,
    family: str,
    is_connected: bool,
) -> None:
    choose(steering, straw, policy)
    is_blocked = policy is UdpPolicy.BLOCK
    reason = "udp_blocked" if is_blocked else "udp_clear"
    before = steering.stats()[reason]
    to = (address_of(peer, family), PORT)
    sizes = [0, 1, 100, 1200]
    with capture(peer) as seen, datagram(pod, to[0]) as app:
        if is_connected:
            app.connect(to)
        for size in sizes:
            assert (app.send(bytes(size)) if is_connected else app.sendto(bytes(size), to)) == size
        arrived = seen.until_now(pod)
    header = 48 if family == "v6" else 28
    expected = (len(sizes), sum(sizes) + header * len(sizes), len(sizes) if is_blocked else 0)
    (flow,) = recorded(straw)
    assert (flow.ip, flow.port, flow.served_port) == (peer.ip6 if family == "v6" else peer.ip4, PORT, None)
    assert figures([flow]) == expected == counted(pod)
    assert flow.first_ns < flow.last_ns
    assert steering.stats()[reason] == before + len(sizes)
    assert [p.length for p in arrived] == ([] if is_blocked else [size + header for size in sizes])


@POLICIES
def test_dns_is_neither_recorded_nor_blocked(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace, policy: UdpPolicy
) -> None:
    choose(steering, straw, policy)
    with peer.socket(kind=socket.SOCK_DGRAM) as server, pod.socket(kind=socket.SOCK_DGRAM) as app:
        server.bind((peer.ip4, 53))
        app.sendto(b"query", (peer.ip4, 53))
        assert server.recv(16) == b"query"
    assert recorded(straw) == []


@pytest.mark.parametrize("to", ["127.0.0.1", "::1", "own v4", "own v6"])
def test_what_stays_in_the_pod_is_not_seen(steering: Steering, straw: Straw, pod: Namespace, to: str) -> None:
    choose(steering, straw, UdpPolicy.BLOCK)
    where = {"own v4": pod.ip4, "own v6": pod.ip6}.get(to, to)
    with datagram(pod, where) as server, datagram(pod, where) as app:
        server.bind((where, PORT))
        app.sendto(b"hello", (where, PORT))
        assert server.recv(16) == b"hello"
    assert recorded(straw) == []


@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.usefixtures("sink")
def test_fragments_are_counted_one_by_one(straw: Straw, pod: Namespace, peer: Namespace, family: str) -> None:
    to = address_of(peer, family)
    with capture(peer) as seen, datagram(pod, to) as app:
        app.sendto(bytes(4000), (to, PORT))
        arrived = seen.until_now(pod)
    with_ports, later = sorted(recorded(straw), key=lambda flow: flow.port is None)
    assert (with_ports.port, with_ports.packets) == (PORT, 1)
    assert (later.port, later.served_port, later.packets) == (None, None, 2)
    assert [packet.dport for packet in arrived] == [PORT, 0, 0]
    assert figures([with_ports, later]) == (3, sum(packet.length for packet in arrived), 0) == counted(pod)


@POLICIES
def test_a_later_fragment_has_a_row_without_port_and_does_not_get_past_a_block(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace, policy: UdpPolicy
) -> None:
    """By hand: of a datagram whose first fragment is dropped the kernel does not send the rest."""
    choose(steering, straw, policy)
    with capture(peer) as seen:
        send_raw(pod, wire.ip4(pod.ip4, peer.ip4, UDP, b"rest" * 4, fragment=185))
        with pod.socket(socket.AF_INET6, socket.SOCK_RAW, wire.FRAGMENT) as raw:
            for following in (UDP, wire.DESTINATION_OPTIONS):
                head = struct.pack("!BBHI", following, 0, 185 << 3, 77)
                with wire.dropping_is_no_error():
                    raw.sendto(head + b"rest" * 4, (peer.ip6, 0))
        arrived = seen.until_now(pod)
    is_blocked = policy is UdpPolicy.BLOCK
    found = recorded(straw)
    assert [(flow.ip, flow.port, flow.served_port) for flow in found] == [
        (peer.ip4, None, None),
        (peer.ip6, None, None),
    ]
    assert figures(found) == (3, 36 + 2 * 64, 3 if is_blocked else 0)
    assert is_blocked is not bool(arrived)


@POLICIES
@pytest.mark.parametrize("protocol", [TCP, socket.IPPROTO_ICMP], ids=["tcp", "icmp"])
def test_later_fragments_of_others_pass_unrecorded(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace, *, policy: UdpPolicy, protocol: int
) -> None:
    choose(steering, straw, policy)
    before = steering.stats()["clear_blocked"]
    with capture(peer) as seen:
        send_raw(pod, wire.ip4(pod.ip4, peer.ip4, protocol, b"rest" * 4, fragment=185))
        assert len(seen.until_now(pod)) == (protocol == TCP)
    assert (recorded(straw), steering.stats()["clear_blocked"]) == ([], before)


@pytest.mark.usefixtures("sink")
def test_a_buffer_that_is_cut_up_later_counts_as_its_packets(
    straw: Straw, pod: Namespace, peer: Namespace
) -> None:
    with pod.socket(kind=socket.SOCK_DGRAM) as app:
        app.setsockopt(UDP, UDP_SEGMENT, 1000)
        app.sendto(bytes(3500), (peer.ip4, PORT))
    assert figures(recorded(straw)) == (4, 3500 + 4 * 28, 0) == counted(pod)


@POLICIES
@pytest.mark.usefixtures("sink")
def test_extension_headers_are_no_way_past_it(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace, policy: UdpPolicy
) -> None:
    choose(steering, straw, policy)
    with capture(peer) as seen, datagram(pod, peer.ip6) as app:
        app.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, OPTIONS)
        app.sendto(b"twelve bytes", (peer.ip6, PORT))
        app.sendto(bytes(3000), (peer.ip6, PORT))  # the options are in the fragmented part
        arrived = seen.until_now(pod)
    found = recorded(straw)
    if policy is UdpPolicy.BLOCK:
        assert (arrived, [(flow.port, flow.blocked) for flow in found]) == ([], [(PORT, 2)])
    else:
        assert figures(found) == (4, sum(packet.length for packet in arrived), 0)
        assert {flow.port for flow in found} == {PORT, None}


def test_the_clients_of_a_server_have_one_row_each(straw: Straw, pod: Namespace, peer: Namespace) -> None:
    with pod.socket(kind=socket.SOCK_DGRAM) as server:
        server.bind((pod.ip4, 5300))
        for port in (40001, 50002, 60003):
            with peer.socket(kind=socket.SOCK_DGRAM) as client:
                client.bind((peer.ip4, port))
                client.sendto(b"?", (pod.ip4, 5300))
                server.sendto(b"answer", server.recvfrom(16)[1])
                assert client.recv(16) == b"answer"
    (flow,) = recorded(straw)
    assert (flow.ip, flow.port, flow.served_port, flow.packets) == (peer.ip4, None, 5300, 3)


@pytest.mark.parametrize(("family", "client", "server"), [("v4", 68, 67), ("v6", 546, 547)])
def test_a_lease_is_renewed_whatever_the_policy(
    steering: Steering,
    straw: Straw,
    pod: Namespace,
    peer: Namespace,
    *,
    family: str,
    client: int,
    server: int,
) -> None:
    choose(steering, straw, UdpPolicy.BLOCK)
    to, own = (peer.ip4, pod.ip4) if family == "v4" else (peer.ip6, pod.ip6)
    with datagram(peer, to) as lessor, datagram(pod, to) as app:
        lessor.bind((to, server))
        app.bind((own, client))
        app.sendto(b"renew", (to, server))
        assert lessor.recv(16) == b"renew"
        app.sendto(b"other", (to, PORT))
    assert [(flow.port, flow.blocked) for flow in recorded(straw)] == [(server, 0), (PORT, 1)]


@POLICIES
@pytest.mark.parametrize("to", ["239.1.2.3", "ff05::1:3", "255.255.255.255"])
def test_multicast_and_broadcast_are_as_any_other(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace, *, policy: UdpPolicy, to: str
) -> None:
    choose(steering, straw, policy)
    with capture(peer) as seen, datagram(pod, to) as app:
        app.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        app.sendto(b"anybody?", (to, 5000))
        arrived = seen.until_now(pod)
    is_blocked = policy is UdpPolicy.BLOCK
    (flow,) = recorded(straw)
    assert (flow.ip, flow.port, flow.blocked) == (to, 5000, int(is_blocked))
    assert [packet.dst for packet in arrived] == ([] if is_blocked else [to])


def test_the_proxys_own_udp_passes_unrecorded(
    steering: Steering, straw: Straw, pod: Namespace, sink: socket.socket, peer: Namespace
) -> None:
    choose(steering, straw, UdpPolicy.BLOCK)
    with pod.socket(kind=socket.SOCK_DGRAM) as own:
        steering.exempt(own.fileno())
        own.sendto(b"resolver", (peer.ip4, PORT))
        assert sink.recv(16) == b"resolver"
    assert recorded(straw) == []


@POLICIES
def test_a_spoofed_source_is_still_the_pods(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace, policy: UdpPolicy
) -> None:
    choose(steering, straw, policy)
    with capture(peer) as seen:
        send_raw(pod, wire.ip4(OUTSIDE, peer.ip4, UDP, wire.udp(40000, PORT, b"whose?")))
        arrived = seen.until_now(pod)
    is_blocked = policy is UdpPolicy.BLOCK
    assert [(flow.ip, flow.port, flow.blocked) for flow in recorded(straw)] == [
        (peer.ip4, PORT, int(is_blocked))
    ]
    assert [packet.src for packet in arrived] == ([] if is_blocked else [OUTSIDE])


def syn(pod: Namespace, peer: Namespace, flags: int = SYN) -> bytes:
    return wire.ip4(pod.ip4, peer.ip4, TCP, wire.tcp(40001, 8080, flags))


@pytest.mark.parametrize("how", ["raw", "packet"])
def test_a_syn_from_a_raw_socket_is_dropped(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace, how: str
) -> None:
    before = steering.stats()["clear_blocked"]

    def send(packet: bytes) -> None:
        if how == "raw":
            send_raw(pod, packet)
        else:
            send_frame(pod, peer, packet)

    with capture(peer) as seen:
        send(syn(pod, peer))
        send(syn(pod, peer, SYN | RST))
        send(syn(pod, peer, SYN | ACK))
        arrived = seen.until_now(pod)
    assert [packet.flags for packet in arrived] == [SYN | ACK], "begins nothing, and shows that they leave"
    assert steering.stats()["clear_blocked"] == before + 2
    assert counters_of(pod)["refused"] == 2


@pytest.mark.parametrize("headers", [0, 1])
def test_a_syn_from_a_raw_ipv6_socket_is_dropped(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace, headers: int
) -> None:
    before = steering.stats()["clear_blocked"]
    first = socket.IPPROTO_DSTOPTS if headers else TCP
    chain = (bytes([TCP]) + OPTIONS[1:]) * headers
    with capture(peer) as seen, pod.socket(socket.AF_INET6, socket.SOCK_RAW, first) as raw:
        raw.sendto(chain + wire.tcp(40002, 8080, SYN), (peer.ip6, 0))
        assert seen.until_now(pod) == []
    assert steering.stats()["clear_blocked"] == before + 1


def test_a_syn_that_cannot_be_read_is_dropped(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace
) -> None:
    """More headers than are walked, and a first fragment without flags: peers put both together."""
    before = steering.stats()["clear_blocked"]
    chain = (bytes([60]) + OPTIONS[1:]) * 8 + bytes([TCP]) + OPTIONS[1:]
    with capture(peer) as seen:
        with pod.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_DSTOPTS) as raw:
            raw.sendto(chain + wire.tcp(40003, 8080, SYN), (peer.ip6, 0))
        short = wire.tcp(40003, 8080, SYN)[:8]
        send_raw(pod, wire.ip4(pod.ip4, peer.ip4, TCP, short, fragment=0x2000))
        assert seen.until_now(pod) == []
    assert steering.stats()["clear_blocked"] == before + 2


def test_the_probes_address_may_be_dialled(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace
) -> None:
    before = steering.stats()["clear_blocked"]
    with capture(peer) as seen, pod.socket() as app:
        app.setblocking(False)
        app.connect_ex(("169.254.7.127", 80))
        arrived = seen.until_now(pod)
    assert [(packet.dst, packet.flags & SYN) for packet in arrived] == [("169.254.7.127", SYN)]
    assert steering.stats()["clear_blocked"] == before


def test_the_proxys_own_syn_passes(steering: Steering, straw: Straw, pod: Namespace, peer: Namespace) -> None:
    before = steering.stats()["clear_blocked"]
    with capture(peer) as seen, pod.socket() as own:
        steering.exempt(own.fileno())
        own.setblocking(False)
        own.connect_ex((OUTSIDE, 15008))
        assert [packet.dst for packet in seen.until_now(pod)] == [OUTSIDE]
        wait_for(lambda: seen.until_now(pod), "the SYN is sent again")
    assert steering.stats()["clear_blocked"] == before


@pytest.mark.parametrize("how", ["plain", "fast open", "fast open connect", "mptcp", "device"])
def test_whatever_way_an_app_connects_nothing_leaves(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace, how: str
) -> None:
    before = steering.stats()["clear_blocked"]
    with capture(peer) as seen, pod.socket(proto=IPPROTO_MPTCP if how == "mptcp" else 0) as app:
        if how == "device":
            app.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        if how == "fast open connect":
            app.setsockopt(TCP, TCP_FASTOPEN_CONNECT, 1)
        if how == "fast open":
            with suppress(BlockingIOError):  # the first time there is no cookie, and nothing goes along
                app.sendto(b"", socket.MSG_FASTOPEN, (OUTSIDE, 80))
        else:
            app.connect((OUTSIDE, 80))
        app.sendall(b"early")
        with Arrival.take(straw.outbound).sock as accepted:
            assert accepted.recv(16) == b"early"
        assert seen.until_now(pod) == []
    assert steering.stats()["clear_blocked"] == before


def test_an_interface_without_ethernet_headers_is_read_as_well(
    steering: Steering, pod: Namespace, peer: Namespace
) -> None:
    before = steering.stats()["clear_blocked"]
    with ExitStack() as stack:
        ip("-n", pod.name, "tuntap", "add", "dev", "tun0", "mode", "tun")
        batch(pod.name, ["link set tun0 up", f"route add {OUTSIDE} dev tun0 src {pod.ip4}"])
        straw = Straw(pod)
        stack.callback(straw.close)
        wanted = straw.steering()._replace(interfaces=("eth0", "tun0"))
        stack.callback(steering.detach, wanted.cookie)
        steering.attach(wanted)
        with pod.socket(kind=socket.SOCK_DGRAM) as app:
            app.sendto(b"hello", (OUTSIDE, PORT))
        send_raw(pod, wire.ip4(pod.ip4, OUTSIDE, TCP, wire.tcp(40001, 8080, SYN)))
        assert [(flow.ip, flow.port, flow.bytes) for flow in recorded(straw)] == [(OUTSIDE, PORT, 33)]
    assert steering.stats()["clear_blocked"] == before + 1


def absent(pod: Namespace, family: str) -> str:
    """Return an address of the pod's network that nobody has: ARP and ND wait some seconds for an answer, and
    packets wait for them. A connect() has passed its hook then, and its SYN has not come to the interface.
    """
    if family == "v6":
        return pod.ip6.removesuffix("::1") + "::9"
    return ("::ffff:" if family == "mapped" else "") + pod.ip4.removesuffix(".1") + ".9"


def begin(pod: Namespace, to: str) -> socket.socket:
    app = pod.socket(socket.AF_INET6 if ":" in to else socket.AF_INET)
    app.setblocking(False)
    app.connect_ex((to, 8080))
    app.settimeout(5)
    return app


def answer(pod: Namespace, peer: Namespace, address: str) -> None:
    """Let the pod know `peer` by `address`, which sends what waits for it."""
    words = ("neigh", "replace", address.removeprefix("::ffff:"), "lladdr", mac(peer).hex(":"), "dev", "eth0")
    ip("-n", pod.name, *words)


def appear(pod: Namespace, peer: Namespace, address: str) -> None:
    """Let `peer` have an address, and answer for it."""
    bare = address.removeprefix("::ffff:")
    batch(
        peer.name, [f"addr add {bare}/64 dev eth0 nodad" if ":" in bare else f"addr add {bare}/24 dev eth0"]
    )
    answer(pod, peer, address)


def begun() -> list[tuple[Endpoint, Endpoint]]:
    """Return source and destination of what zp_begun has."""
    objects = open_maps(NodePins(f"{PREFIX}bpf"))
    try:
        flows = [FLOW.unpack(TUPLE_KEY.unpack(key)["flow"]) for key, _ in objects.elements("zp_begun")]
    finally:
        objects.close()
    return [
        (
            Endpoint(unpack_ip(flow["src_ip"]), flow["src_port"]),
            Endpoint(unpack_ip(flow["dst_ip"]), flow["dst_port"]),
        )
        for flow in flows
    ]


def age(straw: Straw) -> None:
    """Let the pod have been enrolled long ago."""
    objects = open_maps(NodePins(f"{PREFIX}bpf"))
    try:
        (entry,) = (PodEntry.decode(key, value) for key, value in objects.elements("zp_pods"))
        assert entry.since_ns
        map_update(objects.maps["zp_pods"], entry.key(), entry._replace(since_ns=1).value())
    finally:
        objects.close()


@pytest.fixture(params=["its SYN is out", "its SYN is not out"])
def moment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a connect() is when the pod is enrolled. The kernel lists it from its SYN on."""
    if request.param == "its SYN is not out":
        monkeypatch.setattr(netlink, "dialling", list)
    return str(request.param)


@FAMILIES
@pytest.mark.usefixtures("moment")
def test_a_connect_that_is_under_way_at_enrolment_goes_on(
    steering: Steering, pod: Namespace, peer: Namespace, family: str
) -> None:
    before, waiting = steering.stats(), size_of("zp_tuple")
    to = absent(pod, family)
    with peer.listen(8080) as server, begin(pod, to) as app:
        with attached(steering, pod):
            appear(pod, peer, to)
            arrival = Arrival.take(server)
            with arrival.sock:
                app.sendall(b"first")
                assert arrival.sock.recv(16) == b"first"
                arrival.sock.sendall(b"second")
                assert app.recv(16) == b"second"
            assert app.getpeername()[0] == to
            assert begun() == [(arrival.peer, Endpoint(canonical_ip(to), 8080))]
            assert (size_of("zp_conn"), size_of("zp_tuple")) == (0, waiting)
        after = steering.stats()
    assert after["begun_before"] > before["begun_before"]
    assert after["clear_blocked"] == before["clear_blocked"]
    assert begun() == [], "unenrolment forgets"


@pytest.mark.usefixtures("moment")
def test_its_syn_is_repeated_however_long_ago_the_pod_was_enrolled(
    steering: Steering, pod: Namespace, peer: Namespace
) -> None:
    before = steering.stats()["clear_blocked"]
    to = absent(pod, "v4")
    with capture(peer) as seen, begin(pod, to), attached(steering, pod) as straw:
        answer(pod, peer, to)
        assert [packet.dst for packet in seen.until_now(pod)] == [to]
        age(straw)
        wait_for(lambda: to in [packet.dst for packet in seen.until_now(pod)], "the SYN is sent again")
    assert steering.stats()["clear_blocked"] == before


def test_a_tcp_socket_that_came_past_connect_later_is_blocked(
    steering: Steering, pod: Namespace, peer: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netlink, "dialling", list)
    before = steering.stats()
    to = absent(pod, "v4")
    with peer.listen(8080), capture(peer) as seen, begin(pod, to), attached(steering, pod) as straw:
        age(straw)
        appear(pod, peer, to)
        wait_for(lambda: steering.stats()["clear_blocked"] > before["clear_blocked"], "the SYN leaves")
        assert [packet for packet in seen.until_now(pod) if packet.dst == to] == []
        assert counters_of(pod)["refused"] > 0
    assert steering.stats()["begun_before"] == before["begun_before"]


def test_a_raw_socket_does_not_pass_with_a_flow_that_is_under_way(
    steering: Steering, pod: Namespace, peer: Namespace
) -> None:
    with capture(peer) as seen, begin(pod, OUTSIDE) as app, attached(steering, pod):
        seen.until_now(pod)
        before = steering.stats()["clear_blocked"]
        send_raw(pod, wire.ip4(pod.ip4, OUTSIDE, TCP, wire.tcp(app.getsockname()[1], 8080, SYN)))
        assert steering.stats()["clear_blocked"] == before + 1


def test_a_multipath_connection_from_before_enrolment_gets_no_further_path_in_the_clear(
    steering: Steering, pod: Namespace, peer: Namespace
) -> None:
    """The kernel opens the paths of a connection by itself; these are connects too, and are steered."""
    second = pod.ip4.removesuffix(".1") + ".77"
    batch(pod.name, [f"addr add {second}/24 dev eth0", "mptcp limits set subflow 2"])
    batch(peer.name, ["mptcp limits set subflow 2"])
    with (
        peer.socket(proto=IPPROTO_MPTCP) as listener,
        pod.socket(proto=IPPROTO_MPTCP) as app,
        capture(peer) as seen,
    ):
        listener.bind((peer.ip4, 8080))
        listener.listen()
        app.connect((peer.ip4, 8080))
        with listener.accept()[0] as accepted, attached(steering, pod, ips=(*pod.ips, second)):
            app.sendall(b"one")
            assert accepted.recv(16) == b"one"
            seen.until_now(pod)
            captured = steering.stats()["captured_v4"]
            ip("-n", pod.name, "mptcp", "endpoint", "add", second, "dev", "eth0", "subflow")
            wait_for(lambda: steering.stats()["captured_v4"] > captured, "the kernel opens a path")
            app.sendall(b"two")
            assert accepted.recv(16) == b"two"
            assert [packet for packet in seen.until_now(pod) if packet.flags & SYN] == []


@contextmanager
def behind(pod: Namespace) -> Iterator[Namespace]:
    """Give a namespace that reaches the world through the pod, as a container of a container does."""
    with namespace("inner") as inner:
        words = ("link", "add", "eth1", "netns", pod.name, "type", "veth", "peer", "name", "eth0")
        ip(*words, "netns", inner.name)
        batch(pod.name, ["addr add 10.78.0.1/24 dev eth1", "link set eth1 up"])
        lines = ["addr add 10.78.0.2/24 dev eth0", "link set eth0 up", "route add default via 10.78.0.1"]
        batch(inner.name, lines)
        pod.sysctl("ipv4.ip_forward", "1")
        yield inner


def test_what_the_pod_forwards_passes_and_is_counted(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace
) -> None:
    choose(steering, straw, UdpPolicy.BLOCK)
    before = steering.stats()
    with behind(pod) as inner, capture(peer) as seen:
        with inner.socket() as app, inner.socket(kind=socket.SOCK_DGRAM) as other:
            app.setblocking(False)
            app.connect_ex((peer.ip4, 8080))
            other.sendto(b"hello", (peer.ip4, PORT))
        arrived = seen.until_now(pod)
    after = steering.stats()
    assert [(p.protocol, p.src) for p in arrived] == [(TCP, "10.78.0.2"), (UDP, "10.78.0.2")]
    assert after["forwarded"] == before["forwarded"] + 1
    assert after["udp_clear"] == before["udp_clear"] + 1
    assert recorded(straw) == [], "whose it is nobody can say"
    assert after["clear_blocked"] == before["clear_blocked"]


def test_a_block_may_be_lifted_and_imposed_at_any_time(
    steering: Steering, straw: Straw, pod: Namespace, sink: socket.socket, peer: Namespace
) -> None:
    with pod.socket(kind=socket.SOCK_DGRAM) as app:
        app.connect((peer.ip4, PORT))
        for policy, text in ((UdpPolicy.BLOCK, b"1"), (UdpPolicy.AUDIT, b"2"), (UdpPolicy.BLOCK, b"3")):
            choose(steering, straw, policy)
            app.send(text)
    assert sink.recv(16) == b"2"
    assert figures(recorded(straw)) == (3, 3 * 29, 2)


@pytest.fixture(scope="module")
def blind() -> Iterator[Steering]:
    """Programs as for a kernel before 6.13, which tells tc nothing about a socket's namespace."""
    with variant_steering("blind", ["-DZP_HAS_MPTCP"]) as steering:
        yield steering


@pytest.fixture
def old(blind: Steering, pod: Namespace) -> Iterator[Straw]:
    """The pod, enrolled there."""
    with attached(blind, pod) as made:
        yield made


@POLICIES
@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.usefixtures("sink")
def test_before_6_13_the_source_address_tells_the_pod(
    blind: Steering, old: Straw, pod: Namespace, peer: Namespace, *, policy: UdpPolicy, family: str
) -> None:
    choose(blind, old, policy)
    to = address_of(peer, family)
    with capture(peer) as seen, datagram(pod, to) as app:
        app.sendto(b"hello", (to, PORT))
        arrived = seen.until_now(pod)
    is_blocked = policy is UdpPolicy.BLOCK
    length = 53 if family == "v6" else 33
    assert figures(recorded(old, "blind")) == (1, length, int(is_blocked))
    assert [packet.length for packet in arrived] == ([] if is_blocked else [length])


def test_before_6_13_a_source_that_no_pod_has_is_not_let_out(
    blind: Steering, old: Straw, pod: Namespace, peer: Namespace
) -> None:
    before = blind.stats()
    with capture(peer) as seen:
        send_raw(pod, wire.ip4(OUTSIDE, peer.ip4, UDP, wire.udp(40000, PORT, b"whose?")))
        send_raw(pod, wire.ip4(OUTSIDE, peer.ip4, TCP, wire.tcp(40001, 8080, SYN)))
        assert seen.until_now(pod) == []
        send_raw(pod, wire.ip4("169.254.1.1", peer.ip4, UDP, wire.udp(5353, 5353, b"neighbour")))
        send_raw(pod, wire.ip4(OUTSIDE, peer.ip4, UDP, wire.udp(40000, 53, b"query")))
        assert [packet.dport for packet in seen.until_now(pod)] == [5353, 53]
    after = blind.stats()
    assert [after[name] - before[name] for name in ("udp_blocked", "clear_blocked", "udp_clear")] == [1, 1, 1]
    assert recorded(old, "blind") == []


def test_before_6_13_a_syn_from_a_raw_socket_is_dropped(
    blind: Steering, old: Straw, pod: Namespace, peer: Namespace
) -> None:
    before = blind.stats()["clear_blocked"]
    with capture(peer) as seen:
        send_raw(pod, syn(pod, peer))
        send_frame(pod, peer, syn(pod, peer))
        assert seen.until_now(pod) == []
    assert blind.stats()["clear_blocked"] == before + 2


def test_before_6_13_what_the_pod_forwards_passes(
    blind: Steering, old: Straw, pod: Namespace, peer: Namespace
) -> None:
    before = blind.stats()["forwarded"]
    with behind(pod) as inner, capture(peer) as seen:
        with inner.socket() as app, inner.socket(kind=socket.SOCK_DGRAM) as other:
            app.setblocking(False)
            app.connect_ex((peer.ip4, 8080))
            other.sendto(b"hello", (peer.ip4, PORT))
        assert [packet.protocol for packet in seen.until_now(pod)] == [TCP, UDP]
    assert blind.stats()["forwarded"] == before + 1
