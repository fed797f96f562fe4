"""`zproxy pods`."""

from collections.abc import Callable

from click.testing import Result

from tests.cli.conftest import StartDaemons
from zproxy.node.refused import Refused

POD = {
    "namespace": "demo",
    "name": "client",
    "pod": "demo/client",
    "ips": ["10.244.1.5", "fd00:1::5"],
    "node": "node-a",
    "state": "ready",
    "identity": "spiffe://cluster.local/ns/demo/sa/client",
    "netns": {"path": "/run/netns/demo-client", "inode": 7},
    "listeners": [15001, 15006, 15008],
    "dns": False,
    "udp": "audit",
    "fail_open": False,
    "attach": "both",
    "cgroup": "/sys/fs/cgroup/kubepods/pod1",
    "cgroup_why": "given",
    "sandbox": "5a9dc0",
    "worker": 1,
    "pid": 42,
    "since": "2026-01-01T00:00:00Z",
}


def test_pods_are_listed_with_address_and_identity(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"pods": [POD]})
    header, row = zp("pods").stdout.splitlines()
    assert header.split() == ["NAMESPACE", "NAME", "ADDRESS", "NODE", "STATE", "IDENTITY", "REASON"]
    assert row.split() == ["demo", "client", "10.244.1.5,fd00:1::5", "node-a", "ready", POD["identity"], "-"]


def test_wide_shows_namespace_and_listeners(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"pods": [POD]})
    header, row = zp("pods", "-o", "wide").stdout.splitlines()
    assert header.split()[7:] == [
        *("NETNS", "LISTENERS", "DNS", "UDP", "FAIL-OPEN"),
        *("ATTACH", "CGROUP", "CGROUP-WHY", "SANDBOX", "WORKER", "PID", "SINCE"),
    ]
    assert row.split()[7:] == [
        "path=/run/netns/demo-client,inode=7",
        "15001,15006,15008",
        "no",
        "audit",
        "no",
        "both",
        "/sys/fs/cgroup/kubepods/pod1",
        "given",
        "5a9dc0",
        "1",
        "42",
        "2026-01-01T00:00:00Z",
    ]


def test_all_shows_what_the_runtime_has_beside_them(start: StartDaemons, zp: Callable[..., Result]) -> None:
    other = {"namespace": "demo", "name": "web", "pod": "demo/web", "ips": ["10.244.1.6"], "node": "node-a"}
    daemons = start(node_a={"candidates": [POD, other | {"state": "ready", "reason": ""}]})
    rows = [line.split() for line in zp("pods", "--all").stdout.splitlines()[1:]]
    assert [row[1] for row in rows] == ["client", "web"]
    assert rows[1][4:] == ["ready", "-", "-"]
    assert [call.command for call in daemons.calls] == ["candidates"]


def test_no_pods_says_how_to_enroll_one(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"pods": []})
    assert "`zproxy enroll POD` takes one in" in zp("pods").stderr


def test_a_refused_pod_is_there_with_its_reason(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"pods": [Refused("demo/x", "/run/netns/x", 7, "port 15006 is in use").row("node-a")]})
    row = zp("pods").stdout.splitlines()[1].split()
    assert row[:2] == ["demo", "x"]
    assert row[4] == "refused"
    assert " ".join(row[6:]) == "port 15006 is in use"
