"""DNS capture on the real kernel: who is asked, what the app sees, what the maps hold."""

import ctypes
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from tests.support import wire
from tests.support.dns import EchoDns
from tests.support.netns import PREFIX, Namespace
from tests.support.straw import Arrival, Straw
from tests.support.wire import capture
from zproxy.model.addr import Endpoint, canonical_ip
from zproxy.model.pod import PodOptions
from zproxy.node.routes import PodNetwork
from zproxy.steering import decoded
from zproxy.steering.decoded import NodeMaps
from zproxy.steering.layout import ALIAS
from zproxy.steering.resolvers import SLOTS, Resolvers
from zproxy.steering.steering import Steering

pytestmark = pytest.mark.root

ONE4, TWO4 = "10.96.0.10", "8.8.8.8"
ONE6, TWO6 = "2001:db8::53", "2001:db8::54"
MAPPED = f"::ffff:{ONE4}"
SO_BINDTODEVICE = 25


class Dns(NamedTuple):
    """A pod whose DNS is captured."""

    pod: Namespace
    server: EchoDns
    resolvers: Resolvers
    maps: NodeMaps
    steering: Steering

    def count(self, reason: str) -> int:
        return self.steering.stats()[reason]


@pytest.fixture
def dns(steering: Steering, pod: Namespace) -> Iterator[Dns]:
    with ExitStack() as stack:
        straw = Straw(pod)
        stack.callback(straw.close)
        network = PodNetwork(pod.netns)
        network.capture_dns(pod.ips, pod.interface)
        stack.callback(network.release_dns)
        wanted = straw.steering()._replace(options=PodOptions(dns=True))
        stack.callback(steering.detach, wanted.cookie)
        steering.attach(wanted)
        server = EchoDns(pod)
        stack.callback(server.close)
        maps = stack.enter_context(decoded.opened(f"{PREFIX}bpf"))
        resolvers = Resolvers(maps.fd("zp_resolver"), wanted.cookie)
        yield Dns(pod, server, resolvers, maps, steering)


def family(ip: str) -> int:
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def udp(pod: Namespace, kind: int) -> socket.socket:
    return pod.socket(kind, socket.SOCK_DGRAM)


@pytest.mark.parametrize("resolver", [ONE4, ONE6, MAPPED])
def test_a_query_of_an_unconnected_socket_is_answered_by_the_one_that_was_asked(
    dns: Dns, resolver: str
) -> None:
    before = dns.count("dns_captured"), dns.count("dns_restored")
    with udp(dns.pod, family(resolver)) as app:
        app.sendto(b"query", (resolver, 53))
        query = dns.server.answer()
        answer, source = app.recvfrom(100)
        assert (query.data, answer, source[:2]) == (b"query", b"QUERY", (resolver, 53))
        assert query.source.port == app.getsockname()[1]
        assert query.source.ip in dns.pod.ips
        assert dns.resolvers.find(query.alias) == Endpoint(canonical_ip(resolver), 53)
    assert (dns.count("dns_captured"), dns.count("dns_restored")) == (before[0] + 1, before[1] + 1)
    (row,) = [row for row in decoded.pods(dns.maps) if row["netns_cookie"] == dns.pod.netns.cookie()]
    assert row["counters"]["dns"] == 1


@pytest.mark.parametrize("resolver", [ONE4, ONE6, MAPPED])
def test_a_connected_socket_has_the_resolver_as_its_peer(dns: Dns, resolver: str) -> None:
    with udp(dns.pod, family(resolver)) as app:
        app.connect((resolver, 53))
        assert app.getpeername()[:2] == (resolver, 53)
        app.send(b"query")
        dns.server.answer()
        answer, source = app.recvfrom(100)
        assert (answer, source[:2]) == (b"QUERY", (resolver, 53))
        assert canonical_ip(app.getsockname()[0]) in dns.pod.ips


@pytest.mark.parametrize("resolver", [ONE4, ONE6, MAPPED])
@pytest.mark.parametrize("is_connected", [True, False], ids=["connected", "unconnected"])
def test_a_query_whose_way_to_the_straw_is_gone_does_not_leave_the_pod(
    dns: Dns, peer: Namespace, resolver: str, *, is_connected: bool
) -> None:
    network, before = PodNetwork(dns.pod.netns), dns.count("alias_blocked")
    with capture(peer) as seen, udp(dns.pod, family(resolver)) as app:
        if is_connected:
            app.connect((resolver, 53))
        network.release_dns()
        for _ in range(2):
            app.send(b"query") if is_connected else app.sendto(b"query", (resolver, 53))
        assert seen.until_now(dns.pod) == []
        assert dns.count("alias_blocked") == before + 2
        network.capture_dns(dns.pod.ips, dns.pod.interface)
        if is_connected and resolver == ONE6:  # IPv6 keeps a way for a socket while that route stands
            app.connect((resolver, 53))
        app.send(b"again") if is_connected else app.sendto(b"again", (resolver, 53))
        assert dns.server.answer().data == b"again"
        assert app.recvfrom(100)[1][:2] == (resolver, 53)


