"""A running pod is enrolled, and nobody notices: no packet is lost, no connection breaks, none is refused."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bystander import traffic
from tests.support.crowd import Crowd, crowd
from tests.support.netns import batch
from tests.support.nodes import wait_for

pytestmark = pytest.mark.root

PODS = 4
FOLLOWING_MS = 50
"""What enrolment may take once the daemon has enrolled a pod: the best of several, on a busy machine."""


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Crowd]:
    with crowd(PODS, tmp_path) as made:
        yield made


@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
def test_a_running_pod_loses_nothing_at_its_enrolment(pods: Crowd, *, v6: bool) -> None:
    for number, pod in enumerate(pods.fleet.pods):
        before = pods.steered()
        with traffic(pod, pods.fleet.peer, v6=v6) as running:
            pods.enroll(number)
            wait_for(lambda before=before: pods.steered() > before + 40, "new connections are steered")  # type: ignore[misc]
            running.goes_on()
            running.end()


@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
def test_a_connect_without_an_answer_at_enrolment_gets_it_afterwards(pods: Crowd, *, v6: bool) -> None:
    """Its SYN waits for the address to be resolved, and leaves when the pod is enrolled."""
    (pod, *_), peer = pods.fleet.pods, pods.fleet.peer
    to, size = ("fd78::ffff", 64) if v6 else ("10.78.255.9", 16)
    with (
        peer.listen(8080) as server,
        pod.socket(socket.AF_INET6 if v6 else socket.AF_INET) as app,
    ):
        app.setblocking(False)
        app.connect_ex((to, 8080))
        app.settimeout(5)
        pods.enroll(0)
        assert [entry["key"]["flow"]["dst_port"] for entry in pods.node.dump("zp_begun")] == [8080]
        batch(peer.name, [f"addr add {to}/{size} dev {peer.interface}" + " nodad" * v6])
        server.settimeout(5)
        with server.accept()[0] as accepted:
            app.sendall(b"late")
            assert accepted.recv(16) == b"late"
        assert pods.steered() == 0
    assert all(entry["value"]["refused"] == 0 for entry in pods.node.dump("zp_podstat"))


def test_the_pods_after_the_first_are_enrolled_at_once(pods: Crowd) -> None:
    _, *following = [pods.enroll(number) for number in range(PODS)]
    assert min(following) < FOLLOWING_MS
