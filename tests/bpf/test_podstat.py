"""zp_podstat: what a pod has open, and the alarm before its source ports run out."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.netns import PREFIX, Namespace
from tests.support.straw import Straw, attached, dial
from zproxy.steering import decoded
from zproxy.steering.decoded import NodeMaps
from zproxy.steering.steering import Steering

pytestmark = pytest.mark.root

V4 = "203.0.113.9"
IPPROTO_MPTCP = 262


@pytest.fixture
def maps(steering: Steering) -> Iterator[NodeMaps]:
    with decoded.opened(f"{PREFIX}bpf") as opened:
        yield opened


def counters(maps: NodeMaps, pod: Namespace) -> dict[str, int]:
    row = next(row for row in decoded.pods(maps) if row["pod"] == f"test/{pod.name}")
    found: dict[str, int] = row["counters"]
    return found


@pytest.mark.parametrize("protocol", [0, IPPROTO_MPTCP])
def test_a_socket_is_open_from_connect_to_close(
    straw: Straw, pod: Namespace, maps: NodeMaps, protocol: int
) -> None:
    with pod.socket(socket.AF_INET, proto=protocol) as app:
        app.connect((V4, 80))
        assert (counters(maps, pod)["open"], counters(maps, pod)["opened"]) == (1, 1)
    assert (counters(maps, pod)["open"], counters(maps, pod)["opened"]) == (0, 1)


def test_a_socket_that_is_refused_twice_was_open_once(straw: Straw, pod: Namespace, maps: NodeMaps) -> None:
    straw.outbound.close()
    with pod.socket(socket.AF_INET) as app:
        for _ in range(3):  # of which Linux answers the second from what it remembers of the first
            with pytest.raises(ConnectionError):
                app.connect((V4, 80))
        assert (counters(maps, pod)["open"], counters(maps, pod)["opened"]) == (1, 2)
    assert counters(maps, pod)["open"] == 0


def test_a_socket_from_before_an_unenrolment_is_not_counted_by_the_next_enrolment(
    steering: Steering, pod: Namespace, maps: NodeMaps
) -> None:
    with attached(steering, pod):
        app = dial(pod, V4, 80)
    with attached(steering, pod):
        app.close()
        assert counters(maps, pod)["open"] == 0


def test_a_socket_that_dials_something_exempt_is_not_open_any_more(
    straw: Straw, pod: Namespace, maps: NodeMaps
) -> None:
    straw.outbound.close()
    with pod.listen(8080), pod.socket(socket.AF_INET) as app:
        with pytest.raises(ConnectionRefusedError):
            app.connect((V4, 80))
        assert app.connect_ex((pod.ip4, 8080)) == errno.ECONNABORTED  # Linux tells the refusal once more
        app.connect((pod.ip4, 8080))
        assert counters(maps, pod)["open"] == 0


def test_updating_a_pod_keeps_its_counters(steering: Steering, pod: Namespace, maps: NodeMaps) -> None:
    with attached(steering, pod) as straw, dial(pod, V4, 80):
        steering.attach(straw.steering())
        assert (counters(maps, pod)["open"], counters(maps, pod)["opened"]) == (1, 1)


def test_the_alarm_moves_when_source_ports_are_nearly_used_up(steering: Steering, pod: Namespace) -> None:
    with ExitStack() as stack:
        straw = Straw(pod)
        stack.callback(straw.close)
        wanted = straw.steering()._replace(source_ports=10)
        stack.callback(steering.detach, wanted.cookie)
        steering.attach(wanted)
        before = steering.stats()["ports_scarce"]
        for number in range(10):
            stack.enter_context(dial(pod, V4, 80))
            assert steering.stats()["ports_scarce"] - before == max(0, number - 8)