@pytest.mark.parametrize("resolver", [ONE4, ONE6])
def test_a_socket_from_before_its_dns_was_left_alone_tells_nobody_outside(
    dns: Dns, peer: Namespace, resolver: str
) -> None:
    with capture(peer) as seen, udp(dns.pod, family(resolver)) as app:
        app.connect((resolver, 53))
        dns.steering.choose(dns.pod.netns.cookie(), PodOptions(dns=False))
        PodNetwork(dns.pod.netns).release_dns()
        before = dns.count("alias_blocked")
        app.send(b"query")
        assert seen.until_now(dns.pod) == []
        assert dns.count("alias_blocked") == before + 1
        app.connect((resolver, 53))
        app.send(b"again")
        assert [packet.dst for packet in seen.until_now(dns.pod)] == [resolver]


@pytest.mark.parametrize("address", ["240.15.53.9", "fd16:9254:7127:1553::9"])
def test_nothing_at_all_leaves_for_an_alias(dns: Dns, peer: Namespace, address: str) -> None:
    """Not of the proxy itself, and not to another port."""
    PodNetwork(dns.pod.netns).release_dns()
    before = dns.count("alias_blocked")
    packet = wire.ip6 if ":" in address else wire.ip4
    own = dns.pod.ip6 if ":" in address else dns.pod.ip4
    with capture(peer) as seen, udp(dns.pod, family(address)) as proxys:
        dns.steering.exempt(proxys.fileno())
        proxys.sendto(b"query", (address, 53))
        wire.send_raw(dns.pod, packet(own, address, wire.UDP, wire.udp(40000, 4433, b"hello")))
        wire.send_raw(dns.pod, packet(own, address, wire.TCP, wire.tcp(40001, 8080, wire.SYN)))
        assert seen.until_now(dns.pod) == []
    assert dns.count("alias_blocked") == before + 3


def test_two_resolvers_on_one_socket_are_told_apart(dns: Dns) -> None:
    with udp(dns.pod, socket.AF_INET) as app:
        app.sendto(b"one", (ONE4, 53))
        app.sendto(b"two", (TWO4, 53))
        aliases = {dns.server.answer().alias, dns.server.answer().alias}
        assert len(aliases) == 2
        assert dict(app.recvfrom(100) for _ in range(2)) == {b"ONE": (ONE4, 53), b"TWO": (TWO4, 53)}


def test_both_families_on_one_socket_are_told_apart(dns: Dns) -> None:
    with udp(dns.pod, socket.AF_INET6) as app:
        for resolver in (MAPPED, ONE6, TWO6):
            app.sendto(resolver.encode(), (resolver, 53))
            dns.server.answer()
            answer, source = app.recvfrom(100)
            assert (answer, source[0]) == (resolver.upper().encode(), resolver)


def test_a_socket_that_two_processes_share_is_told_apart_as_well(dns: Dns) -> None:
    with udp(dns.pod, socket.AF_INET) as app:
        script = "import socket,sys; socket.socket(fileno=int(sys.argv[1])).sendto(b'two', (sys.argv[2], 53))"
        app.set_inheritable(True)
        app.sendto(b"one", (ONE4, 53))
        subprocess.run(
            [sys.executable, "-c", script, str(app.fileno()), TWO4], pass_fds=[app.fileno()], check=True
        )
        dns.server.answer()
        dns.server.answer()
        assert dict(app.recvfrom(100) for _ in range(2)) == {b"ONE": (ONE4, 53), b"TWO": (TWO4, 53)}


@pytest.mark.parametrize("resolver", [ONE4, ONE6])
@pytest.mark.parametrize("is_connected", [True, False])
def test_a_socket_that_is_bound_to_the_interface_is_served(
    dns: Dns, resolver: str, is_connected: bool
) -> None:
    with udp(dns.pod, family(resolver)) as app:
        app.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, dns.pod.interface.encode())
        if is_connected:
            app.connect((resolver, 53))
            app.send(b"query")
        else:
            app.sendto(b"query", (resolver, 53))
        dns.server.answer()
        assert app.recvfrom(100)[1][:2] == (resolver, 53)


