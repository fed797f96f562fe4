"""Which connections reach an app past the proxy: kubelet's by its cgroup, or the node's by its addresses."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import foreign
from tests.support.netns import PREFIX, Namespace, ip
from tests.support.straw import Arrival, Straw, attached, size_of
from zproxy.model.addr import Endpoint
from zproxy.model.attach import ProbeMode, ProbeWish
from zproxy.steering import syscall
from zproxy.steering.layout import COOKIE, FLOW, pack_ip
from zproxy.steering.objects import open_maps
from zproxy.steering.pins import NodePins
from zproxy.steering.steering import Steering, remove

pytestmark = pytest.mark.root

LABEL = "probe"
NODE = f"{PREFIX}{LABEL}"
PORT = 8080
ISTIO_SOURCE = "169.254.7.127"


@contextmanager
def opened(wish: ProbeWish) -> Iterator[Steering]:
    try:
        steering = Steering.open(NODE, probes=wish)
        try:
            yield steering
        finally:
            steering.close()
    finally:
        remove(NODE)


@pytest.fixture
def kubelet() -> Iterator[Path]:
    with foreign.cgroup(f"{PREFIX}kubelet") as made:
        yield made


@pytest.fixture
def steering(kubelet: Path) -> Iterator[Steering]:
    with opened(ProbeWish(kubelet_cgroup=str(kubelet))) as made:
        yield made


def dial(
    host: Namespace, to: str, cgroup: Path | None = None, source: tuple[str, int] | None = None
) -> socket.socket:
    """Connect to the app; with `cgroup` as a process in there does."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    if cgroup is None:
        sock = host.socket(family)
    else:
        with foreign.inside(cgroup):
            sock = host.socket(family)
    if source is not None:
        sock.bind(source)
    sock.connect((to, PORT))
    return sock


def arrives(at: socket.socket, client: socket.socket, source: str) -> None:
    """The connection was accepted there, from the address and port that the client has."""
    arrival = Arrival.take(at)
    arrival.sock.close()
    assert arrival.peer == Endpoint(source, client.getsockname()[1])
    assert arrival.local.port == PORT


@pytest.mark.parametrize("form", ["v4", "v6", "mapped"])
def test_kubelets_connection_reaches_the_app_with_its_source(
    steering: Steering, kubelet: Path, straw: Straw, pod: Namespace, peer: Namespace, form: str
) -> None:
    to = {"v4": pod.ip4, "v6": pod.ip6, "mapped": f"::ffff:{pod.ip4}"}[form]
    before = steering.stats()
    with pod.listen(PORT) as app, dial(peer, to, kubelet) as client:
        arrives(app, client, peer.ip6 if form == "v6" else peer.ip4)
    after = steering.stats()
    assert after["inbound_probe"] == before["inbound_probe"] + 1
    assert after["inbound_recorded"] == before["inbound_recorded"]


def test_another_process_of_the_node_is_carried(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace
) -> None:
    with pod.listen(PORT), dial(peer, pod.ip4) as client:
        arrives(straw.plaintext, client, peer.ip4)
    assert steering.stats()["inbound_probe"] == 0


@pytest.fixture
def straw(steering: Steering, pod: Namespace) -> Iterator[Straw]:
    with attached(steering, pod) as made:
        yield made


def test_a_probe_survives_syn_cookies(
    steering: Steering, kubelet: Path, straw: Straw, pod: Namespace, peer: Namespace
) -> None:
    """The ACK that completes the cookie has no socket either, so it is asked about as well."""
    pod.sysctl("ipv4.tcp_syncookies", "2")
    with pod.listen(PORT) as app, dial(peer, pod.ip4, kubelet) as client:
        arrives(app, client, peer.ip4)
    assert steering.stats()["inbound_probe"] >= 2


