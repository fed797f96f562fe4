"""Dumps and notices of a namespace, beside what iproute2 makes of it."""

import errno
import os
import re
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.support.netns import Namespace, ip, namespace, pair
from zproxy.model.addr import Endpoint, canonical_ip
from zproxy.net import netlink
from zproxy.net.netlink import Address, Interface, Route, Rule


@pytest.fixture
def pod() -> Iterator[Namespace]:
    with pair() as (made, _):
        yield made


def eth0(pod: Namespace) -> int:
    return pod.run(lambda: socket.if_nametoindex("eth0"))


@pytest.mark.root
def test_interfaces_are_seen_with_their_state(pod: Namespace) -> None:
    ip("-n", pod.name, "link", "add", "a.b", "type", "veth", "peer", "name", "c")
    found = {each.name: each for each in pod.run(netlink.interfaces)}
    assert found["lo"] == Interface(1, "lo", True)
    assert found["eth0"] == Interface(eth0(pod), "eth0", True)
    assert found["a.b"].is_up is False


@pytest.mark.root
def test_addresses_are_the_pod_s_own_and_global(pod: Namespace) -> None:
    ip("-n", pod.name, "addr", "add", "10.1.1.1", "peer", "10.1.1.2", "dev", "eth0")
    ip("-n", pod.name, "addr", "add", "fe80::7/64", "dev", "eth0", "nodad")
    found = pod.run(netlink.addresses)
    assert set(found) == {Address(eth0(pod), each) for each in (pod.ip4, pod.ip6, "10.1.1.1")}


@pytest.mark.root
@pytest.mark.parametrize(("family", "option"), [(socket.AF_INET, "-4"), (socket.AF_INET6, "-6")])
def test_rules_and_routes_of_a_table(pod: Namespace, family: int, option: str) -> None:
    ip("-n", pod.name, option, "rule", "add", "pref", "50", "fwmark", "0x5/0xff", "lookup", "300")
    ip("-n", pod.name, option, "route", "add", "local", "default", "dev", "lo", "table", "300")
    assert Rule(family, 50, 5, 0xFF, 300) in pod.run(lambda: netlink.rules(family))
    assert pod.run(lambda: netlink.routes(family, 300)) == [Route(family, 2, 0, 1)]
    assert pod.run(lambda: netlink.routes(family, 301)) == []


@pytest.mark.root
@pytest.mark.parametrize(
    ("prefix", "family"), [("10.66.0.0/16", socket.AF_INET), ("fd66::/64", socket.AF_INET6)]
)
def test_a_route_says_where_to_and_from_whom(pod: Namespace, prefix: str, family: int) -> None:
    source = pod.ip4 if family == socket.AF_INET else pod.ip6
    ip("-n", pod.name, "route", "add", "local", prefix, "dev", "eth0", "src", source, "table", "300")
    destination, _, length = prefix.partition("/")
    wanted = Route(family, 2, int(length), eth0(pod), destination, source)
    assert pod.run(lambda: netlink.routes(family, 300)) == [wanted]


@pytest.mark.root
def test_listening_sockets_are_known_by_cookie_and_inode(pod: Namespace) -> None:
    with pod.listen(7001, backlog=7) as six, pod.listen(7002, "127.0.0.1") as four:
        with pod.socket() as waiting:
            waiting.connect(("127.0.0.1", 7001))
            found = {each.port: each for each in pod.run(netlink.listening)}
        assert set(found) == {7001, 7002}
        assert (found[7001].family, found[7001].waiting, found[7001].backlog) == (socket.AF_INET6, 1, 7)
        for sock in (six, four):
            entry = found[sock.getsockname()[1]]
            assert struct.pack("=Q", entry.cookie) == sock.getsockopt(socket.SOL_SOCKET, 57, 8)
            assert re.fullmatch(rf"socket:\[{entry.inode}\]", _target(sock))