@pytest.mark.parametrize("own", ["pod", "127.0.0.1"])
def test_a_socket_that_is_bound_to_an_address_is_served(dns: Dns, own: str) -> None:
    with udp(dns.pod, socket.AF_INET) as app:
        app.bind((dns.pod.ip4 if own == "pod" else own, 0))
        app.sendto(b"query", (ONE4, 53))
        dns.server.answer()
        assert app.recvfrom(100) == (b"QUERY", (ONE4, 53))


def test_a_connected_socket_may_ask_somebody_else_meanwhile(dns: Dns) -> None:
    with udp(dns.pod, socket.AF_INET) as app:
        app.connect((ONE4, 53))
        app.sendto(b"elsewhere", (TWO4, 53))
        assert dns.resolvers.find(dns.server.answer().alias) == Endpoint(TWO4, 53)
        app.send(b"here")
        assert dns.resolvers.find(dns.server.answer().alias) == Endpoint(ONE4, 53)
        assert app.recvfrom(100) == (b"HERE", (ONE4, 53))


def test_a_socket_may_be_dissolved_and_ask_another(dns: Dns) -> None:
    with udp(dns.pod, socket.AF_INET) as app:
        app.connect((ONE4, 53))
        assert dissolve(app) == 0
        app.connect((TWO4, 53))
        assert app.getpeername() == (TWO4, 53)
        app.send(b"query")
        dns.server.answer()
        assert app.recvfrom(100) == (b"QUERY", (TWO4, 53))


def dissolve(sock: socket.socket) -> int:
    nobody = struct.pack("=HHIQ", 0, 0, 0, 0)
    result: int = ctypes.CDLL(None).connect(sock.fileno(), nobody, len(nobody))
    return result


@pytest.mark.parametrize("resolver", [ONE4, ONE6])
def test_dns_over_tcp_comes_with_its_original_destination(dns: Dns, resolver: str) -> None:
    with dns.pod.socket(family(resolver)) as app:
        app.connect((resolver, 53))
        with Arrival.take(dns.server.tcp).sock as accepted:
            assert app.getpeername()[:2] == (resolver, 53)
            app.sendall(b"query")
            assert accepted.recv(100) == b"query"
    with dns.pod.socket(family(resolver)) as app:
        app.connect((resolver, 53))
        arrival = Arrival.take(dns.server.tcp)
        arrival.sock.close()
        assert arrival.original == Endpoint(resolver, 53)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_without_a_listener_a_query_is_refused_and_never_leaves(dns: Dns, peer: Namespace, kind: int) -> None:
    dns.server.close()
    with (
        peer.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside,
        dns.pod.socket(socket.AF_INET, kind) as app,
    ):
        outside.bind((peer.ip4, 53))
        outside.settimeout(0.2)
        if kind == socket.SOCK_STREAM:
            with pytest.raises(ConnectionRefusedError):
                app.connect((peer.ip4, 53))
        else:
            app.connect((peer.ip4, 53))
            app.send(b"query")
            with pytest.raises(ConnectionRefusedError):
                app.recv(100)
        with pytest.raises(TimeoutError):
            outside.recv(100)


@pytest.mark.parametrize("resolver", ["127.0.0.1", "::1", "own"])
def test_resolvers_inside_the_pod_are_left_alone(dns: Dns, resolver: str) -> None:
    ip = dns.pod.ip4 if resolver == "own" else resolver
    with udp(dns.pod, family(ip)) as inside, udp(dns.pod, family(ip)) as app:
        inside.bind((ip, 53))
        app.sendto(b"query", (ip, 53))
        assert inside.recv(100) == b"query"


def test_the_proxy_s_own_queries_go_out(dns: Dns, peer: Namespace) -> None:
    with udp(peer, socket.AF_INET) as outside, udp(dns.pod, socket.AF_INET) as own:
        outside.bind((peer.ip4, 53))
        dns.steering.exempt(own.fileno())
        own.sendto(b"upstream", (peer.ip4, 53))
        assert outside.recv(100) == b"upstream"


def test_other_udp_is_left_alone(dns: Dns, peer: Namespace) -> None:
    with udp(peer, socket.AF_INET) as outside, udp(dns.pod, socket.AF_INET) as app:
        outside.bind((peer.ip4, 5353))
        app.sendto(b"hello", (peer.ip4, 5353))
        data, source = outside.recvfrom(100)
        assert (data, source[0]) == (b"hello", dns.pod.ip4)
        outside.sendto(b"back", source)
        assert app.recvfrom(100) == (b"back", (peer.ip4, 5353))