@pytest.mark.parametrize(("age_s", "passes"), [(1, True), (61, False)])
def test_a_note_serves_for_a_minute(
    steering: Steering, straw: Straw, pod: Namespace, peer: Namespace, age_s: int, passes: bool
) -> None:
    flow = FLOW.pack(src_ip=pack_ip(peer.ip4), dst_ip=pack_ip(pod.ip4), src_port=40500, dst_port=PORT)
    objects = open_maps(NodePins(NODE))
    begun = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - age_s * 1_000_000_000
    syscall.map_update(objects.maps["zp_probe"], flow, COOKIE.pack(cookie=begun))
    objects.close()
    with pod.listen(PORT) as app, dial(peer, pod.ip4, source=(peer.ip4, 40500)) as client:
        arrives(app if passes else straw.plaintext, client, peer.ip4)


def test_what_kubelet_dials_elsewhere_is_not_noted(
    steering: Steering, kubelet: Path, straw: Straw, peer: Namespace
) -> None:
    with peer.listen(PORT), dial(peer, peer.ip4, kubelet):
        assert size_of("zp_probe", LABEL) == 0


def test_a_pod_that_was_probed_is_still_steered(
    steering: Steering, kubelet: Path, straw: Straw, pod: Namespace, peer: Namespace
) -> None:
    """The note is of one flow: the next connection from the same address is anybody's."""
    with pod.listen(PORT) as app, dial(peer, pod.ip4, kubelet) as probe:
        arrives(app, probe, peer.ip4)
        with dial(peer, pod.ip4) as client:
            arrives(straw.plaintext, client, peer.ip4)


def test_by_address_all_of_the_node_passes_and_others_do_not(pod: Namespace, peer: Namespace) -> None:
    ip("-n", peer.name, "addr", "add", "10.99.1.1/32", "dev", "eth0")
    wish = ProbeWish(ProbeMode.NODE_IP, node_ips=(peer.ip4, peer.ip6))
    with opened(wish) as steering, attached(steering, pod) as straw, pod.listen(PORT) as app:
        for to, source in ((pod.ip4, peer.ip4), (pod.ip6, peer.ip6)):
            with dial(peer, to) as client:
                arrives(app, client, source)
        with dial(peer, pod.ip4, source=("10.99.1.1", 0)) as client:
            arrives(straw.plaintext, client, "10.99.1.1")
        assert steering.stats()["inbound_probe"] == 2


@pytest.mark.parametrize(("mode", "passes"), [(ProbeMode.NODE_IP, True), (ProbeMode.NONE, False)])
def test_istios_source_of_probes_counts_as_an_address_of_the_node(
    pod: Namespace, peer: Namespace, mode: ProbeMode, passes: bool
) -> None:
    ip("-n", peer.name, "addr", "add", f"{ISTIO_SOURCE}/32", "dev", "eth0")
    node_ips = ("192.0.2.1",) if mode is ProbeMode.NODE_IP else ()
    with (
        opened(ProbeWish(mode, node_ips=node_ips)) as steering,
        attached(steering, pod) as straw,
        pod.listen(PORT) as app,
        dial(peer, pod.ip4, source=(ISTIO_SOURCE, 0)) as client,
    ):
        arrives(app if passes else straw.plaintext, client, ISTIO_SOURCE)


def test_a_daemon_in_another_mode_exempts_nobody_any_more(
    kubelet: Path, pod: Namespace, peer: Namespace
) -> None:
    """Pins outlive the daemon that chose them."""
    for wish in (ProbeWish(kubelet_cgroup=str(kubelet)), ProbeWish(ProbeMode.NODE_IP, node_ips=(peer.ip4,))):
        Steering.open(NODE, probes=wish).close()
    with opened(ProbeWish(ProbeMode.NONE)) as steering, attached(steering, pod) as straw, pod.listen(PORT):
        with dial(peer, pod.ip4, kubelet) as client:
            arrives(straw.plaintext, client, peer.ip4)
        assert not (NodePins(NODE).links / "kubelet").exists()
        assert size_of("zp_nodeip", LABEL) == 0
