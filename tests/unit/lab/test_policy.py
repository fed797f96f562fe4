"""Policies on a lab of its own: what they do is said, what they fail to do is an error, nothing stays."""

import os
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from zproxy.config import RUN_ROOT
from zproxy.errors import ConfigError, ZproxyError
from zproxy.lab import mesh_file, policy
from zproxy.lab.layout import make_layout
from zproxy.lab.lifecycle import Lab, down, up
from zproxy.node.client import Client

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

PREFIX = f"zpt-{os.getpid()}-"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One for all tests here: each must leave it as it was."""
    made = Lab(make_layout(PREFIX), RUN_ROOT / f"{PREFIX}lab")
    up(_silent, made)
    try:
        yield made
    finally:
        down(_silent, made)


@pytest.fixture(autouse=True)
def _unchanged(lab: Lab) -> Iterator[None]:
    before = lab.mesh.read_text()
    yield
    assert lab.mesh.read_text() == before
    mesh_file.wait_until_taken(lab, ())


@pytest.fixture
def said() -> list[str]:
    return []


def _silent(_: str) -> None:
    return


def test_allow_goes_on_deny_ends_and_afterwards_all_is_as_before(lab: Lab, said: list[str]) -> None:
    for _ in range(2):
        said.clear()
        policy.show(said.append, lab)
        text = "\n".join(said)
        steps = [
            "demo/client has a connection open to server.demo.svc.cluster.local",
            "ALLOW cluster.local/ns/demo/sa/client: the open connection goes on",
            "DENY cluster.local/ns/demo/sa/client: the open connection was closed after",
            "a new one is refused: curl: (",  # 56, or 7 where the reset was there before curl looked
            'error="http status: 401"',
            'error="connection closed due to policy change: explicitly denied by: demo/deny-the-client"',
            'error="connection closed due to policy rejection: explicitly denied by: demo/deny-the-client"',
            "a new connection is answered with 200",
        ]
        places = [text.find(step) for step in steps]
        assert -1 not in places, text
        assert places == sorted(places)


def test_what_a_killed_run_left_is_taken_out_first(lab: Lab, said: list[str]) -> None:
    before = lab.mesh.read_text()
    rest = mesh_file.Policy("deny-the-client", "Deny", "cluster.local/ns/demo/sa/client")
    mesh_file.put(lab, mesh_file.with_policies(before, (rest,)))
    mesh_file.wait_until_taken(lab, (rest,))
    policy.show(said.append, lab)
    assert "a new connection is answered with 200" in said[-1]


def test_an_interrupt_leaves_no_policy(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    policies: list[Any] = []

    def interrupt(*_: object) -> NoReturn:
        policies.extend(Client(lab.layout.nodes[1].name).call("policies"))
        raise KeyboardInterrupt

    monkeypatch.setattr(policy._Stream, "asks_on", interrupt)
    with pytest.raises(KeyboardInterrupt):
        policy.show(_silent, lab)
    assert [row["name"] for row in policies] == ["allow-the-client"]


def test_a_deny_that_does_nothing_is_an_error(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    original = mesh_file.with_policies

    def without_deny(text: str, policies: tuple[mesh_file.Policy, ...]) -> str:
        return original(text, tuple(each for each in policies if each.action == "Allow"))

    monkeypatch.setattr(mesh_file, "with_policies", without_deny)
    with pytest.raises(ZproxyError, match="demo/deny-the-client is there, and the open connection was not"):
        policy.show(_silent, lab)


def test_an_allow_that_refuses_is_an_error(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    original = mesh_file.Policy.text

    def for_somebody_else(self: mesh_file.Policy) -> str:
        return original(self).replace("sa/client", "sa/other")

    monkeypatch.setattr(mesh_file.Policy, "text", for_somebody_else)
    with pytest.raises(ZproxyError, match="the open connection broke"):
        policy.show(_silent, lab)


def test_without_a_lab_the_remedy_is_said() -> None:
    nowhere = Lab(make_layout(f"{PREFIX}x-"), RUN_ROOT / f"{PREFIX}x-lab")
    with pytest.raises(ConfigError, match="`zproxy lab up` builds it"):
        policy.show(_silent, nowhere)