def test_a_pod_that_did_not_ask_for_it_asks_its_resolver_itself(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace
) -> None:
    with udp(peer, socket.AF_INET) as outside, udp(pod, socket.AF_INET) as app:
        outside.bind((peer.ip4, 53))
        app.sendto(b"query", (peer.ip4, 53))
        assert outside.recv(100) == b"query"


def test_the_switch_works_on_a_pod_that_is_enrolled(dns: Dns, peer: Namespace) -> None:
    dns.steering.choose(dns.pod.netns.cookie(), PodOptions(dns=False))
    with udp(peer, socket.AF_INET) as outside, udp(dns.pod, socket.AF_INET) as app:
        outside.bind((peer.ip4, 53))
        app.sendto(b"query", (peer.ip4, 53))
        assert outside.recv(100) == b"query"
        dns.steering.choose(dns.pod.netns.cookie(), PodOptions(dns=True))
        app.sendto(b"again", (peer.ip4, 53))
        assert dns.server.answer().data == b"again"


def test_a_pod_that_asks_everybody_stays_within_its_aliases(dns: Dns) -> None:
    with udp(dns.pod, socket.AF_INET) as app:
        for number in range(3 * SLOTS):
            resolver = f"203.0.113.{number}"
            app.sendto(b"query", (resolver, 53))
            assert dns.resolvers.find(dns.server.answer().alias) == Endpoint(resolver, 53)
            assert app.recvfrom(100)[1] == (resolver, 53)
    assert SLOTS // 2 < len(dns.resolvers.all()) <= SLOTS


def test_aliases_go_when_the_pod_leaves(dns: Dns) -> None:
    with udp(dns.pod, socket.AF_INET) as app:
        app.sendto(b"query", (ONE4, 53))
    assert dns.resolvers.all() != []
    dns.steering.detach(dns.pod.netns.cookie())
    assert dns.resolvers.all() == []
    cookie = dns.pod.netns.cookie()
    assert [key for key, _ in dns.maps.elements("zp_resolver") if ALIAS.unpack(key)["netns"] == cookie] == []


@pytest.mark.parametrize("words", [(), ("+tcp",), ("-6",)])
def test_dig_is_content_with_who_answers(dns: Dns, words: tuple[str, ...]) -> None:
    """dig takes an answer only from whom it asked; the stub's own is not DNS, but its header is echoed."""
    server = ONE6 if "-6" in words else ONE4
    command = [
        "ip",
        "netns",
        "exec",
        dns.pod.name,
        "dig",
        f"@{server}",
        "zproxy.example",
        "+tries=1",
        "+time=5",
        *words,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as dig:
        if "+tcp" in words:
            with Arrival.take(dns.server.tcp).sock as accepted:
                accepted.settimeout(5)
                accepted.sendall(answered(accepted.recv(4096), 2))
        else:
            data, ancillary, _, source = dns.server.udp.recvmsg(4096, 512)
            control = [
                (level, kind, value[:16] + bytes(4)) for level, kind, value in ancillary if level == 41
            ]
            dns.server.udp.sendmsg([answered(data, 0)], control, 0, source)
        printed = dig.communicate(timeout=10)[0]
    assert "status: NXDOMAIN" in printed, printed
    assert f"SERVER: {server}#53({server})" in printed


def answered(query: bytes, offset: int) -> bytes:
    """Turn a query into the answer NXDOMAIN: the bit QR, and the code."""
    message = bytearray(query)
    message[offset + 2] |= 0x80
    message[offset + 3] = 3
    return bytes(message)


def test_a_family_that_the_pod_has_not_is_refused(steering: Steering, pod: Namespace) -> None:
    """Its aliases are not local then, and the query would leave for them."""
    with ExitStack() as stack:
        straw = Straw(pod)
        stack.callback(straw.close)
        wanted = straw.steering(ips=(pod.ip4,))._replace(options=PodOptions(dns=True))
        stack.callback(steering.detach, wanted.cookie)
        steering.attach(wanted)
        before = steering.stats()["dns_refused"]
        with udp(pod, socket.AF_INET6) as app:
            with pytest.raises(ConnectionRefusedError):
                app.sendto(b"query", (ONE6, 53))
            with pytest.raises(ConnectionRefusedError):
                app.connect((ONE6, 53))
        assert steering.stats()["dns_refused"] == before + 2
