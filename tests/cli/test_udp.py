"""`zproxy udp`: columns, ages, names of workloads, and what it says when there is nothing to list."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result
from zproxy_cli import udp

from tests.cli.conftest import StartDaemons
from zproxy.errors import ConfigError, ZproxyError
from zproxy.steering.udp import UdpFlow

NS = 1_000_000_000
NOW = 10_000 * NS
FLOW = UdpFlow("node-a", "demo/client", "203.0.113.9", 443, None, 12, 15360, 4, NOW - 200 * NS, NOW - 3 * NS)
SERVED = FLOW._replace(ip="10.244.2.5", port=None, served_port=5300, blocked=0)
GONE = FLOW._replace(pod="", ip="2001:db8::9")
WORKLOAD = {"namespace": "demo", "name": "server", "address": ["10.244.2.5", "fd00::5"]}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Put three flows in place of the kernel's, and return what is asked for."""
    calls: list[tuple[Any, ...]] = []

    def answer(*what: Any) -> list[UdpFlow]:
        calls.append(what)
        return [GONE, FLOW, SERVED]

    monkeypatch.setattr(udp, "may_read_maps", lambda: True)
    monkeypatch.setattr(udp, "flows", answer)
    monkeypatch.setattr(time, "monotonic_ns", lambda: NOW)
    return calls


def test_a_flow_is_listed_with_its_workload_and_ages(
    start: StartDaemons, zp: Callable[..., Result], asked: list[Any]
) -> None:
    start(node_a={"workloads": [WORKLOAD]})
    header, *rows = zp("udp").stdout.splitlines()
    assert header.split() == [
        "POD",
        "DESTINATION",
        "PORT",
        "WORKLOAD",
        "PACKETS",
        "BYTES",
        "BLOCKED",
        "FIRST",
        "LAST",
    ]
    assert [row.split() for row in rows] == [
        ["-", "2001:db8::9", "443", "-", "12", "15360", "4", "3m20s", "3s"],
        ["demo/client", "203.0.113.9", "443", "-", "12", "15360", "4", "3m20s", "3s"],
        ["demo/client", "10.244.2.5", "-", "demo/server", "12", "15360", "0", "3m20s", "3s"],
    ]


def test_wide_shows_what_a_server_answers_from(
    start: StartDaemons, zp: Callable[..., Result], asked: list[Any]
) -> None:
    start(node_a={"workloads": []})
    header, _, _, row = zp("udp", "-o", "wide").stdout.splitlines()
    assert header.split()[9:] == ["SERVED", "PORT", "NODE"]
    assert row.split()[9:] == ["5300", "node-a"]


def test_no_daemon_is_needed(start: StartDaemons, zp: Callable[..., Result], asked: list[Any]) -> None:
    start(node_a={"workloads": ZproxyError("no zproxy daemon runs for node node-a")})
    rows = json.loads(zp("udp", "-o", "json").stdout)
    assert rows[2] == {
        "node": "node-a",
        "pod": "demo/client",
        "destination": "10.244.2.5",
        "port": None,
        "served_port": 5300,
        "workload": None,
        "packets": 12,
        "bytes": 15360,
        "blocked": 0,
        "first": "3m20s",
        "first_s": 200.0,
        "last": "3s",
        "last_s": 3.0,
    }


def test_pod_and_node_are_passed_on(start: StartDaemons, zp: Callable[..., Result], asked: list[Any]) -> None:
    start(node_a={"workloads": []})
    zp("--node", "node-a", "udp", "demo/client")
    zp("udp", "--node", "node-a")
    assert [what[:2] for what in asked] == [("node-a", "demo/client"), ("node-a", None)]


def test_nothing_is_a_sentence(
    zp: Callable[..., Result], asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp, "flows", lambda *_: [])
    result = zp("udp")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No UDP has left in the clear.\n")


def test_an_unknown_pod_is_status_1(
    zp: Callable[..., Result], asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> list[UdpFlow]:
        raise ConfigError("unknown pod demo/nobody: none of that name is enrolled")

    monkeypatch.setattr(udp, "flows", refuse)
    result = zp("udp", "demo/nobody")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: unknown pod demo/nobody: none of that name is enrolled\n"


def test_without_the_capability_one_sentence_says_so(
    zp: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udp, "may_read_maps", lambda: False)
    result = zp("udp")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: reading BPF maps needs root (CAP_SYS_ADMIN)")
