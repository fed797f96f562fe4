"""Where the connect programs hang: at the root, at the pod's cgroup, at both; and changes between these.

A cgroup of the test's own plays the root: below it are the daemon's and the pod's.
"""

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import foreign
from tests.support.netns import PREFIX, Namespace
from tests.support.straw import Arrival, Straw
from zproxy.errors import SteeringError
from zproxy.model.addr import Endpoint
from zproxy.model.attach import Attach
from zproxy.steering import attachment, links
from zproxy.steering.layout import COOKIE, PODSTAT
from zproxy.steering.objects import open_maps
from zproxy.steering.pins import NodePins
from zproxy.steering.steering import Steering, remove

pytestmark = pytest.mark.root

NODE = f"{PREFIX}attach"
PINS = NodePins(NODE)
VIP, BACKEND = "203.0.113.9", "198.51.100.7"
V6, MAPPED = "2001:db8::9", f"::ffff:{VIP}"
MODES = pytest.mark.parametrize("mode", list(Attach))


class Tree(NamedTuple):
    """What plays the root, with the daemon's cgroup and the pod's below it."""

    top: Path
    daemon: Path
    pod: Path


@pytest.fixture
def tree() -> Iterator[Tree]:
    with (
        foreign.cgroup(f"{PREFIX}top") as top,
        foreign.cgroup("daemon", top) as daemon,
        foreign.cgroup("pod", top) as pod,
    ):
        yield Tree(top, daemon, pod)
        remove(NODE)


@contextmanager
def opened(tree: Tree, mode: Attach) -> Iterator[Steering]:
    """Open the node's steering as a daemon in its cgroup does."""
    with foreign.inside(tree.daemon):
        steering = Steering.open(NODE, cgroup=tree.top, attach=mode)
    try:
        yield steering
    finally:
        steering.close()


@contextmanager
def enrolled(steering: Steering, tree: Tree, pod: Namespace, ips: tuple[str, ...] = ()) -> Iterator[Straw]:
    """Enrol the pod; its straw belongs to the daemon's cgroup."""
    with foreign.inside(tree.daemon):
        straw = Straw(pod)
    wanted = straw.steering(ips=ips or None)
    own = None if steering.attach_mode is Attach.ROOT else tree.pod
    try:
        steering.attach(wanted._replace(cgroup=own))
        yield straw
    finally:
        steering.detach(wanted.cookie)
        straw.close()


def app_socket(tree: Tree, pod: Namespace, ip: str = VIP) -> socket.socket:
    """Make a socket as a process of the pod does."""
    with foreign.inside(tree.pod):
        return pod.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)


def counted(steering: Steering, work: Callable[[], object]) -> dict[str, int]:
    """Return by how much each reason has grown through `work`."""
    before = steering.stats()
    work()
    return {name: n - before[name] for name, n in steering.stats().items() if n != before[name]}


def podstat(pod: Namespace) -> tuple[int, int]:
    """Return the pod's counters of open and of opened connections."""
    objects = open_maps(PINS)
    key = COOKIE.pack(cookie=pod.netns.cookie())
    value = dict(objects.elements("zp_podstat"))[key]
    objects.close()
    return PODSTAT.unpack(value)["open"], PODSTAT.unpack(value)["opened"]


@pytest.mark.parametrize(("ip", "original"), [(VIP, VIP), (V6, V6), (MAPPED, VIP)])
@MODES
def test_a_connection_of_the_pod_is_steered_once(
    tree: Tree, pod: Namespace, mode: Attach, ip: str, original: str
) -> None:
    family = "captured_v6" if ":" in original else "captured_v4"
    with opened(tree, mode) as steering, enrolled(steering, tree, pod) as straw:

        def connect() -> None:
            with app_socket(tree, pod, ip) as app:
                app.connect((ip, 80))
                arrival = Arrival.take(straw.outbound)
                with arrival.sock:
                    assert arrival.original == Endpoint(original, 80)
                    assert app.getpeername()[:2] == (ip, 80)
                    assert len(steering.connections()) == 1
                    assert podstat(pod) == (1, 1)

        assert counted(steering, connect) == {family: 1, "handed_over": 1}
        assert steering.connections() == []
        assert podstat(pod) == (0, 1)


@pytest.mark.parametrize(
    ("ip", "reason"),
    [("127.0.0.1", "exempt_loopback"), ("::1", "exempt_loopback"), ("OWN", "exempt_own_ip")],
)
@MODES
def test_an_exemption_is_counted_once(tree: Tree, pod: Namespace, mode: Attach, ip: str, reason: str) -> None:
    to = pod.ip4 if ip == "OWN" else ip
    with opened(tree, mode) as steering, enrolled(steering, tree, pod), pod.listen(8080):
        for _ in range(3):
            with app_socket(tree, pod, to) as app:
                assert counted(steering, lambda app=app: app.connect((to, 8080))) == {reason: 1}  # type: ignore[misc]


@MODES
def test_a_refusal_is_counted_once(tree: Tree, pod: Namespace, mode: Attach) -> None:
    with opened(tree, mode) as steering, enrolled(steering, tree, pod, ips=(pod.ip6,)):

        def connect() -> None:
            with app_socket(tree, pod) as app, pytest.raises(OSError, match="unreachable"):
                app.connect((VIP, 80))

        assert counted(steering, connect) == {"refused_no_family": 1}


