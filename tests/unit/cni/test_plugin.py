"""The plugin: what the daemon is asked, and what the runtime is told of it."""

import json
from typing import Any

import pytest

from tests.support.cni import RESULT, configuration, environment
from tests.support.daemons import Call, Daemons
from zproxy.cni import plugin
from zproxy.cni.plugin import Outcome, answer
from zproxy.errors import EnrollError, NoDaemon, ZproxyError

AWAY = NoDaemon("no zproxy daemon runs for node node-a")
NO = EnrollError("demo/client has other addresses")
FINE: dict[str, Any] = {
    "cni_add": {"enrolled": True},
    "cni_check": {"enrolled": True},
    "cni_delete": {"unenrolled": True},
    "cni_collect": {"unenrolled": []},
    "status": {"node": "node-a"},
}
GC = {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}


class Asked(Daemons):
    """Keeps how long each was given to answer."""

    def __init__(self, answers: dict[str, dict[str, Any]]) -> None:
        super().__init__(answers)
        self.patience: list[float] = []

    def patient(self, node: str, answer_s: float) -> Any:
        self.patience.append(answer_s)
        return self.client(node)


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked({"node-a": dict(FINE)})
    monkeypatch.setattr(plugin, "Client", asked.patient)
    return asked


def fail(daemon: Asked, error: ZproxyError) -> None:
    daemon.answers["node-a"] = dict.fromkeys(FINE, error)


def ask(command: str, pod: str = "demo/client", **conf: Any) -> Outcome:
    more = GC if command == "GC" else {}
    return answer(environment(command, pod), configuration(**more | conf))


def error_of(outcome: Outcome) -> tuple[int, str]:
    assert outcome.status == 1
    error = json.loads(outcome.stdout)
    assert error["cniVersion"] == "1.1.0"
    return error["code"], error["msg"]


def test_add_enrols_and_passes_the_result_on(daemon: Asked) -> None:
    outcome = ask("ADD", waitMs=500)
    assert (outcome.status, json.loads(outcome.stdout), outcome.notes) == (0, RESULT, ())
    arguments = {
        "pod": "demo/client",
        "netns": "/run/netns/x",
        "attachment": "net/c1/eth0",
        "ips": ["10.1.0.5", "fd00::5"],
        "wait_ms": 500,
    }
    assert daemon.calls == [Call("node-a", "cni_add", arguments)]
    assert daemon.patience == [10.5]


def test_del_check_gc_and_status_ask_the_daemon_and_say_nothing(daemon: Asked) -> None:
    pod = {"pod": "demo/client", "netns": "/run/netns/x"}
    for command in ("DEL", "CHECK", "GC", "STATUS"):
        assert ask(command, waitMs=500) == Outcome(0)
    assert daemon.calls == [
        Call("node-a", "cni_delete", pod | {"attachment": "net/c1/eth0"}),
        Call("node-a", "cni_check", pod | {"ips": ["10.1.0.5", "fd00::5"]}),
        Call("node-a", "cni_collect", {"network": "net", "valid": ["net/c2/eth0"]}),
        Call("node-a", "status", {}),
    ]
    assert daemon.patience == [10.0] * 4


@pytest.mark.parametrize(
    ("command", "away", "refused"),
    [("ADD", 11, 100), ("CHECK", 11, 100), ("GC", 11, 100), ("STATUS", 51, 51)],
)
def test_a_failure_has_a_code_and_the_daemons_sentence(
    daemon: Asked, command: str, away: int, refused: int
) -> None:
    fail(daemon, AWAY)
    assert error_of(ask(command)) == (away, str(AWAY))
    fail(daemon, NO)
    assert error_of(ask(command)) == (refused, str(NO))


@pytest.mark.parametrize("error", [AWAY, NO])
def test_del_never_fails(daemon: Asked, error: ZproxyError) -> None:
    fail(daemon, error)
    outcome = ask("DEL")
    assert (outcome.status, outcome.stdout) == (0, "")
    assert str(error) in outcome.notes[0]


@pytest.mark.parametrize("error", [AWAY, NO])
@pytest.mark.parametrize(("command", "result"), [("ADD", RESULT), ("CHECK", None), ("STATUS", None)])
def test_what_fails_open_is_noted(
    daemon: Asked, error: ZproxyError, command: str, result: dict[str, Any] | None
) -> None:
    fail(daemon, error)
    outcome = ask(command, failOpen=True)
    assert outcome.status == 0
    assert outcome.stdout == ("" if result is None else json.dumps(result) + "\n")
    [note] = outcome.notes
    assert note.endswith(f"(failOpen): {error}")


@pytest.mark.parametrize("command", ["ADD", "CHECK", "DEL"])
def test_what_is_no_pod_passes_and_the_daemon_is_not_asked(daemon: Asked, command: str) -> None:
    outcome = ask(command, pod="")
    assert outcome.status == 0
    assert not daemon.calls


def test_version_needs_nothing(daemon: Asked) -> None:
    for text in (b"", b"x", b'{"cniVersion": "1.1.0"}'):
        outcome = answer({"CNI_COMMAND": "VERSION"}, text)
        versions = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]
        assert outcome.status == 0
        assert json.loads(outcome.stdout) == {"cniVersion": "1.1.0", "supportedVersions": versions}
    assert not daemon.calls


def test_an_error_speaks_a_version_that_there_is(daemon: Asked) -> None:
    outcome = answer(environment("ADD"), configuration(cniVersion="9.9.9"))
    assert error_of(outcome)[0] == 1
    assert not daemon.calls


def test_a_mistake_of_the_plugins_own_is_an_error_result(
    daemon: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin, "Client", None)
    assert error_of(ask("ADD")) == (101, "internal error of zproxy-cni")
    assert not daemon.calls
