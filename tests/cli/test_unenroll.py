"""`zproxy unenroll`."""

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli.conftest import StartDaemons
from tests.support.daemons import Call
from zproxy.errors import EnrollError
from zproxy.node import cleanup, present
from zproxy.node.cleanup import Done
from zproxy.node.present import Site
from zproxy.node.records import Record

ROW = {"pod": "demo/client", "state": "gone", "ips": ["10.244.1.5"], "node": "node-a"}


def test_the_daemon_lets_the_pod_out(start: StartDaemons, zp: Callable[..., Result]) -> None:
    daemons = start(node_a={"unenroll": ROW})
    result = zp("unenroll", "demo/client")
    assert result.stdout.splitlines()[1].split() == ["demo/client", "gone", "10.244.1.5", "node-a"]
    assert daemons.calls == [Call("node-a", "unenroll", {"pod": "demo/client"})]


def test_a_pod_that_is_not_enrolled_is_a_sentence(start: StartDaemons, zp: Callable[..., Result]) -> None:
    start(node_a={"unenroll": EnrollError("demo/client is not enrolled")})
    result = zp("unenroll", "demo/client")
    assert (result.exit_code, result.stderr) == (1, "Error: demo/client is not enrolled\n")


class Machine:
    """Nodes and what each has of demo/client; keeps who was cleaned without a daemon."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path, *nodes: str) -> None:
        self.root = root
        self.forced: list[tuple[str, str]] = []
        self.result = "gone"
        monkeypatch.setattr(present, "nodes", lambda: list(nodes))
        monkeypatch.setattr(present, "Site", self.site)
        monkeypatch.setattr(cleanup, "unenroll", self._unenroll)

    def site(self, node: str) -> Site:
        return Site(node, self.root / "pins", self.root / "run")

    def record(self, node: str) -> None:
        self.site(node).records.save(Record("demo/client", "/nowhere", 7, None, {}))

    def _unenroll(self, site: Site, pod: str) -> list[Done]:
        self.forced.append((site.node, pod))
        return [Done(site.node, "record", pod, self.result)]


def test_force_takes_the_pod_out_where_no_daemon_lives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, zp: Callable[..., Result]
) -> None:
    machine = Machine(monkeypatch, tmp_path, "a", "b")
    machine.record("b")
    result = zp("unenroll", "--force", "demo/client")
    assert (result.exit_code, machine.forced) == (0, [("b", "demo/client")])
    assert result.stdout.splitlines()[1].split() == ["b", "record", "demo/client", "gone"]
    machine.result = "failed: no"
    assert zp("unenroll", "--force", "demo/client").exit_code == 1


def test_force_asks_the_daemon_where_one_lives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, start: StartDaemons, zp: Callable[..., Result]
) -> None:
    daemons = start(b={"unenroll": ROW})
    machine = Machine(monkeypatch, tmp_path, "a", "b")
    machine.record("b")
    with machine.site("b").lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert zp("unenroll", "--force", "demo/client").exit_code == 0
    assert (machine.forced, daemons.calls) == ([], [Call("b", "unenroll", {"pod": "demo/client"})])


def test_force_on_nothing_or_on_too_much_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, zp: Callable[..., Result]
) -> None:
    machine = Machine(monkeypatch, tmp_path, "a", "b")
    result = zp("unenroll", "--force", "demo/client")
    assert (result.exit_code, "demo/client is not enrolled on a or b" in result.stderr) == (1, True)
    machine.record("a")
    machine.record("b")
    result = zp("unenroll", "--force", "demo/client")
    assert (result.exit_code, "a and b have something of demo/client" in result.stderr) == (1, True)
    assert machine.forced == []
