"""`zproxy bpf dump`: the decoded maps, with and without a daemon."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import Result
from zproxy_cli import bpf_dump

from tests.cli.conftest import StartDaemons
from tests.support.netns import PREFIX, Namespace
from tests.support.straw import attached, dial, node_steering
from zproxy.steering.decoded import LRU_MAPS
from zproxy.steering.layout import REASONS
from zproxy.steering.steering import Steering

Zp = Callable[..., Result]
NODE = f"{PREFIX}dump"


@pytest.fixture
def steering() -> Iterator[Steering]:
    with node_steering("dump") as opened:
        yield opened


def test_without_the_right_to_read_maps_it_is_a_sentence(zp: Zp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf_dump, "may_read_maps", lambda: False)
    result = zp("bpf", "dump", "pods")
    assert (result.exit_code, "needs root" in result.stderr) == (1, True)


def test_without_pins_it_says_who_makes_them(zp: Zp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf_dump, "may_read_maps", lambda: True)
    monkeypatch.setattr(bpf_dump, "pinned_nodes", lambda _: [])
    result = zp("bpf", "dump", "conns")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "`zproxy run` makes them" in result.stderr


@pytest.mark.root
def test_a_connection_is_joined_with_the_mesh(
    steering: Steering, pod: Namespace, start: StartDaemons, zp: Zp
) -> None:
    start(**{NODE: {"workloads": [{"namespace": "demo", "name": "web", "address": ["203.0.113.9"]}]}})
    with attached(steering, pod), dial(pod, "203.0.113.9", 80) as app:
        header, line = zp("bpf", "dump", "conns", "--node", NODE).stdout.splitlines()
        assert header.split() == ["POD", "SOURCE", "DESTINATION", "WORKLOAD", "AGE"]
        source = f"{pod.ip4}:{app.getsockname()[1]}"
        assert line.split()[:4] == [f"test/{pod.name}", source, "203.0.113.9:80", "demo/web"]


@pytest.mark.root
def test_no_daemon_is_needed(steering: Steering, pod: Namespace, zp: Zp) -> None:
    with attached(steering, pod), dial(pod, "203.0.113.9", 80):
        rows = json.loads(zp("bpf", "dump", "conns", "--node", NODE, "-o", "json").stdout)
        assert [(row["dst"], row["workload"]) for row in rows] == [("203.0.113.9:80", None)]
        header, line = zp("bpf", "dump", "pods", "--node", NODE).stdout.splitlines()
        assert dict(zip(header.split(), line.split(), strict=True))["OPEN"] == "1"


@pytest.mark.root
@pytest.mark.parametrize("view", ["pods", "conns", "tuples", "udp", "stats", "maps"])
def test_every_view_prints_json_even_of_nothing(steering: Steering, zp: Zp, view: str) -> None:
    result = zp("bpf", "dump", view, "--node", NODE, "-o", "json")
    assert result.exit_code == 0
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    assert len(rows) == {"stats": len(REASONS), "maps": len(LRU_MAPS)}.get(view, 0)


@pytest.mark.root
def test_wide_stats_say_what_they_mean(steering: Steering, zp: Zp) -> None:
    assert "the straw's port itself" in zp("bpf", "dump", "stats", "-o", "wide", "--node", NODE).stdout


@pytest.mark.root
def test_of_several_nodes_each_row_says_whose_it_is(steering: Steering, zp: Zp) -> None:
    with node_steering("dump.two"):
        header = zp("bpf", "dump", "maps").stdout.splitlines()[0]
        assert header.split()[0] == "NODE"


@pytest.mark.root
def test_watching_shows_it_again_until_interrupted(steering: Steering) -> None:
    command = [sys.executable, "-P", "-m", "zproxy", "bpf", "dump", "maps", "--node", NODE, "--watch", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        headers = 0
        for line in process.stdout:
            headers += line.startswith("MAP ")
            if headers == 3:
                break
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(10) == 0
