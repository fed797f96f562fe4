"""What the socket lookup does with a noted flow: the pod's listener, or a reset at once."""

import socket
import time

import pytest

from tests.support.netns import Namespace
from tests.support.straw import Arrival, Straw, dial, size_of
from zproxy.steering.steering import Steering

pytestmark = pytest.mark.root

FAMILIES = pytest.mark.parametrize("family", [4, 6])


@FAMILIES
def test_without_listener_the_client_is_refused_at_once_and_never_meets_the_app(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace, family: int
) -> None:
    before, noted = steering.stats()["no_listener"], size_of("zp_in")
    straw.plaintext.close()
    with pod.listen(8080) as app:
        app.setblocking(False)
        started = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            dial(peer, pod.ip4 if family == 4 else pod.ip6, 8080)
        assert time.monotonic() - started < 0.5
        with pytest.raises(BlockingIOError):
            app.accept()
    assert steering.stats()["no_listener"] == before + 1
    assert size_of("zp_in") == noted


def test_a_new_listener_takes_the_place_of_a_closed_one(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace
) -> None:
    straw.plaintext.close()
    straw.plaintext = pod.listen(15006)
    steering.attach(straw.steering())
    with dial(peer, pod.ip4, 8080):
        Arrival.take(straw.plaintext).sock.close()


def test_a_listener_that_cannot_take_the_family_means_a_reset(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace
) -> None:
    before = steering.stats()["assign_error"]
    straw.plaintext.close()
    straw.plaintext = pod.listen(15006, pod.ip4)
    steering.attach(straw.steering())
    with pod.listen(8080), pytest.raises(ConnectionRefusedError):
        dial(peer, pod.ip6, 8080)
    assert steering.stats()["assign_error"] == before + 1


def test_udp_lookups_pass(straw: Straw, pod: Namespace, peer: Namespace) -> None:
    with pod.socket(kind=socket.SOCK_DGRAM) as app, peer.socket(kind=socket.SOCK_DGRAM) as client:
        app.bind((pod.ip4, 15006))
        client.sendto(b"datagram", (pod.ip4, 15006))
        assert app.recv(64) == b"datagram"


def test_counters_tell_what_happened(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace
) -> None:
    before = steering.stats()
    with dial(peer, pod.ip4, 8080):
        Arrival.take(straw.plaintext).sock.close()
    after = steering.stats()
    moved = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert moved == {"inbound_recorded": 1, "inbound_assigned": 1}
