"""An upgrade to another map layout: pods are steered by one version or the other, and never by none."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.netns import PREFIX, Namespace, Socket
from tests.support.straw import Arrival, Straw, dial
from zproxy.errors import SteeringError
from zproxy.model.addr import Endpoint
from zproxy.steering import syscall
from zproxy.steering.former import Former
from zproxy.steering.layout import INDEX, LAYOUT, Meta
from zproxy.steering.objects import open_maps
from zproxy.steering.pins import NodePins, entries
from zproxy.steering.steering import Steering, remove

pytestmark = pytest.mark.root

NODE = f"{PREFIX}former"
OTHER_LAYOUT = LAYOUT + 100


@pytest.fixture
def pins() -> Iterator[NodePins]:
    yield NodePins(NODE)
    remove(NODE)


def declare_old(pins: NodePins, layout: int = OTHER_LAYOUT) -> None:
    """Make what is pinned another version's: the programs work, and nothing but zp_pods' keys is known."""
    objects = open_maps(pins)
    value = Meta(layout, "made elsewhere").encode()
    syscall.map_update(objects.maps["zp_meta"], INDEX.pack(index=0), value)
    objects.close()


def old_version(pins: NodePins, *straws: Straw) -> None:
    """Leave what a daemon of another layout leaves that had these pods enrolled."""
    steering = Steering.open(NODE)
    for straw in straws:
        steering.attach(straw.steering())
    steering.close()
    declare_old(pins)


class Leak:
    """Dials a server outside without end, and counts who gets through to it."""

    def __init__(self, pod: Namespace, peer: Namespace, stack: ExitStack) -> None:
        self.tries = 0
        self._pod = pod
        self._server: Socket = stack.enter_context(peer.listen(80))
        self._server.setblocking(False)
        self._to = (peer.ip4, 80)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._dial)
        stack.callback(self.stop)
        self._thread.start()

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join(10)

    def arrived(self) -> int:
        """Return how many connections have reached the server."""
        found = 0
        while True:
            try:
                self._server.accept()[0].close()
            except BlockingIOError:
                return found
            found += 1

    def _dial(self) -> None:
        while not self._is_over.is_set():
            with self._pod.socket(socket.AF_INET) as app:
                app.connect_ex(self._to)
            self.tries += 1


def test_a_pod_is_steered_before_during_and_after_and_then_the_old_maps_are_gone(
    pins: NodePins, pod: Namespace, peer: Namespace, straw: Straw
) -> None:
    with ExitStack() as stack:
        old_version(pins, straw)
        straw.outbound.listen(4096)
        leak = Leak(pod, peer, stack)
        steering = Steering.open(NODE)
        stack.callback(steering.close)
        assert (steering.pods(), Former(pins).pods()) == ([], [pod.netns.cookie()])
        steering.attach(straw.steering())
        leak.stop()
        assert leak.tries > 10
        assert leak.arrived() == 0
        assert [entry.cookie for entry in steering.pods()] == [pod.netns.cookie()]
        assert not pins.former.directory.exists()
        straw.outbound.setblocking(False)
        while True:
            try:
                straw.outbound.accept()[0].close()
            except BlockingIOError:
                break
        straw.outbound.settimeout(5)
        with dial(pod, "203.0.113.9", 80), Arrival.take(straw.outbound).sock:
            pass
        with dial(pod, "203.0.113.9", 81):
            arrival = Arrival.take(straw.outbound)
            arrival.sock.close()
            assert arrival.original == Endpoint("203.0.113.9", 81)


def test_inbound_goes_to_the_new_listener_though_the_old_one_is_gone(
    pins: NodePins, pod: Namespace, peer: Namespace, straw: Straw
) -> None:
    old_version(pins, straw)
    straw.plaintext.close()
    straw.plaintext = pod.listen(15006)
    steering = Steering.open(NODE)
    with pytest.raises(ConnectionRefusedError):
        dial(peer, pod.ip4, 8080)
    steering.attach(straw.steering())
    with dial(peer, pod.ip4, 8080), Arrival.take(straw.plaintext).sock as accepted:
        assert accepted.getsockname()[1] == 8080
    steering.close()


def test_a_pod_that_is_not_taken_up_stays_where_it_is_steered(
    pins: NodePins, hosts: tuple[Namespace, Namespace]
) -> None:
    one, other = Straw(hosts[0]), Straw(hosts[1])
    old_version(pins, one, other)
    steering = Steering.open(NODE)
    steering.attach(one.steering())
    assert Former(pins).pods() == [other.pod.netns.cookie()]
    other.outbound.close()
    with pytest.raises(ConnectionRefusedError):
        dial(other.pod, "203.0.113.9", 80)
    steering.close()
    again = Steering.open(NODE)
    assert Former(pins).pods() == [other.pod.netns.cookie()]
    again.detach(other.pod.netns.cookie())
    assert not pins.former.directory.exists()
    again.close()
    one.close()
    other.close()


@pytest.mark.parametrize("moves", [1, 2, 3])
def test_a_move_that_was_cut_off_is_finished_by_the_next_start(
    pins: NodePins, pod: Namespace, straw: Straw, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    old_version(pins, straw)
    real = Path.rename
    moved: list[Path] = []

    def rename(path: Path, target: Path) -> Path:
        if len(moved) == moves:
            raise KeyboardInterrupt
        moved.append(path)
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            Steering.open(NODE)
    assert len(moved) == moves
    Steering.open(NODE).close()
    assert Former(pins).pods() == [pod.netns.cookie()]
    with dial(pod, "203.0.113.9", 80) as app, straw.outbound.accept()[0]:
        assert app.getpeername() == ("203.0.113.9", 80)


def test_a_third_version_is_refused_with_the_remedy(
    pins: NodePins, hosts: tuple[Namespace, Namespace]
) -> None:
    one, other = Straw(hosts[0]), Straw(hosts[1])
    old_version(pins, one, other)
    steering = Steering.open(NODE)
    steering.attach(one.steering())
    steering.close()
    declare_old(pins, OTHER_LAYOUT + 1)
    with pytest.raises(SteeringError, match="holds the pods of a third version; unenroll them"):
        Steering.open(NODE)
    assert entries(pins.former.maps) != []
    one.close()
    other.close()


def test_without_pods_other_maps_are_replaced(pins: NodePins) -> None:
    old_version(pins)
    Steering.open(NODE).close()
    assert not pins.former.directory.exists()


def test_removing_the_node_removes_both_versions(pins: NodePins, pod: Namespace, straw: Straw) -> None:
    old_version(pins, straw)
    Steering.open(NODE).close()
    assert pins.former.directory.exists()
    remove(NODE)
    assert not pins.directory.exists()
