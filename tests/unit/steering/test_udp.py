"""What zp_udp holds, read back and forgotten; tests/bpf has who writes it."""

from collections.abc import Iterator

import pytest

from tests.support.netns import PREFIX
from tests.support.straw import Straw
from zproxy.errors import ConfigError, SteeringError
from zproxy.steering import syscall
from zproxy.steering.layout import LAYOUT, UDP, UDP_KEY, Meta, pack_ip
from zproxy.steering.objects import Objects, open_maps
from zproxy.steering.pins import NodePins
from zproxy.steering.steering import Steering
from zproxy.steering.udp import UdpFlow, flows, forget

pytestmark = pytest.mark.root

NODE = f"{PREFIX}unit"
STRANGER = 3


@pytest.fixture
def objects(steering: Steering) -> Iterator[Objects]:
    opened = open_maps(NodePins(NODE))
    yield opened
    opened.close()


@pytest.fixture
def enrolled(steering: Steering, straw: Straw) -> Iterator[Straw]:
    steering.attach(straw.steering())
    yield straw
    steering.detach(straw.steering().cookie)


def put(objects: Objects, cookie: int, ip: str, last_ns: int, **ports: int) -> None:
    key = UDP_KEY.pack(netns=cookie, dst_ip=pack_ip(ip), **ports)
    value = UDP.pack(packets=3, bytes=300, blocked=1, first_ns=5, last_ns=last_ns)
    syscall.map_update(objects.maps["zp_udp"], key, value)


def test_flows_are_those_of_the_map_with_the_latest_at_the_end(objects: Objects, enrolled: Straw) -> None:
    pod = enrolled.steering()
    put(objects, pod.cookie, "2001:db8::9", 9, src_port=5300)
    put(objects, pod.cookie, "203.0.113.9", 7, dst_port=443)
    put(objects, STRANGER, "203.0.113.8", 8)
    try:
        first, second, third = flows(NODE)
        assert flows(NODE, pod.name) == [first, third]
    finally:
        forget(objects, STRANGER)
    assert first == UdpFlow(NODE, pod.name, "203.0.113.9", 443, None, 3, 300, 1, 5, 7)
    assert (second.pod, second.ip, second.port, second.served_port) == ("", "203.0.113.8", None, None)
    assert (third.ip, third.port, third.served_port) == ("2001:db8::9", None, 5300)


def test_a_pod_that_leaves_takes_its_flows_along(steering: Steering, objects: Objects, straw: Straw) -> None:
    pod = straw.steering()
    steering.attach(pod)
    put(objects, pod.cookie, "203.0.113.9", 7, dst_port=443)
    put(objects, STRANGER, "203.0.113.9", 7, dst_port=443)
    steering.detach(pod.cookie)
    left = flows(NODE)
    forget(objects, STRANGER)
    assert [flow.pod for flow in left] == [""]
    assert flows(NODE) == []


def test_a_long_name_is_found_as_the_kernel_has_it(
    steering: Steering, straw: Straw, objects: Objects
) -> None:
    pod = straw.steering()._replace(name="demo/" + "n" * 80)
    steering.attach(pod)
    try:
        put(objects, pod.cookie, "203.0.113.9", 7, dst_port=443)
        assert len(flows(NODE, pod.name)) == 1
    finally:
        steering.detach(pod.cookie)


def test_an_unknown_pod_is_a_sentence(enrolled: Straw) -> None:
    with pytest.raises(ConfigError) as caught:
        flows(NODE, "demo/nobody")
    assert str(caught.value) == (
        f"unknown pod demo/nobody: none of that name is enrolled with {NODE}; `zproxy pods` lists those that "
        "are"
    )


def test_a_node_without_pins_is_a_sentence() -> None:
    with pytest.raises(SteeringError, match="no map zp_udp is pinned in"):
        flows(f"{PREFIX}nobody")


def test_another_versions_maps_are_not_guessed_at(objects: Objects) -> None:
    meta = objects.meta
    index = bytes(4)
    syscall.map_update(objects.maps["zp_meta"], index, Meta(LAYOUT + 1, meta.build).encode())
    try:
        with pytest.raises(SteeringError, match=f"has map layout {LAYOUT + 1}, this version has {LAYOUT}: "):
            flows(NODE)
    finally:
        syscall.map_update(objects.maps["zp_meta"], index, meta.encode())
