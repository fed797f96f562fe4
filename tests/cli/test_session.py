"""Which node a command means."""

import click
import pytest
from click.testing import CliRunner
from zproxy_cli.session import Session, choose, node_option, pass_session

from zproxy.errors import ConfigError, RequirementError
from zproxy.node import client


def test_the_only_node_is_meant() -> None:
    assert choose(["node-a"]) == "node-a"


def test_without_a_daemon_the_sentence_says_how_to_start_one() -> None:
    with pytest.raises(RequirementError, match=r"no zproxy daemon runs .* `zproxy run --node NAME"):
        choose([])


def test_of_several_nodes_one_has_to_be_chosen() -> None:
    with pytest.raises(ConfigError, match="node-a and node-b run on this machine: choose one with --node"):
        choose(["node-a", "node-b"])


def test_a_given_node_is_taken_without_looking() -> None:
    session = Session("node-x")
    assert session.node() == "node-x"
    assert session.client().node == "node-x"
    assert session.client() is session.client()


def test_a_node_that_is_not_given_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "running_nodes", lambda: ["node-a"])
    assert Session().client().node == "node-a"


@click.command()
@node_option
@pass_session
def show(session: Session) -> None:
    click.echo(session.node())


@pytest.mark.parametrize(
    ("given", "words", "meant"),
    [("a", [], "a"), ("a", ["--node", "b"], "b"), (None, ["--node", "b"], "b")],
)
def test_a_node_behind_the_noun_goes_before_one_in_front(
    given: str | None, words: list[str], meant: str
) -> None:
    assert CliRunner().invoke(show, words, obj=Session(given)).stdout == f"{meant}\n"