@pytest.mark.root
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_who_takes_datagrams_on_a_port_is_known_by_inode(pod: Namespace, family: int) -> None:
    sockets = [pod.socket(family, socket.SOCK_DGRAM) for _ in range(3)]
    taking, elsewhere, connected = sockets
    taking.bind(("", 7001))
    elsewhere.bind(("", 7002))
    connected.connect((pod.ip4 if family == socket.AF_INET else pod.ip6, 7001))
    (inode,) = pod.run(lambda: netlink.taking_datagrams(7001))
    assert _target(taking) == f"socket:[{inode}]"
    assert pod.run(lambda: netlink.taking_datagrams(connected.getsockname()[1])) == []
    for sock in sockets:
        sock.close()
    assert pod.run(lambda: netlink.taking_datagrams(7001)) == []


@pytest.mark.root
@pytest.mark.parametrize("to", ["203.0.113.9", "2001:db8::9", "::ffff:203.0.113.9"])
def test_dialling_sockets_are_those_without_an_answer(pod: Namespace, to: str) -> None:
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with pod.listen(7001), pod.socket() as standing, pod.socket(family) as app:
        standing.connect(("127.0.0.1", 7001))
        app.setblocking(False)
        app.connect_ex((to, 80))
        source = Endpoint(canonical_ip(app.getsockname()[0]), app.getsockname()[1])
        assert pod.run(netlink.dialling) == [(source, Endpoint(canonical_ip(to), 80))]


def _target(sock: socket.socket) -> str:
    return os.readlink(f"/proc/self/fd/{sock.fileno()}")


@pytest.mark.root
@pytest.mark.parametrize(
    "change",
    [
        ("addr", "add", "10.1.1.1/32", "dev", "eth0"),
        ("-6", "addr", "add", "fd99::1/128", "dev", "eth0"),
        ("rule", "add", "pref", "50", "lookup", "300"),
        ("-6", "rule", "add", "pref", "50", "lookup", "300"),
        ("route", "add", "10.5.0.0/16", "dev", "eth0"),
        ("-6", "route", "add", "fd99::/64", "dev", "eth0"),
        ("link", "set", "eth0", "down"),
        ("link", "add", "more", "type", "veth", "peer", "name", "c"),
    ],
)
def test_a_change_is_noticed_and_silence_is_not(pod: Namespace, change: tuple[str, ...]) -> None:
    with pod.run(netlink.open_watch) as watch:
        assert not netlink.drain(watch)
        ip("-n", pod.name, *change)
        assert netlink.drain(watch)
        assert not netlink.drain(watch)


@pytest.mark.root
def test_notices_that_did_not_fit_are_as_good_as_one(pod: Namespace) -> None:
    with pod.run(netlink.open_watch) as watch:
        for number in range(200):
            ip("-n", pod.name, "route", "add", f"10.6.{number}.0/24", "dev", "eth0")
        assert netlink.drain(watch)
        assert not netlink.drain(watch)


@pytest.mark.root
def test_a_namespace_without_anything_is_nearly_empty() -> None:
    with namespace() as empty:
        assert [each.name for each in empty.run(netlink.interfaces)] == ["lo"]
        assert empty.run(netlink.addresses) == []
        assert empty.run(netlink.listening) == []


class Answering:
    """A socket that answers a dump with these bytes."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)

    def recv(self, _: int) -> bytes:
        return self._answers.pop(0)


def message(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def test_what_is_too_short_is_left_out_and_a_torn_dump_is_known() -> None:
    answers = message(16, b"x" * 4) + message(16, b"y" * 16, flags=0x10) + message(3, bytes(4))
    sock = Answering(answers)
    assert netlink._answers(sock, 16) == ([(b"y" * 16, {})], True)  # type: ignore[arg-type] # stands for a socket


def test_an_error_is_the_kernel_s_own_and_absence_is_none() -> None:
    refused = Answering(message(2, struct.pack("=i", -errno.EPERM)))
    with pytest.raises(PermissionError):
        netlink._answers(refused, 16)  # type: ignore[arg-type] # likewise
    absent = Answering(message(2, struct.pack("=i", -errno.EAFNOSUPPORT)))
    assert netlink._answers(absent, 16) == ([], False)  # type: ignore[arg-type] # likewise
