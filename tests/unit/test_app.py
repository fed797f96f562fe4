"""The daemon as a whole, with eBPF replaced by a stand-in: what it needs to start, and how it ends."""

import fcntl
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from zproxy_cli.main import zproxy

from tests.support.local_config import yaml_of
from tests.support.netns import Namespace, pair
from tests.support.podstate import listening, state_of
from tests.support.steering import FakeSteering, open_files, pod_of
from zproxy import app
from zproxy.errors import ConfigError, SteeringError, WorkerFailed, ZproxyError
from zproxy.net.poller import Poller
from zproxy.node import client, manager, process
from zproxy.node.client import Client

ROOT = Path(__file__).parents[2]
WAIT_S = 10.0
PORTS = [15001, 15006, 15008, 15053]
LISTINGS = ("pods", "workloads", "services", "policies", "certs", "connections", "tunnels")


class Machine:
    """Where daemons of a test run: their directory, their steering, their mesh."""

    def __init__(self, directory: Path) -> None:
        self.run_root = directory / "run"
        self.steering = FakeSteering()
        self.mesh = directory / "mesh.yaml"
        self.mesh.write_text(yaml_of())
        self.options = app.Options("node-a", self.mesh, directory / "ca")

    def run(self, visit: Callable[[Client], Any], *, stops: bool = True) -> Any:
        """Run the daemon in this thread until `visit`, in another, has ended; return what that returned.

        A daemon that is to end by itself is not stopped.
        """
        outcome: list[Any] = []

        def go() -> None:
            try:
                outcome.append(visit(_ready(self.options.node)))
            except BaseException as error:
                outcome.append(error)
            finally:
                if stops or isinstance(outcome[0], BaseException):
                    _stop(self.options.node)

        visitor = threading.Thread(target=go)
        visitor.start()
        try:
            app.run(self.options)
        finally:
            visitor.join()
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]


def _ready(node: str) -> Client:
    ends = time.monotonic() + WAIT_S
    while True:
        try:
            Client(node).call("status")
        except ZproxyError:
            assert time.monotonic() < ends, "the daemon never answered"
            time.sleep(0.01)
        else:
            return Client(node)


def _stop(node: str) -> None:
    try:
        Client(node).call("stop")
    except ZproxyError:
        return  # the visit has stopped it


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(tmp_path)
    for module in (app, client, manager, process):
        monkeypatch.setattr(module, "RUN_ROOT", made.run_root)
    monkeypatch.setattr(app, "Steering", SimpleNamespace(open=lambda node, **_: made.steering))
    monkeypatch.setattr(app, "name_process", lambda: None)
    monkeypatch.setattr(app, "raise_file_limit", lambda: None)
    logger = logging.getLogger("zproxy")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield made
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture
def pod(machine: Machine) -> Iterator[Namespace]:
    """The namespace of demo/client on the machine's node."""
    with pair("pod", "peer") as (made, _):
        machine.mesh.write_text(yaml_of(pod_of("demo/client", made)))
        yield made


def cli(*words: str) -> Result:
    return CliRunner(env={"ZPROXY_NODE": None}).invoke(zproxy, words, prog_name="zproxy")


@pytest.mark.root
def test_a_daemon_answers_every_command_and_stops_when_told(
    machine: Machine, capfd: pytest.CaptureFixture[str]
) -> None:
    machine.run(lambda _: None)  # libuv's own pipe for signals is made once and stays
    capfd.readouterr()
    files = open_files()
    answers = machine.run(
        lambda daemon: {name: daemon.call(name) for name in ("status", *LISTINGS, "metrics", "stop")}
    )
    assert answers["status"]["node"] == "node-a"
    assert answers["metrics"].endswith("# EOF\n")
    assert [answers[name] for name in LISTINGS] == [[]] * len(LISTINGS)
    lines = capfd.readouterr().out.splitlines()
    assert re.search(r"Z\tinfo\tzproxy\tready: node node-a, zproxy \S+, TLS by \S+", lines[0])
    assert lines[-1].endswith("stopping; enrolled pods stay steered and are refused until a daemon is back")
    assert not (machine.run_root / "node-a" / "control.sock").exists()
    assert machine.steering.is_closed
    assert open_files() == files


@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_daemon(machine: Machine, number: signal.Signals) -> None:
    machine.run(lambda _: os.kill(os.getpid(), number))
    assert machine.steering.is_closed


