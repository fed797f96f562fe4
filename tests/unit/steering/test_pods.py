"""Attach and detach of one pod: order, undoing, taking over, the dead."""

import errno
import time
from collections.abc import Iterator

import pytest

from tests.support.netns import PREFIX, Namespace, ip, namespace, pair
from tests.support.straw import Arrival, Straw, attached, dial
from zproxy.errors import SteeringError
from zproxy.net import netlink
from zproxy.steering import links, syscall
from zproxy.steering.layout import POD_IP, pack_ip, unpack_ip
from zproxy.steering.objects import Objects, open_maps
from zproxy.steering.pins import NodePins, entries
from zproxy.steering.steering import Steering

pytestmark = pytest.mark.root

PINS = NodePins(f"{PREFIX}unit")


@pytest.fixture
def objects(steering: Steering) -> Iterator[Objects]:
    opened = open_maps(PINS)
    yield opened
    opened.close()


@pytest.fixture
def enrolled(steering: Steering, straw: Straw) -> Iterator[Straw]:
    steering.attach(straw.steering())
    yield straw
    steering.detach(straw.steering().cookie)


def addresses(objects: Objects, cookie: int) -> set[str]:
    """Return the addresses that the kernel knows of a pod."""
    table = objects.elements("zp_podip")
    return {unpack_ip(key) for key, value in table if POD_IP.unpack(value)["netns"] == cookie}


def pinned(cookie: int) -> list[str]:
    return [path.name for path in entries(PINS.pod(cookie))]


def test_attach_writes_everything_and_detach_removes_it(
    steering: Steering, objects: Objects, straw: Straw
) -> None:
    wanted = straw.steering()
    steering.attach(wanted)
    (entry,) = steering.pods()
    assert (entry.cookie, entry.name, entry.uid) == (wanted.cookie, wanted.name, wanted.uid)
    assert (entry.ip4, entry.ip6, entry.generation) == (straw.pod.ip4, straw.pod.ip6, 1)
    assert (entry.outbound_port, entry.plaintext_port, entry.hbone_port) == (15001, 15006, 15008)
    assert addresses(objects, wanted.cookie) == set(straw.pod.ips)
    assert pinned(wanted.cookie) == ["sk_lookup", "tcx_egress-eth0", "tcx_ingress-eth0"]
    steering.detach(wanted.cookie)
    assert steering.pods() == []
    assert addresses(objects, wanted.cookie) == set()
    assert not PINS.pod(wanted.cookie).exists()
    assert syscall.prog_query(straw.pod.netns.fd, 36)[0] == []


def test_only_the_first_attach_is_when_a_pod_was_switched_on(steering: Steering, straw: Straw) -> None:
    before = time.monotonic_ns()
    steering.attach(straw.steering())
    (first,) = steering.pods()
    steering.attach(straw.steering())
    (again,) = steering.pods()
    steering.detach(first.cookie)
    assert before < first.since_ns == again.since_ns < time.monotonic_ns()


def test_an_attach_that_cannot_tell_what_is_under_way_is_undone(
    steering: Steering, objects: Objects, straw: Straw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netlink, "dialling", _out_of_memory)
    with pytest.raises(SteeringError, match=r"which connects of test/.* are under way: Cannot allocate"):
        steering.attach(straw.steering())
    assert steering.pods() == []
    assert addresses(objects, straw.steering().cookie) == set()
    assert not PINS.pod(straw.steering().cookie).exists()


def _out_of_memory() -> None:
    raise OSError(errno.ENOMEM, "no memory")


def test_detach_restores_the_pods_own_traffic(steering: Steering, pod: Namespace, peer: Namespace) -> None:
    with attached(steering, pod):
        pass
    with peer.listen(9000) as server, dial(pod, peer.ip4, 9000) as sock, Arrival.take(server).sock:
        assert sock.getpeername() == (peer.ip4, 9000)
    with pod.listen(8080) as app, dial(peer, pod.ip4, 8080):
        Arrival.take(app).sock.close()


def test_detach_is_idempotent_and_knows_no_cookie_by_heart(steering: Steering, straw: Straw) -> None:
    steering.attach(straw.steering())
    for cookie in (straw.steering().cookie, straw.steering().cookie, 0):
        steering.detach(cookie)


def test_attaching_again_keeps_slot_and_links_and_counts(steering: Steering, enrolled: Straw) -> None:
    pin = PINS.pod(enrolled.steering().cookie) / "sk_lookup"
    (before,), lookup = steering.pods(), links.describe(pin)
    steering.attach(enrolled.steering())
    (after,) = steering.pods()
    assert after == before._replace(generation=2)
    assert links.describe(pin) == lookup


def test_attaching_again_follows_addresses_and_interfaces(
    steering: Steering, objects: Objects, enrolled: Straw
) -> None:
    pod = enrolled.pod
    ip("-n", pod.name, "link", "add", "eth1.7", "type", "veth", "peer", "name", "far")
    ip("-n", pod.name, "addr", "add", "10.99.0.1/32", "dev", "eth1.7")
    wanted = enrolled.steering(ips=(pod.ip6, "10.99.0.1"))._replace(interfaces=("eth1.7",))
    steering.attach(wanted)
    assert addresses(objects, wanted.cookie) == {pod.ip6, "10.99.0.1"}
    assert pinned(wanted.cookie) == ["sk_lookup", "tcx_egress-eth1%2E7", "tcx_ingress-eth1%2E7"]
    assert steering.pods()[0].ip4 == "10.99.0.1"


