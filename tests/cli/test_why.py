"""`zproxy why`: the answer for people and for scripts, and its exit status."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from click.testing import Result

from tests.cli.conftest import StartDaemons
from tests.support.daemons import Call
from zproxy.errors import ConfigError

Zp = Callable[..., Result]
STEPS = [
    {"subject": "policy", "outcome": "no match", "detail": "demo/deny: Deny, scope Namespace", "depth": 0},
    {"subject": "rule", "outcome": "no match", "detail": "", "depth": 1},
]
ANSWER: dict[str, Any] = {
    "source": "demo/client",
    "destination": "web:80",
    "protocol": "tcp",
    "sections": [{"title": "receiving side: demo/server", "steps": STEPS}],
    "allowed": True,
    "sentence": "demo/client may reach 10.96.0.1:80",
}


def test_sections_are_indented_by_depth_and_the_sentence_ends_it(start: StartDaemons, zp: Zp) -> None:
    daemons = start(node_a={"why": ANSWER})
    result = zp("why", "demo/client", "web:80")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "receiving side: demo/server",
        "  policy   no match   demo/deny: Deny, scope Namespace",
        "    rule   no match",
        "",
        "demo/client may reach 10.96.0.1:80.",
    ]
    asked = {"source": "demo/client", "destination": "web:80", "protocol": "tcp"}
    assert daemons.calls == [Call("node-a", "why", asked)]


def test_what_is_refused_has_status_1_and_is_printed_all_the_same(start: StartDaemons, zp: Zp) -> None:
    start(node_a={"why": ANSWER | {"allowed": False}})
    for output, load in (("json", json.loads), ("yaml", yaml.safe_load)):
        result = zp("why", "demo/client", "web:80", "-o", output)
        assert (result.exit_code, load(result.stdout)) == (1, ANSWER | {"allowed": False})


def test_a_connection_is_asked_for_by_its_number(start: StartDaemons, zp: Zp) -> None:
    daemons = start(node_a={"why_connection": ANSWER})
    assert zp("why", "--connection", "7").exit_code == 0
    assert daemons.calls == [Call("node-a", "why_connection", {"number": 7})]


def test_a_number_means_something_to_one_daemon_only(start: StartDaemons, zp: Zp) -> None:
    start(node_a={"why_connection": ANSWER}, node_b={"why_connection": ANSWER})
    result = zp("why", "--connection", "7")
    assert result.exit_code == 1
    assert "choose one of node-a, node-b with --node" in result.stderr
    assert zp("why", "--connection", "7", "--node", "node-b").exit_code == 0


@pytest.mark.parametrize(
    "words",
    [(), ("demo/client",), ("demo/client", "web:80", "--connection", "7"), ("a/b", "c", "--protocol", "x")],
)
def test_wrong_usage_has_status_2(start: StartDaemons, zp: Zp, words: tuple[str, ...]) -> None:
    start(node_a={"why": ANSWER})
    assert zp("why", *words).exit_code == 2


def test_what_the_daemon_cannot_answer_is_its_sentence(start: StartDaemons, zp: Zp) -> None:
    start(node_a={"why": ConfigError("demo/x is not enrolled on node node-a")})
    result = zp("why", "demo/x", "web:80")
    assert (result.exit_code, result.stderr) == (1, "Error: demo/x is not enrolled on node node-a\n")
