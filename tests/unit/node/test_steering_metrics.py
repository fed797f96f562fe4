"""The kernel's counters as metrics."""

import asyncio

import pytest

from tests.support.netns import PREFIX, Namespace
from tests.support.straw import attached, dial, node_steering
from zproxy.node.steering_metrics import HELP, families, steering_families
from zproxy.observe.metrics import render
from zproxy.steering.decoded import COUNTERS
from zproxy.steering.layout import REASONS

STATS = [{"reason": "captured_v4", "count": 3}]
POD = {"pod": "demo/client", "counters": dict.fromkeys(COUNTERS, 7), "source_ports": 28_232}
MAP = {"map": "zp_conn", "entries": 2, "max_entries": 65_536}


def test_every_counter_says_what_it_counts() -> None:
    assert set(HELP) == set(COUNTERS)


def test_names_and_labels_are_stable() -> None:
    text = render(families(STATS, [POD], [MAP]))
    assert 'zproxy_steering_total{reason="captured_v4"} 3.0' in text
    assert 'zproxy_pod_connections_open{pod="demo/client"} 7.0' in text
    assert 'zproxy_pod_opened_total{pod="demo/client"} 7.0' in text
    assert 'zproxy_pod_source_ports{pod="demo/client"} 28232.0' in text
    assert 'zproxy_map_entries{map="zp_conn"} 2.0' in text
    assert 'zproxy_map_max_entries{map="zp_conn"} 65536.0' in text


@pytest.mark.root
def test_they_are_what_the_kernel_counted(pod: Namespace) -> None:
    with node_steering("metrics") as steering, attached(steering, pod), dial(pod, "203.0.113.9", 80):
        found = {
            family.name: dict(family.rows) for family in asyncio.run(steering_families(f"{PREFIX}metrics"))
        }
        assert found["zproxy_steering"] == {(name,): steering.stats()[name] for name in REASONS}
        name = (f"test/{pod.name}",)
        assert found["zproxy_pod_connections_open"][name] == 1
        assert found["zproxy_pod_opened"][name] == 1
        assert found["zproxy_map_entries"]["zp_conn",] == 1
        assert found["zproxy_map_entries"]["zp_pods",] == 1


def test_without_pins_the_other_figures_are_still_shown(caplog: pytest.LogCaptureFixture) -> None:
    assert asyncio.run(steering_families("ghost")) == []
    assert "no map zp_stats is pinned" in caplog.text