@pytest.mark.root
def test_pods_live_in_the_daemon_and_are_taken_up_by_the_next(machine: Machine, pod: Namespace) -> None:
    machine.run(lambda _: None)
    before, files = state_of(pod), open_files()

    def enroll(daemon: Client) -> Any:
        row = daemon.call("enroll", pod="demo/client", netns=pod.name)
        assert listening(pod) == PORTS
        assert [r["identity"] for r in daemon.call("certs")] == [row["identity"]] * 2
        assert [(r["name"], r["enrolled"]) for r in daemon.call("workloads")] == [("client", True)]
        return row

    row = machine.run(enroll)
    assert listening(pod) == []
    assert open_files() == files
    assert list(machine.steering.attached) == [pod.netns.cookie()]

    def unenroll(daemon: Client) -> Any:
        rows = daemon.call("pods")
        assert listening(pod) == PORTS
        daemon.call("unenroll", pod="demo/client")
        return rows

    rows = machine.run(unenroll)
    assert [(r["pod"], r["netns"]) for r in rows] == [("demo/client", row["netns"])]
    assert state_of(pod) == before
    assert machine.steering.attached == {}


@pytest.mark.root
def test_with_several_workers_pods_are_spread_and_everything_goes_again(machine: Machine) -> None:
    machine.options = replace(machine.options, workers=3)
    machine.run(lambda _: None)
    with pair("pod", "peer") as pods:
        names = ["demo/client", "demo/server"]
        machine.mesh.write_text(yaml_of(*(pod_of(name, pod) for name, pod in zip(names, pods, strict=True))))
        before, files = [state_of(pod) for pod in pods], open_files()

        def visit(daemon: Client) -> Any:
            threads = {thread.name for thread in threading.enumerate()}
            assert {"zproxy-w0", "zproxy-w1", "zproxy-w2"} <= threads
            for name, pod in zip(names, pods, strict=True):
                daemon.call("enroll", pod=name, netns=pod.name)
            assert [row["worker"] for row in daemon.call("pods")] == [0, 1]
            daemon.call("unenroll", pod="demo/client")
            daemon.call("enroll", pod="demo/client", netns=pods[0].name)
            assert [row["worker"] for row in daemon.call("pods")] == [0, 1]
            assert [listening(pod) for pod in pods] == [PORTS] * 2
            return daemon.call("status")["workers"]

        assert machine.run(visit) == [
            {"worker": number, "pods": count, "connections_open": 0}
            for number, count in ((0, 1), (1, 1), (2, 0))
        ]
        assert [listening(pod) for pod in pods] == [[], []]
        assert open_files() == files

        def leave(daemon: Client) -> None:
            for name in names:
                daemon.call("unenroll", pod=name)

        machine.run(leave)
        assert [state_of(pod) for pod in pods] == before


