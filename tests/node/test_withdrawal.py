"""`zproxy status`, `unenroll --force` and `cleanup` where no daemon runs: the truth, and nothing left."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import leftovers
from tests.support.netns import pair
from tests.support.nodes import App, TwoNodes, exchange, peer_echo
from tests.support.podstate import state_of
from zproxy.config import PIN_ROOT, RUN_ROOT

pytestmark = pytest.mark.root


class Before:
    """Two nodes that were killed, and how everything was before they were started."""

    def __init__(self, nodes: TwoNodes) -> None:
        self.nodes = nodes
        self._machine = leftovers.snapshot()
        self._pods = self._state()

    def is_back(self) -> bool:
        assert leftovers.added(self._machine, within_s=leftovers.PATIENCE_S) == []
        assert self._state() == self._pods
        return True

    def _state(self) -> list[list[str]]:
        return [
            state_of(pod) + pod.execute("tc", "qdisc", "show").stdout.splitlines()
            for pod in (self.nodes.client, self.nodes.server)
        ]


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[Before]:
    with pair() as pods:
        nodes = TwoNodes(tmp_path, *pods)
        nodes.client.sysctl("ipv4.tcp_tw_reuse", "2")
        before = Before(nodes)
        try:
            nodes.start()
            nodes.enroll_client()
            nodes.enroll_server()
            nodes.a.stop(signal.SIGKILL)
            nodes.b.stop(signal.SIGKILL)
            yield before
        finally:
            nodes.a.clean()
            nodes.b.clean()


def test_status_without_a_daemon_says_what_is_missing_and_what_is_not(killed: Before) -> None:
    done = killed.nodes.a.cli("status", "-o", "json")
    rows = {(row["pod"], row["check"]): row for row in json.loads(done.stdout)}
    assert done.returncode == 1
    assert rows["", "daemon"]["status"] == "missing"
    assert rows["", "hook connect4"]["status"] == "ok"
    assert rows["demo/client", "pod"]["status"] == "missing"
    done = killed.nodes.a.cli("status", "demo/client", "-o", "json")
    found = {row["check"]: row["status"] for row in json.loads(done.stdout)}
    assert [check for check, status in found.items() if status != "ok"] == [
        "listener 15001",
        "listener 15006",
        "listener 15008",
        "listener 15053",
        "listener 15053/udp",
        "listener slot",
    ]
    assert done.returncode == 1


def test_status_of_a_pod_that_there_is_not_is_a_sentence(killed: Before) -> None:
    done = killed.nodes.a.cli("status", "demo/nobody")
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: demo/nobody is not enrolled on {killed.nodes.a.name}: no record")


def test_cleanup_leaves_nothing(killed: Before) -> None:
    for node in (killed.nodes.a, killed.nodes.b):
        would = node.cli("cleanup", "--dry-run", "-o", "json")
        assert {row["result"] for row in json.loads(would.stdout)} == {"would go"}
        assert node.cli("status", "-o", "json").stdout, "a dry run removes nothing"
        done = node.cli("cleanup", "-o", "json")
        assert done.returncode == 0, done.stderr
        rows = json.loads(done.stdout)
        assert {row["result"] for row in rows} == {"gone"}
        promised = {(row["kind"], row["what"].partition(" with ")[0]) for row in json.loads(would.stdout)}
        assert {(row["kind"], row["what"].partition(" with ")[0]) for row in rows} <= promised
    assert killed.is_back()
    done = killed.nodes.a.cli("cleanup")
    assert (done.returncode, "nothing of a node" in done.stderr) == (1, True)


def empty(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()


HALF: dict[str, Callable[[Path, Path], object]] = {
    "no map pins": lambda pins, _: empty(pins / "maps"),
    "a map less": lambda pins, _: (pins / "maps" / "zp_podip").unlink(),
    "no programs": lambda pins, _: empty(pins / "progs"),
    "no record": lambda _, run: (run / "pods" / "demo_client.json").unlink(),
    "a record cut short": lambda _, run: (run / "pods" / "demo_client.json").write_text("{"),
    "a draft": lambda _, run: (run / "pods" / "demo_other.new").write_text("{"),
    "no lock": lambda _, run: (run / "lock").unlink(),
}


@pytest.mark.parametrize("half", HALF)
def test_cleanup_of_what_is_half_made_leaves_nothing(killed: Before, half: str) -> None:
    node = killed.nodes.a
    HALF[half](PIN_ROOT / node.name, RUN_ROOT / node.name)
    done = node.cli("cleanup")
    assert done.returncode == 0, done.stdout
    killed.nodes.client.sysctl("ipv4.tcp_tw_reuse", "2")  # what only the record knew
    for name in ("ipv4.tcp_fwmark_accept", "ipv4.fwmark_reflect", "ipv6.fwmark_reflect"):
        killed.nodes.client.sysctl(name, "0")
    assert killed.nodes.b.cli("cleanup").returncode == 0
    assert killed.is_back()


def test_one_pod_is_taken_out_by_force_and_the_rest_stays(killed: Before) -> None:
    a, b = killed.nodes.a, killed.nodes.b
    done = a.cli("unenroll", "--force", "demo/client", "-o", "json")
    assert (done.returncode, [row["kind"] for row in json.loads(done.stdout)]) == (
        0,
        ["steering", "network", "record"],
    )
    assert a.dump("zp_pods") == []
    assert len(b.dump("zp_pods")) == 1
    done = a.cli("unenroll", "--force", "demo/client")
    assert (done.returncode, "demo/client is not enrolled" in done.stderr) == (1, True)
    assert b.cli("cleanup").returncode == 0
    app = App(killed.nodes.server, 7401, peer_echo)
    assert exchange(killed.nodes.dial(7401), b"x").endswith(b" x"), "in the clear, as before the mesh"
    app.close()
    assert a.cli("cleanup").returncode == 0
    assert killed.is_back()


def test_a_dead_pod_is_named_and_cleaned(killed: Before) -> None:
    a = killed.nodes.a
    path = RUN_ROOT / a.name / "pods" / "demo_client.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"cookie": 1 << 60, "pod": "demo/gone"}))
    done = a.cli("status", "demo/gone", "-o", "json")
    (row,) = json.loads(done.stdout)
    assert (row["check"], row["status"], done.returncode) == ("namespace", "missing", 1)


def test_a_living_daemon_is_not_cleaned_away(killed: Before) -> None:
    a = killed.nodes.a
    a.start()
    assert a.process is not None
    for words in (("cleanup",), ("cleanup", "--dry-run")):
        done = a.cli(*words)
        assert done.returncode == 1
        assert f"is alive (pid {a.process.pid}); stop it first: kill {a.process.pid}" in done.stderr
    assert a.cli("status").returncode == 0
    done = a.cli("unenroll", "--force", "demo/client")
    assert (done.returncode, "unenrolled" in done.stdout) == (0, True), "the daemon does it"


def test_what_is_not_ours_in_the_node_s_directory_is_named_and_nothing_is_touched(killed: Before) -> None:
    a = killed.nodes.a
    stranger = PIN_ROOT / a.name / "stranger"
    stranger.mkdir()
    done = a.cli("cleanup")
    stranger.rmdir()
    assert (done.returncode, f"{stranger} is not zproxy's" in done.stderr) == (1, True)
    assert len(a.dump("zp_pods")) == 1