def test_a_socket_that_dials_the_outbound_port_itself_is_not_taken_for_steered(
    tree: Tree, pod: Namespace
) -> None:
    with opened(tree, Attach.BOTH) as steering, enrolled(steering, tree, pod) as straw:

        def connect() -> None:
            with app_socket(tree, pod) as app:
                app.connect((pod.ip4, 15001))
                arrival = Arrival.take(straw.outbound)
                arrival.sock.close()
                assert arrival.original is None

        assert counted(steering, connect) == {"exempt_own_ip": 1, "handover_missing": 1}


@pytest.mark.parametrize(("mode", "seen"), [(Attach.ROOT, BACKEND), (Attach.POD, VIP), (Attach.BOTH, VIP)])
def test_a_load_balancer_at_the_root_hides_the_vip_from_the_root_alone(
    tree: Tree, pod: Namespace, mode: Attach, seen: str
) -> None:
    with (
        foreign.attached(tree.top, foreign.balancing(VIP, BACKEND)),
        opened(tree, mode) as steering,
        enrolled(steering, tree, pod) as straw,
        app_socket(tree, pod) as app,
    ):
        app.connect((VIP, 80))
        arrival = Arrival.take(straw.outbound)
        arrival.sock.close()
        assert arrival.original == Endpoint(seen, 80)


@pytest.mark.parametrize("mode", [Attach.ROOT, Attach.BOTH])
def test_a_process_from_another_cgroup_is_steered_from_the_root(
    tree: Tree, pod: Namespace, mode: Attach
) -> None:
    with opened(tree, mode) as steering, enrolled(steering, tree, pod) as straw:
        with foreign.inside(tree.daemon):
            app = pod.socket()

        def connect() -> None:
            with app:
                app.connect((VIP, 80))
                arrival = Arrival.take(straw.outbound)
                arrival.sock.close()
                assert arrival.original == Endpoint(VIP, 80)

        assert counted(steering, connect) == {"captured_v4": 1, "handed_over": 1}


def test_with_the_pods_cgroup_alone_other_cgroups_are_not_steered_and_not_let_out(
    tree: Tree, pod: Namespace, peer: Namespace
) -> None:
    with opened(tree, Attach.POD) as steering, enrolled(steering, tree, pod), peer.listen(9000) as server:
        server.setblocking(False)
        with foreign.inside(tree.daemon), pod.socket(socket.AF_INET) as app:
            app.settimeout(0.3)
            with pytest.raises(TimeoutError):
                app.connect((peer.ip4, 9000))
        with pytest.raises(BlockingIOError):
            server.accept()
        counts = steering.stats()
        assert (counts["captured_v4"], counts["clear_blocked"]) == (0, 1)


@MODES
def test_links_hang_where_the_mode_says(tree: Tree, pod: Namespace, mode: Attach) -> None:
    with opened(tree, mode) as steering, enrolled(steering, tree, pod):
        assert attachment.has_root(PINS) is (mode is not Attach.POD)
        assert attachment.has_pod(PINS, pod.netns.cookie()) is (mode is not Attach.ROOT)
        for directory, place in ((PINS.links, tree.top), (PINS.pod(pod.netns.cookie()), tree.pod)):
            for hook in attachment.AT_ROOT.values():
                found = links.describe(directory / hook.pin)
                if found is not None:
                    assert (found.target, found.attach_type) == (place.stat().st_ino, hook.attach_type)


@pytest.mark.parametrize("after", list(Attach))
@MODES
def test_a_daemon_with_another_mode_takes_a_pod_over_without_a_gap(
    tree: Tree, pod: Namespace, mode: Attach, after: Attach
) -> None:
    with foreign.inside(tree.daemon):
        straw = Straw(pod)
    wanted = straw.steering()
    try:
        for now in (mode, after):
            with opened(tree, now) as steering:
                if steering.pods():  # not yet attached again
                    _arrives(tree, pod, straw)
                steering.attach(wanted._replace(cgroup=None if now is Attach.ROOT else tree.pod))
                _arrives(tree, pod, straw)
        assert attachment.has_root(PINS) is (after is not Attach.POD)
        assert attachment.has_pod(PINS, wanted.cookie) is (after is not Attach.ROOT)
        assert (PINS.links / "sock_ops-own").exists() is (after is Attach.POD)
    finally:
        straw.close()


def _arrives(tree: Tree, pod: Namespace, straw: Straw) -> None:
    with app_socket(tree, pod) as app:
        app.connect((VIP, 80))
        arrival = Arrival.take(straw.outbound)
        arrival.sock.close()
        assert arrival.original == Endpoint(VIP, 80)


def test_who_runs_first_all_the_same_is_told(
    tree: Tree, pod: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    flags = foreign.MULTI | foreign.PREORDER
    with (
        foreign.attached(tree.top, foreign.balancing(VIP, BACKEND), name="eager_lb", flags=flags),
        opened(tree, Attach.BOTH) as steering,
        caplog.at_level(logging.WARNING),
        enrolled(steering, tree, pod),
    ):
        assert "eager_lb" in caplog.text
        assert "run before zproxy" in caplog.text


def test_a_cgroup_that_is_not_there_is_said(tree: Tree, pod: Namespace) -> None:
    with opened(tree, Attach.BOTH) as steering, ExitStack() as stack:
        straw = Straw(pod)
        stack.callback(straw.close)
        with pytest.raises(SteeringError, match="cannot open the cgroup"):
            steering.attach(straw.steering()._replace(cgroup=tree.top / "gone"))
        assert not PINS.pod(pod.netns.cookie()).exists()