@pytest.mark.root
def test_a_worker_that_dies_takes_the_daemon_down_and_its_pods_stay_steered(
    machine: Machine, pod: Namespace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    machine.options = replace(machine.options, workers=2)
    is_over = threading.Event()
    batch = Poller.run_batch

    def run_batch(poller: Poller, wait_s: float = 0.0) -> None:
        batch(poller, wait_s)
        if is_over.is_set() and threading.current_thread().name == "zproxy-w0":
            raise SystemExit("the end")

    monkeypatch.setattr(Poller, "run_batch", run_batch)

    def visit(daemon: Client) -> None:
        daemon.call("enroll", pod="demo/client", netns=pod.name)
        assert listening(pod) == PORTS
        is_over.set()

    with pytest.raises(WorkerFailed, match="data-plane worker 0 died: SystemExit: the end"):
        machine.run(visit, stops=False)
    log = capfd.readouterr().out
    assert "\terror\tzproxy.net\tdata-plane worker 0 died\nTraceback" in log
    assert "the daemon ends, and its pods are refused until one is back" in log
    assert listening(pod) == [], "refused at once, not left hanging"
    assert list(machine.steering.attached) == [pod.netns.cookie()]
    assert machine.steering.is_closed
    is_over.clear()
    machine.run(lambda daemon: daemon.call("unenroll", pod="demo/client"))


@pytest.mark.root
def test_the_command_prints_what_the_daemon_says(machine: Machine, pod: Namespace) -> None:
    def visit(_: Client) -> tuple[Result, Result]:
        return cli("enroll", "demo/client", "--netns", pod.name), cli("enroll", "demo/nobody")

    done, refused = machine.run(visit)
    assert done.exit_code == 0
    assert "demo/client" in done.stdout
    assert refused.exit_code == 1
    assert refused.stderr == (
        "Error: unknown pod demo/nobody: the mesh has no such workload; `zproxy workloads` lists them\n"
    )


@pytest.mark.root
def test_a_second_daemon_of_the_node_says_who_runs(machine: Machine) -> None:
    def visit(_: Client) -> Result:
        return cli("run", "--node", "node-a", "--config", str(machine.options.config))

    second = machine.run(visit)
    assert second.exit_code == 1
    assert second.stderr == (
        f"Error: a zproxy daemon for node node-a runs already (pid {os.getpid()}); stop it or use another "
        "--node\n"
    )


@pytest.mark.root
def test_a_lock_without_a_name_in_it_still_holds(machine: Machine) -> None:
    directory = machine.run_root / "node-a"
    directory.mkdir(parents=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=r"node-a runs already \(pid unknown\)"):
            app.run(machine.options)


@pytest.mark.root
def test_the_run_directory_is_root_s(machine: Machine) -> None:
    machine.run(lambda _: None)
    assert (machine.run_root / "node-a").stat().st_mode & 0o777 == 0o700
    assert (machine.run_root / "node-a" / "lock").stat().st_mode & 0o777 == 0o600


@pytest.mark.root
@pytest.mark.parametrize("node", ["", ".", "..", "a/b", ".hidden", "-x", "a b", "a\n", "ü", "x" * 81])
def test_what_cannot_name_a_node_is_refused(machine: Machine, node: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a node name: letters, digits, '-' and '.' only"):
        app.run(app.Options(node, machine.options.config, machine.options.ca_directory))
    assert not machine.run_root.exists()


@pytest.mark.root
def test_a_bad_mesh_is_a_sentence_with_file_and_line_and_nothing_is_begun(machine: Machine) -> None:
    machine.mesh.write_text("workloads:\n- uid: x\n  nmae: y\n")
    result = cli("run", "--node", "node-a", "--config", str(machine.options.config))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {machine.options.config}:3: ")
    assert result.stderr.count("\n") == 1
    assert not machine.run_root.exists()


@pytest.mark.root
def test_a_daemon_that_cannot_steer_says_so_and_frees_the_node(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str, **__: object) -> FakeSteering:
        raise SteeringError("the verifier says no")

    with monkeypatch.context() as patch:
        patch.setattr(app, "Steering", SimpleNamespace(open=refuse))
        result = cli(
            *("run", "--node", "node-a", "--config", str(machine.options.config)),
            *("--ca-dir", str(machine.options.ca_directory)),
        )
    assert (result.exit_code, result.stderr) == (1, "Error: the verifier says no\n")
    machine.run(lambda _: None)


@pytest.mark.root
def test_who_is_not_root_is_told_so(tmp_path: Path) -> None:
    code = (
        "import os, zproxy.app, zproxy_cli.run; from zproxy_cli.main import main\n"
        "os.setgroups([]); os.seteuid(65534); main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "--node", "node-a", "--config", str(tmp_path / "none.yaml")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "Error: zproxy run needs root (it enters namespaces and loads eBPF); run it with sudo\n"
    )


class Item:
    """Something on the poller."""

    def __init__(self, *, is_beyond_repair: bool) -> None:
        self.aborted: list[str] = []
        self._is_beyond_repair = is_beyond_repair

    def on_event(self, events: int) -> None:
        raise NotImplementedError

    def abort(self, error: str) -> None:
        self.aborted.append(error)
        if self._is_beyond_repair:
            raise RuntimeError("no socket")


@pytest.mark.parametrize("is_beyond_repair", [False, True])
def test_a_handler_that_raises_costs_its_own_connection_only(
    is_beyond_repair: bool, caplog: pytest.LogCaptureFixture
) -> None:
    item = Item(is_beyond_repair=is_beyond_repair)
    app._crashed(item, KeyError("x"))
    assert item.aborted == ["KeyError: 'x'"]
    assert "internal error in Item" in caplog.text
    assert ("cannot close after an internal error" in caplog.text) is is_beyond_repair
