"""`zproxy enroll`: the right daemon is asked, with what was given and nothing made up."""

from collections.abc import Callable

import pytest
from click.testing import Result

from tests.cli.conftest import StartDaemons
from tests.support.daemons import Call
from zproxy.errors import EnrollError

Zp = Callable[..., Result]
ROW = {"pod": "demo/client", "state": "ready", "ips": ["10.244.1.5"], "node": "node-a", "changed": True}
WORKLOADS = [
    {"namespace": "demo", "name": "client", "node": "node-a"},
    {"namespace": "demo", "name": "server", "node": "node-b"},
]


def asked(pod: str, **given: object) -> dict[str, object]:
    nothing: dict[str, object] = {
        "netns": None,
        "pid": None,
        "service_account": None,
        "options": {},
        "cgroup": None,
        "pod_uid": None,
        "container": None,
    }
    return {"pod": pod} | nothing | given


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ((), {}),
        (("--netns", "demo-client"), {"netns": "demo-client"}),
        (("--dns", "--udp", "block"), {"options": {"dns": True, "udp": "block"}}),
        (("--no-dns", "--fail-open"), {"options": {"dns": False, "fail_open": True}}),
        (("--cgroup", "/kubepods/pod1"), {"cgroup": "/kubepods/pod1"}),
        (("--pod-uid", "8d1f"), {"pod_uid": "8d1f"}),
        (("--container", "c0ffee"), {"container": "c0ffee"}),
        (("--pid", "42", "--service-account", "other"), {"pid": 42, "service_account": "other"}),
    ],
)
def test_the_daemon_gets_what_was_given(
    start: StartDaemons, zp: Zp, words: tuple[str, ...], given: dict[str, object]
) -> None:
    daemons = start(node_a={"enroll": ROW})
    result = zp("enroll", "demo/client", *words)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].split() == [
        "demo/client",
        "ready",
        "10.244.1.5",
        "node-a",
        "-",
        "yes",
    ]
    assert daemons.calls == [Call("node-a", "enroll", asked("demo/client", **given))]


def test_of_several_daemons_the_one_of_the_pods_node_is_asked(start: StartDaemons, zp: Zp) -> None:
    daemons = start(
        node_a={"enroll": ROW, "workloads": WORKLOADS},
        node_b={"enroll": ROW | {"pod": "demo/server"}, "workloads": WORKLOADS},
    )
    assert "demo/server" in zp("enroll", "demo/server").stdout
    assert [call.node for call in daemons.calls if call.command == "enroll"] == ["node-b"]


def test_a_pod_that_no_daemon_knows_is_a_sentence(start: StartDaemons, zp: Zp) -> None:
    start(node_a={"workloads": WORKLOADS}, node_b={"workloads": WORKLOADS})
    result = zp("enroll", "demo/ghost")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: unknown pod demo/ghost")


def test_why_enrolment_failed_is_passed_on(start: StartDaemons, zp: Zp) -> None:
    start(node_a={"enroll": EnrollError("no namespace demo-client in /run/netns; give --netns or --pid")})
    result = zp("enroll", "demo/client")
    assert result.exit_code == 1
    assert result.stderr == "Error: no namespace demo-client in /run/netns; give --netns or --pid\n"


def test_a_container_names_its_pod_by_itself(start: StartDaemons, zp: Zp) -> None:
    daemons = start(node_a={"enroll": ROW})
    assert "demo/client" in zp("enroll", "--container", "c0ffee").stdout
    assert daemons.calls[0].arguments["pod"] is None


def test_without_a_pod_one_of_several_daemons_has_to_be_chosen(start: StartDaemons, zp: Zp) -> None:
    daemons = start(node_a={"enroll": ROW}, node_b={"enroll": ROW})
    result = zp("enroll", "--container", "c0ffee")
    assert result.exit_code == 1
    assert "node-a, node-b" in result.stderr
    assert zp("--node", "node-b", "enroll", "--container", "c0ffee").exit_code == 0
    assert [call.node for call in daemons.calls] == ["node-b"]


def test_what_the_daemon_warns_of_is_no_result(start: StartDaemons, zp: Zp) -> None:
    start(node_a={"enroll": ROW | {"warnings": ["it has the default identity"]}})
    result = zp("enroll", "demo/client")
    assert result.stderr == "Warning: it has the default identity.\n"
    assert "default identity" not in result.stdout


@pytest.mark.parametrize("words", [(), ("demo/client", "--pid", "0"), ("demo/client", "--pid", "x")])
def test_wrong_usage_is_status_2(start: StartDaemons, zp: Zp, words: tuple[str, ...]) -> None:
    daemons = start(node_a={"enroll": ROW})
    assert zp("enroll", *words).exit_code == 2
    assert not daemons.calls