def test_link_local_addresses_are_known_but_no_destination(steering: Steering, straw: Straw) -> None:
    steering.attach(straw.steering(ips=("fe80::1", "fd00::1")))
    (entry,) = steering.pods()
    steering.detach(entry.cookie)
    assert (entry.ip4, entry.ip6) == ("", "fd00::1")


def test_a_pod_without_addresses_is_refused(steering: Steering, straw: Straw) -> None:
    with pytest.raises(SteeringError, match="has no address that its connections could be sent to"):
        steering.attach(straw.steering(ips=()))
    assert_untouched(steering, straw)


def test_an_unknown_interface_undoes_everything(steering: Steering, straw: Straw) -> None:
    with pytest.raises(SteeringError, match="has no interface eth9"):
        steering.attach(straw.steering()._replace(interfaces=("eth0", "eth9")))
    assert_untouched(steering, straw)


def test_a_listener_that_is_none_undoes_everything(steering: Steering, straw: Straw) -> None:
    with open("/dev/null") as null, pytest.raises(SteeringError, match="cannot hand the plaintext listener"):
        steering.attach(straw.steering()._replace(plaintext_listener=null.fileno()))
    assert_untouched(steering, straw)


def test_a_failed_update_leaves_the_pod_as_it_was(
    steering: Steering, objects: Objects, enrolled: Straw
) -> None:
    (before,) = steering.pods()
    wanted = enrolled.steering(ips=(*enrolled.pod.ips, "10.98.0.1"))._replace(interfaces=("eth0", "eth9"))
    with pytest.raises(SteeringError, match="no interface eth9"):
        steering.attach(wanted)
    assert steering.pods() == [before]
    assert addresses(objects, before.cookie) == set(enrolled.pod.ips)
    assert pinned(before.cookie) == ["sk_lookup", "tcx_egress-eth0", "tcx_ingress-eth0"]
    with dial(enrolled.pod, "203.0.113.9", 80):
        Arrival.take(enrolled.outbound).sock.close()


def test_an_address_of_a_living_pod_is_refused(steering: Steering, enrolled: Straw) -> None:
    with pair("twin", "beside") as (twin, _):
        other = Straw(twin)
        with pytest.raises(SteeringError, match=f"is test/{enrolled.pod.name}'s, whose network namespace"):
            steering.attach(other.steering(ips=(twin.ip4, enrolled.pod.ip4)))
        assert [entry.name for entry in steering.pods()] == [f"test/{enrolled.pod.name}"]
        other.close()


def test_an_address_of_a_dead_pod_is_taken_over(steering: Steering, straw: Straw) -> None:
    with namespace("dying") as dying:
        dead = Straw(dying)
        wanted = dead.steering(ips=(straw.pod.ip4,))._replace(interfaces=())
        steering.attach(wanted)
        dead.close()
    steering.attach(straw.steering())
    assert [entry.cookie for entry in steering.pods()] == [straw.steering().cookie]
    assert not PINS.pod(wanted.cookie).exists()
    steering.detach(straw.steering().cookie)


def test_a_dead_pod_is_detached(steering: Steering, objects: Objects) -> None:
    with pair("dying", "beside") as (dying, _):
        straw = Straw(dying)
        wanted = straw.steering()
        steering.attach(wanted)
        straw.close()
    steering.detach(wanted.cookie)
    assert steering.pods() == []
    assert addresses(objects, wanted.cookie) == set()
    assert not PINS.pod(wanted.cookie).exists()


def test_a_slot_that_a_cut_off_attach_has_taken_is_not_given_away(
    steering: Steering, objects: Objects, straw: Straw
) -> None:
    """Its packets would arrive at another pod's listener."""
    key = pack_ip("10.97.0.1")
    syscall.map_update(objects.maps["zp_podip"], key, POD_IP.pack(netns=1, slot=0, hbone_port=15008))
    steering.attach(straw.steering())
    assert [entry.slot for entry in steering.pods()] == [1]
    steering.detach(straw.steering().cookie)
    syscall.map_delete(objects.maps["zp_podip"], key)


def test_slots_are_reused(steering: Steering, hosts: tuple[Namespace, Namespace]) -> None:
    straws = [Straw(host) for host in hosts]
    for straw in straws:
        steering.attach(straw.steering())
    assert sorted(entry.slot for entry in steering.pods()) == [0, 1]
    steering.detach(straws[0].steering().cookie)
    steering.attach(straws[0].steering())
    assert sorted(entry.slot for entry in steering.pods()) == [0, 1]
    for straw in straws:
        steering.detach(straw.steering().cookie)
        straw.close()


def assert_untouched(steering: Steering, straw: Straw) -> None:
    cookie = straw.steering().cookie
    opened = open_maps(PINS)
    assert addresses(opened, cookie) == set()
    opened.close()
    assert not PINS.pod(cookie).exists()
    assert cookie not in {entry.cookie for entry in steering.pods()}
