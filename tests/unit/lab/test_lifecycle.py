"""A lab of its own, built and taken down with the real daemon; broken in every way on the way."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zproxy.config import PIN_ROOT, RUN_ROOT
from zproxy.errors import ConfigError, RequirementError, ZproxyError
from zproxy.lab import inside, jobs, lifecycle, mesh_file, pod_files, topology
from zproxy.lab.layout import APP_PORTS, make_layout
from zproxy.lab.lifecycle import Lab, down, up
from zproxy.lab.observe import observe
from zproxy.lab.prove import judge
from zproxy.node.client import Client

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

PREFIX = f"zpt-{os.getpid()}-"


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab(make_layout(PREFIX), RUN_ROOT / f"{PREFIX}lab")
    try:
        yield made
    finally:
        down(_silent, made)


@pytest.fixture
def said() -> list[str]:
    return []


def _silent(_: str) -> None:
    return


class OnlyV6(Client):
    """A daemon whose pods seem to have no IPv4."""

    def call(self, command: str, **arguments: Any) -> Any:
        rows = super().call(command, **arguments)
        if command == "pods":
            return [row | {"ips": [ip for ip in row["ips"] if ":" in ip]} for row in rows]
        return rows


def _nothing_is_left(lab: Lab) -> None:
    assert topology.present(lab.layout) == []
    assert not any(jobs.running(job) for job in lab.jobs)
    assert not lab.directory.exists()
    assert pod_files.remove(lab.layout) == []
    for node in lab.layout.nodes:
        assert not (RUN_ROOT / node.name).exists()
        assert not (PIN_ROOT / node.name).exists()


def _curl(lab: Lab) -> dict[str, str]:
    server = lab.layout.pods[1]
    with lifecycle.open_pod("demo/client", lab) as netns:
        url = f"http://{server.ip4}:{APP_PORTS[0]}/get"
        status, out, error = inside.output(netns, ["curl", "-sS", "-m", "10", url])
    assert status == 0, error
    answer: dict[str, str] = json.loads(out)
    return answer


def test_up_proves_all_claims_and_down_leaves_nothing(lab: Lab, said: list[str]) -> None:
    up(said.append, lab)
    daemons = {node.name: Client(node.name) for node in lab.layout.nodes}
    only_v6 = {node.name: OnlyV6(node.name) for node in lab.layout.nodes}
    for source, target, through, claims in (
        ("demo/client", "demo/server", daemons, 6),
        ("demo/server", "demo/client", daemons, 5),
        ("demo/client", "demo/server", only_v6, 6),
    ):
        proofs = judge(observe(source, target, APP_PORTS, through))
        assert [proof.against for proof in proofs] == [()] * claims
    said.clear()
    up(said.append, lab)
    assert said[0] == "the lab is already up"
    said.clear()
    down(said.append, lab)
    assert f"removed: network namespace {PREFIX}demo-client" in said
    _nothing_is_left(lab)
    said.clear()
    down(said.append, lab)
    assert said == ["there is no lab"]


def _kill_daemons(lab: Lab) -> None:
    _kill([pid for job in lab.daemons for pid in jobs.running(job)])


def _kill_app(lab: Lab) -> None:
    _kill(jobs.running(lab.app))


def _remove_pod_namespace(lab: Lab) -> None:
    topology._remove_namespace(lab.layout.pods[0].netns)


def _unenroll(lab: Lab) -> None:
    Client(lab.layout.nodes[0].name).call("unenroll", pod="demo/client")


def _lose_the_ready_mark(lab: Lab) -> None:
    lab.ready.unlink()


def _remove_a_resolv_conf(lab: Lab) -> None:
    (pod_files.ROOT / lab.layout.pods[1].netns / "resolv.conf").unlink()


def _leave_a_policy_there(lab: Lab) -> None:
    deny = mesh_file.Policy("deny-the-client", "Deny", "cluster.local/ns/demo/sa/client")
    mesh_file.put(lab, mesh_file.with_policies(mesh_file.own_text(lab), (deny,)))


def _kill(pids: list[int] | tuple[int, ...]) -> None:
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


BREAKAGES = [
    *(_kill_daemons, _remove_pod_namespace, _kill_app, _unenroll, _lose_the_ready_mark),
    *(_remove_a_resolv_conf, _leave_a_policy_there),
]


def test_a_lab_that_is_broken_in_any_way_is_rebuilt_by_up(lab: Lab) -> None:
    up(_silent, lab)
    for breakage in BREAKAGES:
        breakage(lab)
        said: list[str] = []
        up(said.append, lab)
        assert any(line.startswith("removed from a broken lab") for line in said), breakage.__name__
        assert _curl(lab)["origin"].startswith(lab.layout.pods[0].ip4), breakage.__name__


@pytest.mark.parametrize("breakage", BREAKAGES[:2], ids=lambda breakage: breakage.__name__.strip("_"))
def test_a_broken_lab_is_removed_by_down(lab: Lab, breakage: Callable[[Lab], None]) -> None:
    up(_silent, lab)
    breakage(lab)
    down(_silent, lab)
    _nothing_is_left(lab)


SCRIPT = """
import sys
from zproxy.config import RUN_ROOT
from zproxy.lab.layout import make_layout
from zproxy.lab.lifecycle import Lab, up
up(lambda line: print(line, flush=True), Lab(make_layout(sys.argv[1]), RUN_ROOT / f"{sys.argv[1]}lab"))
"""


@pytest.mark.parametrize("at", ["(at once)", "daemon of zpt", "enrolled demo/client"])
def test_what_an_up_that_was_killed_half_way_leaves_is_removed(lab: Lab, said: list[str], at: str) -> None:
    _kill_up(lab, at)
    down(said.append, lab)
    assert any(line.startswith("removed: network namespace") for line in said)
    _nothing_is_left(lab)


def test_after_an_up_that_was_killed_the_next_one_works(lab: Lab) -> None:
    _kill_up(lab, "network: ")
    up(_silent, lab)
    assert _curl(lab)["origin"].startswith(lab.layout.pods[0].ip4)


def _kill_up(lab: Lab, at: str) -> None:
    argv = [sys.executable, "-c", SCRIPT, PREFIX]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=inside.environment(), text=True) as process:
        _wait_for(process, lab, at)
        process.kill()


def _wait_for(process: "subprocess.Popen[str]", lab: Lab, at: str) -> None:
    assert process.stdout is not None
    if at != "(at once)":
        assert any(line.startswith(at) for line in process.stdout)
        return
    deadline = time.monotonic() + 20
    while not topology.present(lab.layout):
        assert time.monotonic() < deadline


def test_a_daemon_that_cannot_start_says_why_and_leaves_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "mesh_text", lambda layout: "workloads:\n- colour: red\n")
    with pytest.raises(ZproxyError, match=r"(?s)daemon of .*node-a ended at once.*colour"):
        up(_silent, lab)
    _nothing_is_left(lab)
    with contextlib.suppress(
        ChildProcessError
    ):  # a command leaves its ended children to init, a test must not
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def test_a_node_name_that_someone_else_runs_is_refused(lab: Lab) -> None:
    up(_silent, lab)
    other = lab._replace(directory=lab.directory.with_name(f"{PREFIX}other"))
    for command in (up, down):
        with pytest.raises(ConfigError, match="a daemon that is not the lab's runs for"):
            command(_silent, other)
    assert _curl(lab)


def test_an_unknown_pod_and_a_lab_that_is_down_are_one_sentence(lab: Lab) -> None:
    with pytest.raises(ConfigError, match="the lab has no pod 'demo/x', only demo/client and demo/server"):
        lifecycle.open_pod("demo/x", lab)
    with pytest.raises(ConfigError, match="`zproxy lab up` builds it"):
        lifecycle.open_pod("demo/client", lab)


def test_without_root_the_remedy_is_said(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(RequirementError, match="the lab needs root"):
            up(_silent, lab)


def test_the_lab_keeps_its_files_in_one_directory(lab: Lab) -> None:
    paths = [lab.mesh, lab.ready, *(job.log for job in lab.jobs)]
    assert all(Path(path).parent == lab.directory for path in paths)
    assert all(any(str(lab.directory) in word for word in job.arguments) for job in lab.jobs)
