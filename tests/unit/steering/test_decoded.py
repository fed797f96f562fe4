"""The maps as rows: names, addresses, ages, counters, from what is pinned and nothing else."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.bpf_maps import Shape, bpffs, made
from tests.support.netns import PREFIX, Namespace
from tests.support.straw import Arrival, attached, dial
from zproxy.errors import SteeringError
from zproxy.steering import decoded, syscall
from zproxy.steering.decoded import NodeMaps, Row
from zproxy.steering.info import MapType
from zproxy.steering.layout import REASONS
from zproxy.steering.steering import Steering

pytestmark = pytest.mark.root

SO_COOKIE = 57
V4, V6 = "203.0.113.9", "2001:db8::9"


@pytest.fixture
def maps(steering: Steering) -> Iterator[NodeMaps]:
    with decoded.opened(f"{PREFIX}unit") as opened:
        yield opened


def of(rows: list[Row], pod: Namespace) -> list[Row]:
    return [row for row in rows if row["pod"] == f"test/{pod.name}"]


def test_a_pod_s_row_is_its_entry_its_listener_and_its_counters(
    steering: Steering, maps: NodeMaps, pod: Namespace
) -> None:
    with attached(steering, pod) as straw:
        with dial(pod, V4, 80), dial(pod, V6, 80):
            (row,) = of(decoded.pods(maps), pod)
            assert row["netns_cookie"] == pod.netns.cookie()
            assert row["ips"] == [pod.ip4, pod.ip6]
            assert (row["outbound_port"], row["plaintext_port"], row["hbone_port"]) == (15001, 15006, 15008)
            assert row["listener_cookie"] == int.from_bytes(
                straw.plaintext.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), "little"
            )
            assert (row["counters"]["open"], row["counters"]["opened"]) == (2, 2)
        (row,) = of(decoded.pods(maps), pod)
        assert (row["counters"]["open"], row["counters"]["opened"]) == (0, 2)
    assert of(decoded.pods(maps), pod) == []


def test_a_connection_s_row_says_who_dialled_what_and_since_when(
    steering: Steering, maps: NodeMaps, pod: Namespace
) -> None:
    with attached(steering, pod), dial(pod, V6, 443) as app:
        (row,) = of(decoded.conns(maps), pod)
        ip, port = app.getsockname()[:2]
        assert (row["src"], row["dst"], row["dst_ip"]) == (f"[{ip}]:{port}", f"[{V6}]:443", V6)
        assert 0 <= row["age_s"] < 10
        assert row["socket_cookie"] == int.from_bytes(
            app.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), "little"
        )


def test_a_flow_is_shown_until_the_straw_has_its_connection(
    steering: Steering, maps: NodeMaps, pod: Namespace
) -> None:
    """A SYN that waits in vain: the backlog of the listener is full."""
    with ExitStack() as stack:
        straw = stack.enter_context(attached(steering, pod))
        straw.outbound.listen(0)
        stack.enter_context(dial(pod, V4, 80))
        waiting = stack.enter_context(pod.socket(socket.AF_INET))
        waiting.setblocking(False)
        with pytest.raises(BlockingIOError):
            waiting.connect((V4, 81))
        (row,) = of(decoded.tuples(maps), pod)
        assert row["dst"] == f"{V4}:81"
        assert row["src"] == f"{pod.ip4}:{waiting.getsockname()[1]}"
        assert row["via"] == f"{pod.ip4}:15001"


def test_stats_are_the_sums_over_all_cpus(steering: Steering, maps: NodeMaps, pod: Namespace) -> None:
    with attached(steering, pod) as straw, dial(pod, V4, 80):
        Arrival.take(straw.outbound).sock.close()
        rows = decoded.stats(maps)
        assert {row["reason"]: row["count"] for row in rows} == steering.stats()
        assert [row["reason"] for row in rows] == list(REASONS)
        assert all(sum(row["cpus"]) == row["count"] for row in rows)


def test_occupancy_is_what_is_in_the_maps(steering: Steering, maps: NodeMaps, pod: Namespace) -> None:
    with attached(steering, pod), dial(pod, V4, 80), dial(pod, V4, 81):
        row = next(row for row in decoded.occupancy(maps) if row["map"] == "zp_conn")
        assert row == {"map": "zp_conn", "entries": 2, "max_entries": 65_536, "percent": 0}


def test_a_node_that_pinned_nothing_is_a_sentence() -> None:
    with decoded.opened("ghost") as maps, pytest.raises(SteeringError, match="no map zp_pods is pinned"):
        decoded.pods(maps)


def test_a_map_of_another_version_is_not_read_as_ours(tmp_path: Path) -> None:
    with bpffs(tmp_path / "bpf") as root, made(Shape(MapType.HASH, 8, 8, 16, "zp_pods")) as fd:
        folder = root / "old" / "maps"
        folder.mkdir(parents=True)
        syscall.obj_pin(fd, folder / "zp_pods")
        with decoded.opened("old", root) as maps, pytest.raises(SteeringError, match="another version's"):
            decoded.pods(maps)
