"""What is noted of connects that are under way, and forgotten; tests/bpf has who reads it."""

import socket
from collections.abc import Iterator

import pytest

from tests.support.netns import PREFIX, Namespace
from zproxy.steering import begun, syscall
from zproxy.steering.layout import COOKIE, FLOW, TUPLE_KEY, pack_ip
from zproxy.steering.objects import Objects, open_maps
from zproxy.steering.pins import NodePins
from zproxy.steering.steering import Steering

pytestmark = pytest.mark.root

STRANGER = 3


@pytest.fixture
def objects(steering: Steering) -> Iterator[Objects]:
    opened = open_maps(NodePins(f"{PREFIX}unit"))
    yield opened
    opened.close()


def key(cookie: int, source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    flow = FLOW.pack(
        src_ip=pack_ip(source[0]),
        src_port=source[1],
        dst_ip=pack_ip(destination[0]),
        dst_port=destination[1],
    )
    return TUPLE_KEY.pack(netns=cookie, flow=flow)


def noted(objects: Objects) -> set[bytes]:
    return {key for key, _ in objects.elements("zp_begun")}


@pytest.mark.parametrize("ip", ["203.0.113.9", "2001:db8::9", "::ffff:203.0.113.9"])
def test_what_has_no_answer_is_noted_and_forgotten_with_its_pod(
    objects: Objects, pod: Namespace, ip: str
) -> None:
    cookie = pod.netns.cookie()
    other = key(STRANGER, ("10.0.0.1", 4000), ("10.0.0.2", 80))
    syscall.map_update(objects.maps["zp_begun"], other, COOKIE.pack(cookie=1))
    with pod.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as app:
        app.setblocking(False)
        app.connect_ex((ip, 80))
        begun.note(objects, pod.netns, cookie)
        assert noted(objects) == {other, key(cookie, app.getsockname()[:2], (ip, 80))}
    begun.forget(objects, cookie)
    assert noted(objects) == {other}
    begun.forget(objects, STRANGER)


def test_what_listens_or_stands_is_not_noted(objects: Objects, pod: Namespace) -> None:
    with pod.listen(7001), pod.socket() as app:
        app.connect(("127.0.0.1", 7001))
        begun.note(objects, pod.netns, pod.netns.cookie())
        assert noted(objects) == set()
