"""Which daemons a command asks."""

import click
import pytest
from click.testing import CliRunner
from zproxy_cli.session import Session, node_option, pass_session

from tests.cli.conftest import StartDaemons
from zproxy.errors import ConfigError, RequirementError

WORKLOADS = [{"namespace": "demo", "name": "server", "node": "node-b"}]


def test_all_daemons_are_asked_or_the_one_that_is_given(start: StartDaemons) -> None:
    start(node_a={}, node_b={})
    assert [client.node for client in Session().clients()] == ["node-a", "node-b"]
    assert [client.node for client in Session("node-b").clients()] == ["node-b"]


def test_a_given_node_is_taken_without_looking(start: StartDaemons) -> None:
    start()
    assert [client.node for client in Session("node-x").clients()] == ["node-x"]


def test_without_a_daemon_the_sentence_says_how_to_start_one(start: StartDaemons) -> None:
    start()
    with pytest.raises(RequirementError, match=r"no zproxy daemon runs .* `zproxy run --node NAME"):
        Session().clients()


def test_a_pod_belongs_to_the_daemon_of_its_workloads_node(start: StartDaemons) -> None:
    start(node_a={"workloads": WORKLOADS}, node_b={"workloads": WORKLOADS})
    assert Session().client_for("demo/server").node == "node-b"
    with pytest.raises(ConfigError, match="unknown pod demo/ghost"):
        Session().client_for("demo/ghost")


def test_the_only_daemon_judges_pods_itself(start: StartDaemons) -> None:
    daemons = start(node_a={})
    assert Session().client_for("demo/anything").node == "node-a"
    assert daemons.calls == []


@click.command()
@node_option
@pass_session
def show(session: Session) -> None:
    click.echo(session.node_name)


@pytest.mark.parametrize(
    ("given", "words", "meant"),
    [("a", [], "a"), ("a", ["--node", "b"], "b"), (None, ["--node", "b"], "b")],
)
def test_a_node_behind_the_noun_goes_before_one_in_front(
    given: str | None, words: list[str], meant: str
) -> None:
    assert CliRunner().invoke(show, words, obj=Session(given)).stdout == f"{meant}\n"
