"""The shell completes pods: those that can be enrolled after `enroll`, those that are after `unenroll`."""

import pytest
from click.shell_completion import ShellComplete
from zproxy_cli.main import zproxy

from tests.cli.conftest import StartDaemons
from zproxy.errors import ZproxyError

PODS = [
    {"pod": "demo/client", "state": "enrolled"},
    {"pod": "demo/web", "state": "ready"},
    {"pod": "kube-system/proxy", "state": "unfit"},
]
WORKLOADS = [
    {"namespace": "demo", "name": "client", "node": "node-a"},
    {"namespace": "demo", "name": "lab", "node": "node-a"},
    {"namespace": "demo", "name": "far", "node": "node-b"},
]


def completed(*words: str, incomplete: str = "") -> list[str]:
    shell = ShellComplete(zproxy, {}, "zproxy", "_ZPROXY_COMPLETE")
    return [item.value for item in shell.get_completions(list(words), incomplete)]


def test_enroll_completes_what_can_be_enrolled(start: StartDaemons) -> None:
    start(node_a={"candidates": PODS, "workloads": WORKLOADS})
    assert completed("enroll") == ["demo/lab", "demo/web"]
    assert completed("enroll", incomplete="demo/w") == ["demo/web"]


def test_unenroll_completes_what_is_enrolled(start: StartDaemons) -> None:
    start(node_a={"pods": PODS[:1]})
    assert completed("unenroll") == ["demo/client"]


@pytest.mark.parametrize("words", [("--node", "node-b", "unenroll"), ("unenroll", "--node", "node-b")])
def test_the_chosen_daemon_is_asked(start: StartDaemons, words: tuple[str, ...]) -> None:
    daemons = start(node_a={"pods": PODS}, node_b={"pods": []})
    assert completed(*words) == []
    assert [call.node for call in daemons.calls] == ["node-b"]


def test_a_daemon_that_fails_completes_nothing(start: StartDaemons) -> None:
    start(node_a={"candidates": ZproxyError("no"), "workloads": ZproxyError("no"), "pods": ZproxyError("no")})
    assert completed("enroll") == completed("unenroll") == []
