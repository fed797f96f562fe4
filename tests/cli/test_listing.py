"""Listings of one daemon, of all, or of the one that is chosen."""

import json
from collections.abc import Callable

from click.testing import Result

from tests.cli.conftest import StartDaemons
from tests.support.daemons import Call
from zproxy.errors import ZproxyError

Zp = Callable[..., Result]
A = {"tunnels": [{"id": 1, "pod": "demo/client", "role": "client"}]}
B = {"tunnels": [{"id": 1, "pod": "demo/server", "role": "server"}]}


def test_one_daemon_is_asked_and_its_rows_are_shown(start: StartDaemons, zp: Zp) -> None:
    daemons = start(node_a=A)
    lines = zp("tunnels").stdout.splitlines()
    assert [line.split()[:3] for line in lines] == [["ID", "POD", "ROLE"], ["1", "demo/client", "client"]]
    assert daemons.calls == [Call("node-a", "tunnels", {})]


def test_of_several_daemons_each_row_says_whose_it_is(start: StartDaemons, zp: Zp) -> None:
    start(node_a=A, node_b=B)
    lines = zp("tunnels").stdout.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["NODE", "ID", "POD"],
        ["node-a", "1", "demo/client"],
        ["node-b", "1", "demo/server"],
    ]
    rows = json.loads(zp("tunnels", "-o", "json").stdout)
    assert [(row["node"], row["pod"]) for row in rows] == [
        ("node-a", "demo/client"),
        ("node-b", "demo/server"),
    ]


def test_only_the_chosen_daemon_is_asked(start: StartDaemons, zp: Zp) -> None:
    daemons = start(node_a=A, node_b=B)
    for words in (("--node", "node-b", "tunnels"), ("tunnels", "--node", "node-b")):
        result = zp(*words)
        assert "demo/server" in result.stdout
        assert "NODE" not in result.stdout
    assert {call.node for call in daemons.calls} == {"node-b"}


def test_nothing_to_list_is_a_sentence(start: StartDaemons, zp: Zp) -> None:
    start(node_a={"tunnels": []})
    result = zp("tunnels")
    assert (result.stdout, result.exit_code) == ("", 0)
    assert result.stderr.startswith("No tunnels")


def test_without_a_daemon_the_sentence_says_how_to_start_one(start: StartDaemons, zp: Zp) -> None:
    start()
    result = zp("tunnels")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: no zproxy daemon runs on this machine: start one with")


def test_what_the_daemon_says_is_passed_on(start: StartDaemons, zp: Zp) -> None:
    start(node_a={"tunnels": ZproxyError("the daemon is stopping; try again")})
    result = zp("tunnels")
    assert (result.exit_code, result.stderr) == (1, "Error: the daemon is stopping; try again\n")
